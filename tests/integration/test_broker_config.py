"""The configuration that we ship, started as the README says: who gets in, and who may say what."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fogmqtt.errors import ConfigError
from fogmqtt.transport.base import Received, Refused
from fogmqtt.transport.link import Link, Protocol
from fogmqtt.transport.paho import PahoTransport
from tests.broker_site import TESTER, USERS, Site, copy_shipped, password_of, script
from tests.fog import Inbox, Probe, RealBroker, probe
from tests.processes import Fog, edges_of, photo, read, same

END = "end-of-the-test"
BOTH: tuple[Protocol, ...] = (5, "3.1.1")

#: (user, topic, whether it may say it, whether it may hear it)
RIGHTS = [
    ("eya", "devices/eya/tiles", False, True),
    ("eya", "devices/eya/control", False, True),
    ("eya", "devices/eya/status", True, False),
    ("eya", "devices/eya/info", True, True),
    ("eya", "gateways/mariem/results/eya", True, False),
    ("eya", "gateways/mariem-run/results/eya", True, False),
    ("eya", "gateways/made-up/results/eya", False, False),
    ("dashboard", "devices/dashboard/status", False, True),
    ("dashboard", "devices/dashboard/tiles", False, False),
    ("app", "devices/app/info", False, False),
    ("mariem-run", "gateways/mariem/results/eya", False, False),
    ("mariem-run", "gateways/mariem/info", False, False),
    ("mariem-run", "gateways/mariem/status", False, False),
    ("mariem-run", "devices/made-up/tiles", False, False),
    ("eya", "devices/manar/tiles", False, False),
    ("eya", "devices/manar/control", False, False),
    ("eya", "devices/manar/status", False, False),
    ("eya", "devices/manar/info", False, False),
    ("eya", "gateways/mariem/results/manar", False, False),
    ("eya", "gateways/mariem/status", False, False),
    ("eya", "submit/edges/r1", False, False),
    ("eya", "replies/r1/image", False, False),
    ("eya", "cancel/r1", False, False),
    ("eya", "jobs/j1/status", False, False),
    ("mariem", "devices/eya/tiles", True, False),
    ("mariem", "devices/eya/control", True, False),
    ("mariem", "devices/eya/status", False, True),
    ("mariem", "devices/eya/info", False, True),
    ("mariem", "gateways/mariem/results/eya", False, True),
    ("mariem", "gateways/mariem/status", True, True),
    ("mariem", "submit/edges/r1", False, True),
    ("mariem", "submit/edges/r1/t1", False, True),
    ("mariem", "cancel/r1", False, True),
    ("mariem", "latest/edges/image", True, False),
    ("mariem", "replies/app/image", True, False),
    ("mariem", "replies/app/t1/image", True, False),
    ("mariem", "replies/app", True, False),
    ("mariem", "jobs/j1/status", True, True),
    ("mariem", "gateways/mariem/requests/page", False, True),
    ("mariem", "gateways/mariem/answers/page", True, False),
    ("mariem", "gateways/mariem/updates", True, False),
    ("mariem", "gateways/mariem/state", True, False),
    ("mariem", "gateways/mariem/devices/eya", True, False),
    ("mariem", "gateways/mariem/announced", True, True),
    ("mariem", "streams/yard/state", True, True),
    ("mariem", "streams/yard/facts", True, False),
    ("mariem", "streams/yard/enabled/set", False, True),
    ("eya", "streams/yard/state", False, False),
    ("homeassistant", "streams/yard/state", False, True),
    ("mariem-run", "gateways/mariem-run/results/eya", False, True),
    ("mariem-run", "gateways/mariem-run/status", True, True),
    ("mariem-run", "devices/eya/tiles", True, False),
    ("mariem-run", "submit/edges/r1", False, False),
    ("app", "submit/edges/app", True, False),
    ("app", "submit/edges/app/t1", True, False),
    ("app", "cancel/app", True, False),
    ("app", "latest/edges/image", False, True),
    ("app", "replies/app/image", False, True),
    ("app", "replies/app/t1/image", False, True),
    ("app", "submit/edges/other", False, False),
    ("app", "submit/edges/other/t1", False, False),
    ("app", "cancel/other", False, False),
    ("app", "replies/other/image", False, False),
    ("app", "devices/eya/tiles", False, False),
    ("app", "devices/eya/status", False, False),
    ("app", "gateways/mariem/requests/app", False, False),
    ("app", "gateways/mariem/updates", False, False),
    ("eya", "gateways/mariem/requests/eya", False, False),
    ("eya", "gateways/mariem/answers/eya", False, False),
    ("dashboard", "devices/eya/status", False, True),
    ("dashboard", "jobs/j1/status", False, True),
    ("dashboard", "gateways/mariem/requests/page", True, False),
    ("dashboard", "gateways/mariem/answers/page", False, True),
    ("dashboard", "gateways/mariem/updates", False, True),
    ("dashboard", "devices/eya/tiles", False, False),
    ("dashboard", "gateways/mariem/results/eya", False, False),
    ("dashboard", "replies/r1/image", False, False),
    ("dashboard", "cancel/r1", False, False),
    ("dashboard", "latest/edges/image", False, False),
    ("homeassistant", "gateways/mariem/state", False, True),
    ("homeassistant", "gateways/mariem/devices/eya", False, True),
    ("homeassistant", "gateways/mariem/requests/ha", False, False),
    ("homeassistant", "devices/eya/tiles", False, False),
]


#: A topic that each role may hear.
HEARD = {
    "device": "devices/NAME/info",
    "gateway": "gateways/NAME/info",
    "run": "gateways/NAME/info",
    "app": "replies/NAME/end",
    "dashboard": "devices/end/info",
    "homeassistant": "gateways/NAME/state",
}


@pytest.fixture(scope="module")
def site(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`broker` is asked for only since it skips or fails where Mosquitto is missing."""
    one = Site.make(tmp_path_factory.mktemp("site"), USERS, certificates=("eya", "mariem"))
    yield one
    one.stop()


