"""The doctors find what is planted at a real broker, and nothing at a good one."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.broker_site import USERS, Site
from tests.fog import RealBroker, free_port, need
from tests.netns import Network, network
from tests.processes import Fog, private_fog

pytestmark = pytest.mark.broker

GOOD = "max_packet_size 67108864"


@pytest.fixture(scope="module")
def fog(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    del broker  # it skips or fails where Mosquitto is missing
    with private_fog(tmp_path_factory.mktemp("doctor"), GOOD) as made:
        made.device("eya").says("eya is online")
        yield made


@pytest.fixture(scope="module")
def site(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    del broker
    one = Site.make(tmp_path_factory.mktemp("site"), USERS, certificates=("eya", "mariem"))
    yield one
    one.stop()


def examined(fog: Fog, *arguments: str, **settings: str) -> tuple[int, dict[str, Any]]:
    """What the gateway's doctor says: exit code, and findings by check."""
    ran = fog.command("doctor", "--json", *arguments, **settings)
    assert ran.stdout, ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.returncode, {one["check"]: one for one in json.loads(ran.stdout)}


def test_a_good_fog_has_no_fault(fog: Fog) -> None:
    code, found = examined(fog)
    assert code < 2, found
    assert found["broker"]["level"] == "ok"
    assert found["devices"]["sentence"] == "1 online: eya"
    assert found["message limit"]["level"] == "ok"
    assert "versions" not in found
    assert "fingerprints" not in found
    # The broker of the tests is on loopback.
    assert "open.conf" in found["broker's network"]["fix"]


def test_nothing_at_the_port_and_something_else_at_it_are_told_apart(fog: Fog) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    code, found = examined(fog, BROKER__URL=url, BROKER__CONNECT_TIMEOUT_S="5")
    assert code == 2
    assert "nothing listens" in found["broker"]["sentence"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer_as_http, args=(server,), daemon=True).start()
        url = f"mqtt://127.0.0.1:{server.getsockname()[1]}"
        code, found = examined(fog, BROKER__URL=url, BROKER__CONNECT_TIMEOUT_S="5")
    assert code == 2
    assert "is no MQTT broker" in found["port taken"]["sentence"]


def answer_as_http(server: socket.socket) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client:
            client.recv(1000)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_small_packet_limit_of_the_broker_is_named(tmp_path: Path, broker: object) -> None:
    del broker
    with private_fog(tmp_path, "max_packet_size 200000") as small:
        code, found = examined(small)
    assert code == 2
    assert "at most 200,000 bytes" in found["message limit"]["sentence"]
    assert "no device" in found["devices"]["sentence"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"USERNAME": "mariem-run", "PASSWORD": "wrong"}, "password"),
        ({}, "user"),
    ],
)
def test_a_refused_password_is_named(
    fog: Fog, site: Site, settings: dict[str, str], words: str
) -> None:
    named = {f"BROKER__{key}": value for key, value in settings.items()}
    code, found = examined(fog, BROKER__URL=site.url, **named)
    assert code == 2
    assert found["broker"]["level"] == "fault"
    assert words in found["broker"]["sentence"] + found["broker"]["fix"]
    assert "add-user.sh" in found["broker"]["fix"]
    assert "wrong" not in json.dumps(found)


@pytest.mark.parametrize(
    ("host", "ca", "words"),
    [
        ("127.0.0.1", "ca", "is for localhost, raspberry.local"),
        ("localhost", "other", "does not confirm the certificate"),
    ],
)
def test_a_wrong_name_in_a_certificate_and_another_authority_are_named(
    fog: Fog, site: Site, host: str, ca: str, words: str
) -> None:
    if ca == "other":
        make_certs(site, site.folder / "other", "client", "eya")
    folder = site.certs if ca == "ca" else site.folder / "other"
    code, found = examined(
        fog,
        BROKER__URL=f"mqtts://{host}:{site.tls_port}",
        BROKER__CA=str(folder / "ca.crt"),
        BROKER__CERT=str(site.certs / "mariem.crt"),
        BROKER__KEY=str(site.certs / "mariem.key"),
    )
    assert code == 2
    assert words in found["broker"]["sentence"]


@pytest.mark.parametrize(
    ("begins", "ends", "words"), [(-20, -10, "has expired"), (10, 20, "is not yet valid")]
)
def test_a_certificate_that_is_not_valid_today_is_named_with_the_clock(
    fog: Fog, tmp_path: Path, begins: int, ends: int, words: str
) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*dated_certificate(tmp_path, begins, ends))
    threading.Thread(target=shake_hands, args=(server, context), daemon=True).start()
    with server:
        code, found = examined(
            fog,
            BROKER__URL=f"mqtts://localhost:{server.getsockname()[1]}",
            BROKER__CA=str(tmp_path / "broker.crt"),
            BROKER__CONNECT_TIMEOUT_S="5",
        )
    assert code == 2
    assert words in found["broker"]["sentence"]
    assert "clock" in found["broker"]["sentence"] + found["broker"]["fix"]


