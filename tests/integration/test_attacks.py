"""No user of the broker can say or hear what is another's, whatever it publishes and subscribes to.

The broker is a real Mosquitto with the configuration and the access list that we ship.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from fogmqtt.joining.board import join
from tests.attacks import (
    ATTACKERS,
    Broker,
    Client,
    Finding,
    Protocol,
    Shut,
    leave_wills,
    listen,
    say,
    steal,
)
from tests.broker_site import TESTER, USERS, Site, script
from tests.joinable import JoinableFog

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def site(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    del broker  # it skips or fails where Mosquitto is missing
    yield from sites(tmp_path_factory.mktemp("attacked"))


def sites(folder: Path, own: str = "") -> Iterator[Site]:
    one = Site.make(folder, USERS, certificates=tuple(USERS), own=own)
    yield one
    one.stop()


@pytest.fixture
def plain(site: Site) -> Iterator[Broker]:
    yield from attacked(site, 5)


def attacked(site: Site, protocol: Protocol, *, tls: bool = False) -> Iterator[Broker]:
    tester = Client(site.port, TESTER, site.passwords[TESTER])
    tester.subscribe(["#"])
    contexts = {user: context(site, user) for user in USERS} if tls else None
    yield Broker(site.port, site.passwords, tester, protocol, contexts, site.tls_port)
    tester.close()


def context(site: Site, user: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(site.certs / "ca.crt"))
    if user:
        made.load_cert_chain(site.certs / f"{user}.crt", site.certs / f"{user}.key")
    return made


def quick(broker: Broker, user: str) -> Finding:
    return (
        say(broker, user, retain=False)
        + say(broker, user, retain=True)
        + listen(broker, user)
        + listen(broker, user, retained=True)
        + listen(broker, user, "gateways")
    )


def test_no_user_says_or_hears_what_is_not_its_own(plain: Broker) -> None:
    found = {user: quick(plain, user) for user in ATTACKERS}
    assert {user: (one.holes, one.missing) for user, one in found.items()} == dict.fromkeys(
        ATTACKERS, (frozenset(), frozenset())
    )
    assert sum(one.attempts for one in found.values()) >= 2000


def test_a_hole_is_found(broker: object, tmp_path: Path) -> None:
    """A bare pattern makes every user a device: it is what this suite is to find."""
    del broker
    own = "pattern readwrite fog/v1/devices/%u/info"
    for one in sites(tmp_path, own):
        for attack in attacked(one, 5):
            for found in (say(attack, "app", retain=False), listen(attack, "app")):
                assert found.holes == {"fog/v1/devices/app/info"}


@pytest.mark.proof
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("user", ATTACKERS)
def test_nor_by_a_last_will_nor_on_another_protocol_nor_with_a_certificate(
    site: Site, user: str, protocol: Protocol, tls: bool
) -> None:
    for broker in attacked(site, protocol, tls=tls):
        found = quick(broker, user) + leave_wills(broker, user)
        assert (found.holes, found.missing) == (frozenset(), frozenset())
        assert found.attempts >= 500


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_board_that_joined_has_the_rights_of_a_device_and_no_more(
    broker: object, tmp_path: Path, protocol: Protocol
) -> None:
    del broker
    fog = JoinableFog(tmp_path)
    fog.init()
    bundles = {one: fog.invite(one, "--offline") for one in ("eya", "manar")}
    identity, _ = join(bundles["eya"], (), tmp_path)
    acl = fog.site.broker / "acl"
    acl.write_text(acl.read_text().replace("topic readwrite fog/v1/#", "topic readwrite #"))
    fog.start_broker()
    try:
        made = ssl.create_default_context(cafile=str(identity.ca(tmp_path)))
        made.load_cert_chain(identity.pem(tmp_path))
        settings = fog.site.settings
        owner = fog.site.password_file.read_text().strip()
        tester = Client(settings.local_port, "mariem", owner)
        tester.subscribe(["#"])
        attacked_one = Broker(
            settings.local_port, {}, tester, protocol, {"eya": made}, settings.port
        )
        found = quick(attacked_one, "eya") + leave_wills(attacked_one, "eya")
        assert (found.holes, found.missing) == (frozenset(), frozenset())
        assert found.attempts >= 500
        tester.close()
    finally:
        fog.close()


@pytest.mark.parametrize("user", [one for one in ATTACKERS if one != "app"])
@pytest.mark.parametrize("group", ["gateways", "x"])
def test_nobody_makes_submissions_vanish(plain: Broker, user: str, group: str) -> None:
    found = steal(plain, user, "mariem", "fog/v1/submit/+/+", "app", group)
    assert found.holes == frozenset()


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize(
    ("user", "password"),
    [("", ""), ("eya", "wrong"), ("nobody", "x"), ("mariem", "eya"), ("", "x"), ("#", "#")],
)
def test_nobody_comes_in_without_a_password(
    site: Site, user: str, password: str, protocol: Protocol
) -> None:
    with pytest.raises(Shut):
        Client(site.port, user, password, protocol)


def test_nobody_comes_in_without_a_certificate_of_this_authority(
    site: Site, tmp_path: Path
) -> None:
    for user in ("", "mariem"):
        with pytest.raises(Shut):
            Client(site.tls_port, user, site.passwords["mariem"], tls=context(site, ""))
    script(site.folder, "make-certs.sh", "client", "mariem", FOGMQTT_CERTS=str(tmp_path))
    foreign = ssl.create_default_context(cafile=str(site.certs / "ca.crt"))
    foreign.load_cert_chain(tmp_path / "mariem.crt", tmp_path / "mariem.key")
    with pytest.raises(Shut):
        Client(site.tls_port, tls=foreign).heard()