def refusal(link: Link) -> Refused:
    """What a client hears that does not get in."""
    inbox = Inbox()
    transport = PahoTransport(link, inbox.put)
    transport.start()
    answer = inbox.take(object)
    transport.close()
    assert isinstance(answer, Refused), answer
    return answer


@pytest.mark.parametrize("protocol", BOTH)
def test_nobody_gets_in_without_a_name(site: Site, protocol: Protocol) -> None:
    refused = refusal(Link(site.url, "x", protocol))
    assert refused.final
    assert f"127.0.0.1:{site.port}" in refused.reason
    assert "broker.username" in refused.reason


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("user", ["eya", "nobody"])
def test_a_wrong_password_is_named_as_such(site: Site, protocol: Protocol, user: str) -> None:
    refused = refusal(Link(site.url, "x", protocol, username=user, password="wrong"))
    assert refused.final
    assert f"'{user}'" in refused.reason
    assert "broker/add-user.sh" in refused.reason
    assert "wrong" not in refused.reason


@pytest.mark.parametrize("user", ["eya", "mariem"])
def test_a_device_with_the_password_of_another_user_says_so(site: Site, user: str) -> None:
    """The broker lets it in and takes no message from it, so no gateway would ever see it."""
    with start_manar_as(site, user) as device:
        said = device.communicate(timeout=60)[1]
    assert device.returncode == 3, said
    last = said.splitlines()[-1]
    assert last.startswith("error: ")
    assert f"connected as user {user!r}" in last
    assert "those of 'manar'" in last


def test_with_mqtt_3_1_1_which_has_no_refusals_the_device_says_so_after_a_while(site: Site) -> None:
    with start_manar_as(site, "eya", FOGMQTT_BROKER__PROTOCOL="3.1.1") as device:
        assert device.stderr is not None
        line = next(line for line in device.stderr if "WARNING" in line)
        device.terminate()
    assert "does not pass on what manar publishes" in line
    assert "connected as user 'eya'" in line
    assert "those of 'manar'" in line


def start_manar_as(site: Site, user: str, **more: str) -> subprocess.Popen[str]:
    """Start a device with the password of another user."""
    return subprocess.Popen(
        [sys.executable, "-m", "fogmqtt.cli.device", "--id", "manar", "--broker", site.url],
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "FOGMQTT_BROKER__USERNAME": user,
            "FOGMQTT_BROKER__PASSWORD": site.passwords[user],
            **more,
        },
    )


@pytest.mark.parametrize(("user", "topic", "says", "hears"), RIGHTS)
def test_who_may_say_what(site: Site, user: str, topic: str, says: bool, hears: bool) -> None:
    del hears
    with client(site, TESTER, "fog/v1/#") as hearer:
        with client(site, user) as speaker:
            speaker.publish(f"fog/v1/{topic}", b"said")
        hearer.publish(f"fog/v1/{END}", b"end")
        assert heard_before(hearer, f"fog/v1/{END}") is says