def shake_hands(server: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client, suppress(OSError), context.wrap_socket(client, server_side=True):
            pass


def dated_certificate(folder: Path, begins: int, ends: int) -> tuple[Path, Path]:
    """A certificate of its own authority, valid from and to so many days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today + timedelta(days=begins))
        .not_valid_after(today + timedelta(days=ends))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "broker.crt", folder / "broker.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def make_certs(site: Site, folder: Path, *arguments: str) -> None:
    script = site.folder / "broker" / "make-certs.sh"
    environment = {"FOGMQTT_CERTS": str(folder), "PATH": "/usr/bin:/bin"}
    subprocess.run([script, *arguments], check=True, capture_output=True, env=environment)


def test_two_agents_of_one_id_are_named(fog: Fog) -> None:
    """They disconnect each other; here, the second one speaks from a client id of its own."""
    from fogmqtt.wire.messages import DeviceInfo, encode

    stop = threading.Event()
    with fog.probe(client_id="twin") as twin:

        def speak() -> None:
            while not stop.wait(0.3):
                for boot in ("one", "two"):
                    info = DeviceInfo(
                        boot=boot, sequence=1, uptime_s=1.0, workers=1, operators=["invert"]
                    )
                    twin.publish("fog/v1/devices/manar/info", encode(info, "base64"))

        thread = threading.Thread(target=speak)
        thread.start()
        try:
            code, found = examined(fog)
        finally:
            stop.set()
            thread.join()
    assert code == 2
    assert "two agents use the id manar" in found["two of one id"]["sentence"]


#: Rules of Mosquitto's plug-in, which can refuse subscriptions; an access list lets all of them be.
NO_SHARES = {
    "anonymousGroup": "all",
    "groups": [{"groupname": "all", "roles": [{"rolename": "alone", "priority": 1}]}],
    "roles": [
        {
            "rolename": "alone",
            "acls": [
                {
                    "acltype": "subscribePattern",
                    "topic": "$share/#",
                    "priority": 1,
                    "allow": False,
                }
            ],
        }
    ],
    "clients": [],
    "defaultACLAccess": {
        "publishClientSend": True,
        "publishClientReceive": True,
        "subscribe": True,
        "unsubscribe": True,
    },
}


def test_a_broker_that_refuses_shared_subscriptions_is_named(
    tmp_path: Path, broker: object
) -> None:
    del broker
    plugin = next(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"), None)
    need(plugin, "Mosquitto's dynamic security", "apt install mosquitto")
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps(NO_SHARES))
    more = f"plugin {plugin}\nplugin_opt_config_file {rules}"
    with private_fog(tmp_path, more) as strict:
        code, found = examined(strict, GATEWAY__GROUP="a-group-of-gateways")
        _, alone = examined(strict)
    assert code == 2
    assert found["broker"]["level"] == "ok"
    assert found["shared subscriptions"]["level"] == "fault"
    assert "leave gateway.group empty" in found["shared subscriptions"]["fix"]
    assert "shared subscriptions" not in alone


#: What a board without a battery has after a power cut.
LATE = "import time\nreal = time.time\ntime.time = lambda: real() - 10_000\n"


def test_a_board_whose_clock_is_wrong_is_named(
    fog: Fog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(LATE)
    with monkeypatch.context() as patched:
        patched.setattr(fog, "path", os.pathsep.join((str(tmp_path), fog.path)))
        late = fog.device("late")
    late.says("late is online")
    try:
        _, found = examined(fog)
    finally:
        late.kill()
    assert found["clocks"]["level"] == "warning"
    assert "the clock of the device late is 3 hours behind" in found["clocks"]["sentence"]


def test_nat_a_network_without_mdns_and_none_at_all_are_named(tmp_path: Path) -> None:
    def in_there(*command: str) -> None:
        path = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        subprocess.run(["ip", *command], check=True, env=path)

    def network_of(lan: Network) -> str:
        with lan.inside("board"):
            home = str(tmp_path)
            ran = device_doctor("--id", "nour", "--json", HOME=home, XDG_CONFIG_HOME=home)
        found = {one["check"]: one for one in json.loads(ran.stdout)}
        assert found["network"]["fix"]
        return str(found["network"]["sentence"])

    with network("board") as lan:
        assert "no machine answers by mDNS" in network_of(lan)
        with lan.inside("board"):
            in_there("address", "flush", "dev", "eth0")
            in_there("address", "add", "10.0.2.15/24", "dev", "eth0")
        assert "behind the NAT of a virtual machine" in network_of(lan)
        with lan.inside("board"):
            in_there("address", "flush", "dev", "eth0")
        assert "no address but that of loopback" in network_of(lan)


def test_a_board_asks_its_own_doctor(fog: Fog) -> None:
    assert isinstance(fog.broker, RealBroker)
    ran = device_doctor("--id", "nour", "--broker", fog.broker.url, "--json")
    found = {one["check"]: one for one in json.loads(ran.stdout)}
    assert ran.returncode == 1, ran.stderr
    assert found["broker"]["level"] == "ok"
    assert "start fog-gateway" in found["gateway"]["fix"]
    assert found["link"]["level"] == "ok"
    told = device_doctor("--id", "nour", "--broker", "mqtt://127.0.0.1:1")
    assert told.returncode == 2
    assert "FAULT    broker: nothing listens at 127.0.0.1:1" in told.stdout


def test_a_board_that_finds_no_gateway_hears_why(tmp_path: Path) -> None:
    ran = device_doctor("--id", "nour", "--json", HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))
    found = {one["check"]: one for one in json.loads(ran.stdout)}
    assert found["clock"]["level"] == "ok"
    # Whether a broker answers on this machine's usual port is not for this test to say.
    assert found["gateway"]["level"] in ("fault", "warning", "ok")
    assert ran.returncode == max(
        {"ok": 0, "warning": 1, "fault": 2}[one["level"]] for one in found.values()
    )


def device_doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fogmqtt.cli.device", "doctor", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )
