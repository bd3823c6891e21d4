"""The configuration that we ship, started as the README says: who gets in, and who may say what."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fogmqtt.errors import ConfigError
from fogmqtt.transport.base import Received, Refused
from fogmqtt.transport.link import Link, Protocol
from fogmqtt.transport.paho import PahoTransport
from tests.fog import Inbox, Probe, free_port, probe, start_mosquitto

SHIPPED = Path(__file__).parents[2] / "broker"
USERS = ("mariem", "mariem-run", "eya", "manar", "app", "dashboard")
#: May say and hear everything; only here.
TESTER = "tester"
END = "end-of-the-test"
BOTH: tuple[Protocol, ...] = (5, "3.1.1")

#: (user, topic, whether it may say it, whether it may hear it)
RIGHTS = [
    ("eya", "devices/eya/tiles", False, True),
    ("eya", "devices/eya/control", False, True),
    ("eya", "devices/eya/status", True, False),
    ("eya", "devices/eya/info", True, True),
    ("eya", "gateways/mariem/results/eya", True, False),
    ("eya", "gateways/mariem-run-1f2e/results/eya", True, False),
    ("eya", "devices/manar/tiles", False, False),
    ("eya", "devices/manar/control", False, False),
    ("eya", "devices/manar/status", False, False),
    ("eya", "devices/manar/info", False, False),
    ("eya", "gateways/mariem/results/manar", False, False),
    ("eya", "gateways/mariem/status", False, False),
    ("eya", "submit/edges/r1", False, False),
    ("eya", "replies/r1/image", False, False),
    ("eya", "jobs/j1/status", False, False),
    ("mariem", "devices/eya/tiles", True, False),
    ("mariem", "devices/eya/control", True, False),
    ("mariem", "devices/eya/status", False, True),
    ("mariem", "devices/eya/info", False, True),
    ("mariem", "gateways/mariem/results/eya", False, True),
    ("mariem", "gateways/mariem/status", True, True),
    ("mariem", "submit/edges/r1", False, True),
    ("mariem", "replies/r1/image", True, False),
    ("mariem", "jobs/j1/status", True, True),
    ("mariem-run", "gateways/mariem-run-1f2e/results/eya", False, True),
    ("mariem-run", "gateways/mariem-run-1f2e/status", True, True),
    ("mariem-run", "devices/eya/tiles", True, False),
    ("mariem-run", "submit/edges/r1", False, False),
    ("app", "submit/edges/r1", True, False),
    ("app", "replies/r1/image", False, True),
    ("app", "devices/eya/tiles", False, False),
    ("app", "devices/eya/status", False, False),
    ("dashboard", "devices/eya/status", False, True),
    ("dashboard", "jobs/j1/status", False, True),
    ("dashboard", "devices/eya/tiles", False, False),
    ("dashboard", "gateways/mariem/results/eya", False, False),
    ("dashboard", "replies/r1/image", False, False),
]


@dataclass(frozen=True)
class Site:
    """A project's folder with users and certificates, and its broker running."""

    folder: Path
    port: int
    tls_port: int
    passwords: dict[str, str]

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def tls_link(self, host: str = "localhost", who: str = "eya", ca: str = "ca") -> Link:
        certs = self.folder / "broker" / "certs"
        return Link(
            f"mqtts://{host}:{self.tls_port}",
            client_id="whatever",
            ca=str(certs / f"{ca}.crt"),
            cert=str(certs / f"{who}.crt") if who else None,
            key=str(certs / f"{who}.key") if who else None,
        )


def script(folder: Path, name: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [folder / "broker" / name, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return done.stdout


def password_of(said: str) -> str:
    found = re.search(r"FOGMQTT_BROKER__PASSWORD=(\S+)", said)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def site(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`broker` is asked for only since it skips or fails where Mosquitto is missing."""
    folder = tmp_path_factory.mktemp("site")
    if os.geteuid() == 0:
        for part in (folder, *folder.parents[:2]):  # mosquitto gives up root's rights
            part.chmod(0o755)
    shutil.copytree(
        SHIPPED, folder / "broker", ignore=shutil.ignore_patterns("certs", "passwords*")
    )
    passwords = {
        user: password_of(script(folder, "add-user.sh", user)) for user in (*USERS, TESTER)
    }
    with (folder / "broker" / "acl").open("a") as acl:
        acl.write(f"\nuser {TESTER}\ntopic readwrite #\n")
    script(folder, "make-certs.sh", "broker", "localhost", "raspberry.local")
    script(folder, "make-certs.sh", "client", "eya", "mariem")
    one = Site(folder, free_port(), free_port(), passwords)
    config = folder / "broker" / "mosquitto.conf"
    config.write_text(with_tls_and_ports(config.read_text(), one))
    process = start_mosquitto(
        Path("broker/mosquitto.conf"), folder / "mosquitto.log", one.url, cwd=folder
    )
    yield one
    process.terminate()
    process.wait(10)


def with_tls_and_ports(text: str, one: Site) -> str:
    """The shipped configuration with its TLS block switched on, on ports that are free."""
    text = re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE)
    text = text.replace("listener 1883", f"listener {one.port} 127.0.0.1")
    return text.replace("listener 8883", f"listener {one.tls_port} 127.0.0.1")


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
    end = f"fog/v1/devices/{user}/info"  # which everybody may hear
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
    with client(site, "mariem", "$share/gateways/fog/v1/submit/+/+") as gateway:
        with client(site, "app") as app:
            app.publish("fog/v1/submit/edges/r1", bytes(30_000_000))
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
        ("add-user.sh", ["../eya"]),
        ("add-user.sh", ["Eya"]),
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


def client(site: Site, user: str, *filters: str) -> AbstractContextManager[Probe]:
    """A connection of one of the users; the broker makes the user name its client id."""
    return probe(site.url, *filters, client_id="any", username=user, password=site.passwords[user])
