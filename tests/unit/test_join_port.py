"""The port where boards join, with real TLS on loopback: who is let in, what others are told."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from fogmqtt.cli.renewal import renew_if_old
from fogmqtt.errors import BadInvitation, ConfigError, JoinRefused, NoGateway, WrongClock
from fogmqtt.joining import open_port
from fogmqtt.joining import port as join_port
from fogmqtt.joining.authority import Authority, names_of
from fogmqtt.joining.board import join, renew
from fogmqtt.joining.broker_files import access_list
from fogmqtt.joining.bundle import JoinBundle, pin_of, utc_now
from fogmqtt.joining.identity import Identity, folders, load_identity
from fogmqtt.joining.ledger import Member
from fogmqtt.joining.membership import Membership
from fogmqtt.joining.names import own_addresses
from fogmqtt.joining.open_port import await_port
from fogmqtt.joining.port import MOST_REFUSALS, REFUSALS, JoinPort, Refusals
from fogmqtt.joining.site import Site, SiteSettings
from tests.fog import free_port, wait_for

#: `ssl` leaves a socket to the collector of garbage if the port resets it before the handshake.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <ssl\.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)

DAY = timedelta(days=1)


def make_site(folder: Path, *, now: datetime | None = None, port: int = 0) -> Site:
    settings = SiteSettings(
        gateway="mariem",
        prefix="fog/v1",
        port=free_port(),
        local_port=free_port(),
        join_port=port or free_port(),
        addresses=("127.0.0.1",),
    )
    site = Site(folder, settings)
    site.make(now or utc_now())
    return site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "fog")


@pytest.fixture
def opened(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site whose port is watched, with little patience."""
    monkeypatch.setattr(join_port, "WATCH_S", 0.05)
    monkeypatch.setattr(join_port, "_IDLE_S", 1.0)
    port = JoinPort(site, "127.0.0.1", site.settings.join_port)
    port.start()
    yield site
    port.close()


def invited(site: Site, board: str = "eya", *, replaces: bool = False) -> JoinBundle:
    bundle = Membership(site).invite(board, DAY, utc_now(), replaces=replaces)
    wait_for(lambda: listens(site), what="the join port", within=30)
    return bundle


def listens(site: Site) -> bool:
    try:
        socket.create_connection(("127.0.0.1", site.settings.join_port), 1).close()
    except OSError:
        return False
    return True


def test_a_board_joins_with_a_file(opened: Site, tmp_path: Path) -> None:
    identity, remark = join(invited(opened), (), tmp_path / "board")
    assert remark == ""
    assert identity.brokers == opened.brokers
    assert load_identity("eya", (tmp_path / "none", tmp_path / "board")) == (
        identity,
        tmp_path / "board",
    )
    assert opened.ledger.read().members["eya"].address == "127.0.0.1"
    context = ssl.create_default_context(cafile=identity.ca(tmp_path / "board"))
    context.load_cert_chain(identity.pem(tmp_path / "board"))