@pytest.mark.parametrize(("user", "topic", "says", "hears"), RIGHTS)
def test_who_may_hear_what(site: Site, user: str, topic: str, says: bool, hears: bool) -> None:
    del says
    end = f"fog/v1/{HEARD[USERS[user]]}".replace("NAME", user)
    with client(site, user, f"fog/v1/{topic}", end) as hearer, client(site, TESTER) as speaker:
        speaker.publish(f"fog/v1/{topic}", b"said")
        speaker.publish(end, b"end")
        assert heard_before(hearer, end) is hears


def heard_before(hearer: Probe, end: str) -> bool:
    """Whether what was said arrived before the last message did."""
    heard = hearer.inbox.take(Received)
    if heard.payload == b"end":
        return False
    assert hearer.message(end).payload == b"end"
    return heard.payload == b"said"


def test_a_wildcard_opens_no_more_than_the_topics_that_are_allowed(site: Site) -> None:
    with client(site, "eya", "#") as hearer, client(site, TESTER) as speaker:
        for device in ("manar", "eya"):
            speaker.publish(f"fog/v1/devices/{device}/tiles", device.encode())
        assert hearer.inbox.take(Received).payload == b"eya"


def test_the_gateways_id_as_client_id_does_not_push_the_gateway_off(site: Site) -> None:
    with client(site, "mariem", "fog/v1/devices/+/status") as gateway:
        with probe(
            site.url, client_id="mariem", username="eya", password=site.passwords["eya"]
        ) as thief:
            thief.publish("fog/v1/devices/eya/status", b"online")
        assert gateway.inbox.take(object) == Received("fog/v1/devices/eya/status", b"online")


def test_a_photograph_of_thirty_megabytes_may_be_submitted(site: Site) -> None:
    with client(site, "mariem", "fog/v1/submit/+/+") as gateway:
        with client(site, "app") as app:
            app.publish("fog/v1/submit/edges/app", bytes(30_000_000))
        assert len(gateway.inbox.take(Received).payload) == 30_000_000


def test_a_certificate_gets_in_and_its_name_is_the_user(site: Site) -> None:
    link = site.tls_link(who="eya")
    with (
        probe(link.url, "fog/v1/devices/+/tiles", ca=link.ca, cert=link.cert, key=link.key) as eya,
        client(site, TESTER) as speaker,
    ):
        for device in ("manar", "eya"):
            speaker.publish(f"fog/v1/devices/{device}/tiles", device.encode())
        assert eya.inbox.take(Received).payload == b"eya"


def test_without_a_certificate_tls_lets_nobody_in(site: Site) -> None:
    assert "broker.cert" in refusal(site.tls_link(who="")).reason


def test_a_certificate_for_another_name_is_refused_with_both_names(site: Site) -> None:
    refused = refusal(site.tls_link(host="127.0.0.1"))
    assert refused.final
    assert "is for localhost, raspberry.local, but broker.url names 127.0.0.1" in refused.reason


def test_a_broker_of_an_unknown_authority_is_refused(site: Site) -> None:
    other = site.folder / "other"
    script(site.folder, "make-certs.sh", "client", "eya", FOGMQTT_CERTS=str(other))
    refused = refusal(Link(site.tls_link().url, "x", ca=str(other / "ca.crt")))
    assert refused.final
    assert "set broker.ca" in refused.reason


def test_tls_spoken_to_the_plain_port_says_so(site: Site) -> None:
    refused = refusal(Link(f"mqtts://127.0.0.1:{site.port}", "x"))
    assert "127.0.0.1" in refused.reason


def test_a_file_that_is_no_certificate_is_a_configuration_error(site: Site) -> None:
    readme = str(site.folder / "broker" / "README.md")
    with pytest.raises(ConfigError, match=r"broker\.ca"):
        PahoTransport(Link("mqtts://127.0.0.1", "x", ca=readme), Inbox().put)


