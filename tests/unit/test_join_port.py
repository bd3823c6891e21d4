"""The port where boards join, with real TLS on loopback: who is let in, what others are told."""

from __future__ import annotations

import socket
import ssl
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from fogmqtt.cli.renewal import renew_if_old
from fogmqtt.errors import BadInvitation, ConfigError, JoinRefused, NoGateway
from fogmqtt.joining import port as join_port
from fogmqtt.joining.authority import Authority
from fogmqtt.joining.board import join, renew
from fogmqtt.joining.bundle import JoinBundle, pin_of, utc_now
from fogmqtt.joining.identity import Identity, folders, load_identity
from fogmqtt.joining.ledger import Member
from fogmqtt.joining.membership import Membership
from fogmqtt.joining.port import JoinPort
from fogmqtt.joining.site import Site, SiteSettings
from tests.fog import free_port, wait_for

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
        with pytest.raises(JoinRefused, match=r"this board's clock says 20\d\d-.*set the clock"):
            join(invited(site), (), tmp_path)
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


def test_five_refused_requests_close_the_port_for_a_while(
    opened: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_port, "CLOSED_S", 1.0)
    bundle = invited(opened)
    wrong = msgspec.structs.replace(bundle, token="A" * 26)
    for _ in range(5):
        with pytest.raises(JoinRefused, match="no such invitation"):
            join(wrong, (), tmp_path)
    wait_for(lambda: not listens(opened), what="the closed port", within=30)
    wait_for(lambda: listens(opened), what="the open port", within=30)
    join(bundle, (), tmp_path)


def test_a_flood_of_silent_connections_ends_and_a_board_joins(
    opened: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_port, "_LONGEST_S", 0.5)
    monkeypatch.setattr(join_port, "_IDLE_S", 60.0)
    bundle = invited(opened)
    address = ("127.0.0.1", opened.settings.join_port)
    silent = [socket.create_connection(address) for _ in range(40)]

    def joined() -> bool:
        try:
            join(bundle, (), tmp_path)
        except NoGateway:
            return False
        return True

    wait_for(joined, what="a board beside the flood", within=60)
    for one in silent:
        one.close()


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