def test_a_board_is_told_the_address_first_by_which_it_came(
    opened: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("192.0.2.7", "mariem.local", "127.0.0.1")
    monkeypatch.setattr(
        opened, "settings", msgspec.structs.replace(opened.settings, addresses=names)
    )
    code = invited(opened).code
    identity, _ = join(code, (opened.join_urls[2],), tmp_path)
    for urls in (identity.brokers, identity.join, renew(identity, tmp_path).join):
        assert [urlsplit(url).hostname for url in urls] == ["127.0.0.1", *names[:2]]


def test_broker_and_port_get_a_new_certificate_when_the_address_changes(
    opened: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_port, "RENEW_S", 0.1)
    bundle = invited(opened)
    moved = msgspec.structs.replace(opened.settings, addresses=("127.0.0.1", "192.0.2.7"))
    monkeypatch.setattr(opened, "settings", moved)

    def is_shown() -> bool:
        address = ("127.0.0.1", opened.settings.join_port)
        try:
            return "192.0.2.7" in names_of(ssl.get_server_certificate(address, timeout=10))
        except OSError:
            return False  # it opens anew

    wait_for(is_shown, what="the new certificate", within=30)
    join(bundle, (), tmp_path)


def test_names_that_a_network_may_not_know_come_last(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(make_site(tmp_path).settings, addresses=())
    *addresses, name = Site(tmp_path, settings).addresses
    assert tuple(addresses) == own_addresses()
    assert name.endswith(".local")


def test_a_board_joins_with_a_line_and_the_address_of_the_gateway(
    opened: Site, tmp_path: Path
) -> None:
    code = invited(opened).code
    identity, _ = join(code, opened.join_urls, tmp_path)
    assert identity.pin == code.pin
    assert identity.ca(tmp_path).read_text() == opened.authority.pem


def test_an_invitation_is_not_used_up_where_the_identity_cannot_be_saved(
    opened: Site, tmp_path: Path
) -> None:
    bundle = invited(opened)
    (tmp_path / "file").touch()  # stands for a read-only system: root may write everywhere else
    with pytest.raises(ConfigError, match="XDG_CONFIG_HOME"):
        join(bundle, (), tmp_path / "file" / "fogmqtt")
    identity, _ = join(bundle, (), tmp_path / "board")
    (tmp_path / "moved").touch()
    with pytest.raises(ConfigError, match="XDG_CONFIG_HOME"):
        renew(identity, tmp_path / "moved")
    assert renew(identity, tmp_path / "board").id == "eya"


def test_root_keeps_an_identity_where_it_is_told_to(tmp_path: Path) -> None:
    named = folders({"XDG_CONFIG_HOME": str(tmp_path / "new")})
    assert named[0] == tmp_path / "new" / "fogmqtt"


def test_what_a_board_saves_is_its_own(opened: Site, tmp_path: Path) -> None:
    join(invited(opened), (), tmp_path / "board")
    files = sorted((tmp_path / "board").iterdir())
    assert [path.name for path in files] == ["eya.ca.crt", "eya.json", "eya.pem"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_the_access_list_has_each_board_that_joined_and_no_other(
    opened: Site, tmp_path: Path
) -> None:
    before = (opened.broker / "acl").read_text()
    join(invited(opened), (), tmp_path)
    added = (opened.broker / "acl").read_text().removeprefix(before)
    assert added.splitlines()[1] == "user eya"
    assert all("eya" in line for line in added.split("\n") if line)
    assert "pattern" not in before + added


def test_a_board_that_joined_may_do_what_a_device_of_the_shipped_roles_may() -> None:
    roles = (Path(__file__).parents[2] / "broker" / "roles").read_text().splitlines()
    of_devices = [
        line.removeprefix("device ")
        .replace("PREFIX", "fog/v1")
        .replace("NAME", "eya")
        .replace("GATEWAY", "+")
        for line in roles
        if line.startswith("device ")
    ]
    lines = access_list("mariem", "fog/v1", ["eya"]).partition("user eya\n")[2].splitlines()
    assert sorted(lines) == sorted(f"topic {line}" for line in of_devices)


def test_a_newer_version_of_the_gateway_renews_the_access_list(site: Site) -> None:
    path = site.broker / "acl"
    text = path.read_text()
    path.write_text("user mariem\n")
    port = JoinPort(site, "127.0.0.1", site.settings.join_port)
    port.start()
    port.close()
    assert path.read_text() == text


def test_two_boards_with_one_file_are_one_board_and_a_named_thief(
    opened: Site, tmp_path: Path
) -> None:
    bundle = invited(opened)
    join(bundle, (), tmp_path / "one")
    with pytest.raises(JoinRefused, match=r"this invitation was used 20.* from 127\.0\.0\.1"):
        join(bundle, (), tmp_path / "two")
    assert not (tmp_path / "two").exists()


def test_a_line_of_another_authority_sends_nothing_to_this_one(
    opened: Site, tmp_path: Path
) -> None:
    code = msgspec.structs.replace(invited(opened).code, pin="A" * 26)
    with pytest.raises(JoinRefused, match="is not the gateway of this invitation"):
        join(code, opened.join_urls, tmp_path)
    assert opened.ledger.read().invitations[0].used is None


def test_a_gateway_that_was_made_anew_is_not_the_one_of_the_file(
    opened: Site, tmp_path: Path
) -> None:
    other = Authority.make("mariem", utc_now())[0]
    bundle = msgspec.structs.replace(invited(opened), ca=other.pem)
    with pytest.raises(JoinRefused, match="another authority signed its certificate"):
        join(bundle, (), tmp_path)


def test_a_board_whose_clock_is_years_behind_is_told_both_times(tmp_path: Path) -> None:
    future = datetime(2050, 1, 1, tzinfo=UTC)
    site = make_site(tmp_path / "fog", now=future)
    port = JoinPort(site, "127.0.0.1", site.settings.join_port)
    port.start()
    try:
        with pytest.raises(WrongClock, match=r"this board's clock says 20\d\d-.*set the clock"):
            join(invited(site), (), tmp_path)
        # systemd does not start a board again that ends with 2, and its clock may be set soon.
        assert WrongClock.exit_code == NoGateway.exit_code
    finally:
        port.close()


def test_a_gateway_that_is_off_is_named_with_its_address(site: Site, tmp_path: Path) -> None:
    bundle = Membership(site).invite("eya", DAY, utc_now(), replaces=False)
    with pytest.raises(NoGateway, match=r"https://127\.0\.0\.1:\d+: .*refused.*fog-gateway inv"):
        join(bundle, (), tmp_path)


def test_the_port_is_open_only_while_a_board_may_come(opened: Site) -> None:
    assert not listens(opened)
    invited(opened)
    Membership(opened).revoke("eya", utc_now())
    wait_for(lambda: not listens(opened), what="the closed port", within=30)


def test_whoever_is_refused_too_often_gets_no_reasons_and_its_token_still_counts(
    opened: Site, tmp_path: Path
) -> None:
    bundle = invited(opened)
    wrong = msgspec.structs.replace(bundle, token="A" * 26)
    for _ in range(REFUSALS):
        with pytest.raises(JoinRefused, match="no such invitation"):
            join(wrong, (), tmp_path)
    for _ in range(3):
        with pytest.raises(JoinRefused, match="too many requests of this address"):
            join(wrong, (), tmp_path)
    identity, _ = join(bundle, (), tmp_path)
    assert renew(identity, tmp_path).id == "eya"


def test_refusals_of_many_addresses_are_not_all_logged(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()
    for number in range(1000):
        assert refusals.note(f"10.0.{number // 250}.{number % 250}", "no such invitation")
    assert len(caplog.messages) == MOST_REFUSALS + 1
    assert "the next are not named" in caplog.messages[-1]


def test_a_boards_first_request_is_heard_beside_a_flood_of_wrong_ones(
    opened: Site, tmp_path: Path
) -> None:
    bundle = invited(opened)
    address = ("127.0.0.1", opened.settings.join_port)
    wrong = msgspec.json.encode({"id": "eya", "request": "x", "signature": "y"})
    said = b"POST /join HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(wrong), wrong)
    context = ssl.create_default_context(cadata=bundle.ca)
    context.check_hostname = False
    ended, refused = threading.Event(), threading.Semaphore(0)

    def flood() -> None:
        while not ended.is_set():
            with (
                suppress(OSError),
                socket.create_connection(address, 10, ("127.0.0.2", 0)) as plain,
                context.wrap_socket(plain) as secure,
            ):
                secure.sendall(said)
                if secure.recv(100):
                    refused.release()

    flooding = [threading.Thread(target=flood) for _ in range(4)]
    for thread in flooding:
        thread.start()
    try:
        for _ in range(20):
            assert refused.acquire(timeout=60)
        join(bundle, (), tmp_path)
    finally:
        ended.set()
        for thread in flooding:
            thread.join()
    assert opened.ledger.read().members["eya"].address == "127.0.0.1"


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_who_holds_all_places_with_silent_connections_keeps_no_board_out(
    opened: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setattr(join_port, "_IDLE_S", 60.0)
    bundle = invited(opened)
    address = ("127.0.0.1", opened.settings.join_port)
    silent = [socket.create_connection(address, None, (source, 0)) for _ in range(100)]
    join(bundle, (), tmp_path)
    for one in silent:
        one.close()


def test_a_connection_that_lasts_too_long_is_ended(
    opened: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_port, "_LONGEST_S", 0.2)
    monkeypatch.setattr(join_port, "_IDLE_S", 60.0)
    invited(opened)
    with socket.create_connection(("127.0.0.1", opened.settings.join_port), 60) as silent:
        assert silent.recv(1) == b""


def test_an_invitation_is_given_out_when_boards_can_join(opened: Site, tmp_path: Path) -> None:
    bundle = Membership(opened).invite("eya", DAY, utc_now(), replaces=False)
    assert await_port(opened) == ""
    join(bundle, (), tmp_path)


def test_an_invitation_says_that_no_gateway_runs_or_that_its_port_is_closed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    Membership(site).invite("eya", DAY, utc_now(), replaces=False)
    assert f"no gateway serves {site.folder}; start it" in await_port(site)
    monkeypatch.setattr(open_port, "_OPEN_S", 0.2)
    with site.serving():
        assert "the gateway runs, and its log says why: https://127.0.0.1" in await_port(site)
    assert not site.is_served


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /../ca.key HTTP/1.1\r\n\r\n",
        b"POST /join HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        b"POST /join HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /join HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
        b"\x00" * 4000,
    ],
)
def test_what_is_no_request_gets_no_secret_and_harms_nobody(
    opened: Site, tmp_path: Path, said: bytes
) -> None:
    bundle = invited(opened)
    context = ssl.create_default_context(cadata=bundle.ca)
    context.check_hostname = False
    address = ("127.0.0.1", opened.settings.join_port)
    with socket.create_connection(address, 10) as plain, context.wrap_socket(plain) as secure:
        secure.sendall(said)
        if not said:
            secure.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := secure.recv(4096):
            answer += piece
    assert b"PRIVATE" not in answer
    assert b"200" not in answer[:20]
    join(bundle, (), tmp_path)


def test_a_board_renews_its_certificate_with_the_one_it_has(opened: Site, tmp_path: Path) -> None:
    identity, _ = join(invited(opened), (), tmp_path)
    before = opened.ledger.read().members["eya"].serial
    renewed = renew(identity, tmp_path)
    assert opened.ledger.read().members["eya"].serial != before
    assert renewed.expires >= identity.expires
    assert renew(renewed, tmp_path).pin == identity.pin


def test_an_agent_renews_a_certificate_at_two_thirds_of_its_life(
    opened: Site, tmp_path: Path
) -> None:
    identity, _ = join(invited(opened), (), tmp_path)
    assert not renew_if_old("eya", (tmp_path,))
    Membership(opened).invite("other", DAY, utc_now(), replaces=False)
    aged = msgspec.structs.replace(identity, issued=utc_now() - 600 * DAY)
    (tmp_path / "eya.json").write_bytes(aged.encode())
    before = aged.pem(tmp_path).read_bytes()
    assert not renew_if_old("eya", (tmp_path,))
    expires = utc_now() + 200 * DAY
    (tmp_path / "eya.json").write_bytes(msgspec.structs.replace(aged, expires=expires).encode())
    assert renew_if_old("eya", (tmp_path,))
    assert aged.pem(tmp_path).read_bytes() != before
    assert not renew_if_old("eya", (tmp_path,))


def test_the_port_opens_for_a_board_whose_certificate_is_old(opened: Site) -> None:
    with opened.ledger.changing() as ledger:
        now = utc_now()
        ledger.add(Member(id="eya", serial=5, joined=now, expires=now + 200 * DAY))
    wait_for(lambda: listens(opened), what="the join port", within=30)


def test_a_board_that_was_replaced_renews_nothing(opened: Site, tmp_path: Path) -> None:
    identity, _ = join(invited(opened), (), tmp_path / "one")
    join(invited(opened, replaces=True), (), tmp_path / "two")
    with pytest.raises(JoinRefused, match="eya has no certificate of this gateway that counts"):
        renew(identity, tmp_path / "one")


def test_a_board_renews_only_itself(opened: Site, tmp_path: Path) -> None:
    manar, _ = join(invited(opened, "manar"), (), tmp_path / "manar")
    eya, _ = join(invited(opened), (), tmp_path / "eya")
    theirs = msgspec.structs.replace(eya, id="eya")
    manar.pem(tmp_path / "manar").replace(eya.pem(tmp_path / "eya"))
    with pytest.raises(JoinRefused, match="the certificate that renews eya is not its own"):
        renew(theirs, tmp_path / "eya")


def test_an_identity_is_old_after_two_thirds_of_its_life() -> None:
    now = utc_now()
    identity = Identity(
        id="eya",
        gateway="mariem",
        prefix="fog/v1",
        brokers=(),
        join=(),
        pin="",
        issued=now,
        expires=now + 9 * DAY,
    )
    assert not identity.is_old(now + 5 * DAY)
    assert identity.is_old(now + 6 * DAY)


def test_an_offline_file_makes_a_member_at_once_and_needs_no_gateway(
    site: Site, tmp_path: Path
) -> None:
    bundle = Membership(site).make_offline("eya", utc_now(), replaces=False)
    identity, _ = join(bundle, (), tmp_path)
    assert identity.expires == site.ledger.read().members["eya"].expires
    assert len(bundle.encode()) < 2_500


@pytest.mark.parametrize("name", ["local", "mariem", "fog-v1-gateway-mariem"])
def test_a_board_may_not_have_a_name_of_the_gateways_programs(site: Site, name: str) -> None:
    with pytest.raises(ConfigError, match="is a name of the gateway's own programs"):
        Membership(site).invite(name, DAY, utc_now(), replaces=False)


def test_the_broker_gets_a_new_certificate_when_its_addresses_change(site: Site) -> None:
    now = utc_now()
    assert not site.renew_certificate(now)
    moved = Site(
        site.folder, msgspec.structs.replace(site.settings, addresses=("10.0.0.7", "127.0.0.1"))
    )
    key = site.key.read_text()
    assert moved.renew_certificate(now)
    assert not moved.renew_certificate(now)
    assert site.key.read_text() == key
    assert moved.renew_certificate(now + 600 * DAY)


def test_making_a_site_again_keeps_the_authority_and_who_has_joined(
    opened: Site, tmp_path: Path
) -> None:
    join(invited(opened), (), tmp_path)
    pin = pin_of(opened.authority.pem)
    again = Site(opened.folder, opened.settings)
    again.make(utc_now())
    assert pin_of(again.authority.pem) == pin
    assert "user eya" in (again.broker / "acl").read_text()


def test_a_board_whose_files_cannot_be_written_says_where(opened: Site) -> None:
    with pytest.raises(ConfigError, match=r"/proc/fogmqtt: .*XDG_CONFIG_HOME"):
        join(invited(opened), (), Path("/proc/fogmqtt"))


def test_a_damaged_identity_is_named(tmp_path: Path) -> None:
    (tmp_path / "eya.json").write_text("{")
    with pytest.raises(ConfigError, match=r"eya\.json is damaged.*join again"):
        load_identity("eya", (tmp_path,))


def test_an_answer_that_lost_its_end_is_no_authority(tmp_path: Path) -> None:
    with pytest.raises(BadInvitation, match="cut off"):
        pin_of(Authority.make("mariem", utc_now())[0].pem[:200])