def test_certificates_that_exist_are_kept(site: Site) -> None:
    certs = site.folder / "broker" / "certs"
    before = {path.name: path.read_bytes() for path in certs.glob("*.crt")}
    assert "kept" in script(site.folder, "make-certs.sh", "client", "eya")
    assert {path.name: path.read_bytes() for path in certs.glob("*.crt")} == before


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("add-user.sh", []),
        ("add-user.sh", ["eya"]),
        ("add-user.sh", ["devise", "eya"]),
        ("add-user.sh", ["device", "../eya"]),
        ("add-user.sh", ["device", "Eya"]),
        ("add-user.sh", ["device", "eya\nmanar"]),
        ("add-user.sh", ["device", "x" * 33]),
        ("make-certs.sh", ["client", "eya\nmanar"]),
        ("make-certs.sh", []),
        ("make-certs.sh", ["client", "ca"]),
        ("make-certs.sh", ["client", "a/b"]),
    ],
)
def test_the_scripts_refuse_what_is_no_id(site: Site, name: str, arguments: list[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        script(site.folder, name, *arguments)
    assert refused.value.returncode == 2
    assert refused.value.stderr


def test_passwords_and_keys_are_for_their_owner_only(site: Site) -> None:
    secret = [site.folder / "broker" / "passwords", *site.folder.glob("broker/certs/*.key")]
    assert len(secret) == 5
    assert all(path.stat().st_mode & 0o077 == 0 for path in secret)


def test_the_password_of_a_new_user_is_in_no_command_line(site: Site, tmp_path: Path) -> None:
    """Every user of the machine can read the arguments of a program that runs."""
    seen = tmp_path / "seen"
    wrapper = tmp_path / "mosquitto_passwd"
    real = shutil.which("mosquitto_passwd")
    wrapper.write_text(f'#!/bin/sh\necho "$@" >>{seen}\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    copy_shipped(tmp_path)
    path = f"{tmp_path}:{os.environ['PATH']}"
    password = password_of(script(tmp_path, "add-user.sh", "app", "camera", PATH=path))
    assert seen.read_text()
    assert password not in seen.read_text()
    for name in ("passwords", "acl", "users"):
        assert password not in (tmp_path / "broker" / name).read_text()


def test_a_removed_user_is_in_no_list(site: Site, tmp_path: Path) -> None:
    copy_shipped(tmp_path)
    for role, name in (("gateway", "mariem"), ("device", "eya"), ("device", "manar")):
        script(tmp_path, "add-user.sh", role, name)
    script(tmp_path, "add-user.sh", "remove", "eya")
    lists = [(tmp_path / "broker" / name).read_text() for name in ("passwords", "acl", "users")]
    assert all("manar" in text for text in lists)
    assert not any("eya" in text for text in lists)


def test_lines_that_somebody_wrote_into_the_access_list_are_not_lost(
    site: Site, tmp_path: Path
) -> None:
    copy_shipped(tmp_path)
    (tmp_path / "broker" / "acl").write_text("user me\ntopic read #\n")
    with pytest.raises(subprocess.CalledProcessError, match="add-user") as refused:
        script(tmp_path, "add-user.sh", "device", "eya")
    assert "acl.own" in refused.value.stderr
    assert (tmp_path / "broker" / "acl").read_text() == "user me\ntopic read #\n"


def test_a_job_goes_through_with_the_access_list_for_each_kind_of_gateway(
    site: Site, tmp_path: Path
) -> None:
    broker = RealBroker(site.folder, site.port)
    fog = Fog(tmp_path, broker, {"BROKER__URL": site.url})
    try:
        fog.save("in.png", photo(90, 120))
        fog.device("eya", **user(site, "eya")).says("eya is online")
        as_run = user(site, "mariem-run")
        ran = fog.command("run", "in.png", "-o", "out.png", GATEWAY__LOCAL="never", **as_run)
        assert ran.returncode == 0, ran.stderr
        assert same(read(tmp_path / "out.png"), edges_of(tmp_path / "in.png"))
        listed = fog.command("devices", "--json", **as_run)
        assert '"online": true' in listed.stdout
        fog.serve(GATEWAY__LOCAL="never", **user(site, "mariem"))
        with client(site, "app", "fog/v1/replies/app/#") as app:
            picture = (tmp_path / "in.png").read_bytes()
            app.publish("fog/v1/submit/edges/app", picture)
            (tmp_path / "again.png").write_bytes(
                bytes(app.message("fog/v1/replies/app/image", within=60).payload)
            )
            assert same(read(tmp_path / "again.png"), edges_of(tmp_path / "in.png"))
    finally:
        fog.close()


def user(site: Site, name: str) -> dict[str, str]:
    return {"BROKER__USERNAME": name, "BROKER__PASSWORD": site.passwords[name]}


def client(site: Site, user: str, *filters: str) -> AbstractContextManager[Probe]:
    """A connection of one of the users; the broker makes the user name its client id."""
    return probe(site.url, *filters, client_id="any", username=user, password=site.passwords[user])
