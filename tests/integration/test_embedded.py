"""The embedded broker: it serves, it is private, and it ends with its owner."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue

import paho.mqtt.client as mqtt
import pytest

from fogmqtt.errors import NoBroker
from fogmqtt.transport import embedded
from fogmqtt.transport.base import Received
from fogmqtt.transport.embedded import EmbeddedBroker
from fogmqtt.transport.link import Protocol, parse_url
from fogmqtt.transport.own_password import USER, password_at
from fogmqtt.transport.probe import is_broker, is_listening, is_local
from tests.fog import RealBroker, free_port, need, probe, wait_for

PROGRAMS = ("mosquitto", "iotcore")
BOTH: tuple[Protocol, ...] = (5, "3.1.1")

OWNER = """
import sys, time
from fogmqtt.transport import embedded
if sys.argv[2] == "iotcore":
    embedded._find_mosquitto = lambda: None
broker = embedded.EmbeddedBroker.start(sys.argv[1])
print("running", flush=True)
time.sleep(60)
"""


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes `EmbeddedBroker` find this program."""
    name = str(request.param)
    if name == "iotcore":
        need(find_spec("iotcore"), "iotcore", "pip install 'fogmqtt[embedded]'")
        monkeypatch.setattr(embedded, "_find_mosquitto", lambda: None)
    else:
        request.getfixturevalue("broker")  # skips or fails where Mosquitto is missing
    return name


def free_url() -> str:
    return f"mqtt://127.0.0.1:{free_port()}"


@contextmanager
def running(url: str, protocol: Protocol = 5) -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker.start(url, protocol)
    try:
        yield broker
    finally:
        broker.stop()


@pytest.mark.parametrize("protocol", BOTH)
def test_it_passes_large_and_retained_messages_at_the_url(program: str, protocol: Protocol) -> None:
    url = free_url()
    with running(url, protocol) as broker:
        assert broker.program == program
        with probe(url, "tiles/#", protocol=protocol) as one:
            one.publish("tiles/big", bytes(4_000_000))
            assert len(one.message("tiles/big").payload) == 4_000_000
            one.publish("tiles/kept", b"online", retain=True)
            one.message("tiles/kept")
            with probe(url, "tiles/#", client_id="late", protocol=protocol) as late:
                assert late.inbox.take(Received) == Received("tiles/kept", b"online", retained=True)
    assert not is_listening(url)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what a process has in memory")
def test_what_passed_through_does_not_stay_in_its_memory(program: str) -> None:
    url = free_url()
    with running(url) as broker, probe(url, "tiles/#") as one:
        for _ in range(500):
            one.publish("tiles/big", bytes(1_000_000))
            one.message("tiles/big")
        status = Path(f"/proc/{broker.pid}/status").read_text()
        (resident,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        assert int(resident.split()[1]) < 350_000


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells how often pages are faulted in")
def test_mosquitto_uses_the_memory_of_one_message_for_the_next(broker: RealBroker) -> None:
    del broker  # skips or fails where Mosquitto is missing
    url = free_url()
    with running(url) as own, probe(url, "tiles/#") as one:

        def faults_of(messages: int) -> int:
            before = _page_faults(own.pid)
            for _ in range(messages):
                one.publish("tiles/big", bytes(900_000))
                one.publish("tiles/big", bytes(900_000))
                one.message("tiles/big")
                one.message("tiles/big")
            return _page_faults(own.pid) - before

        faults_of(20)
        assert faults_of(50) < 2_000, "each message of 900 kB has 220 pages"


def _page_faults(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7])


def test_it_can_be_restarted_at_once_and_stopped_twice(program: str) -> None:
    url = free_url()
    for _ in range(2):
        broker = EmbeddedBroker.start(url)
        assert is_listening(url)
        broker.stop()
        broker.stop()
        assert not is_listening(url)


def test_it_ends_when_its_owner_is_killed(program: str) -> None:
    url = free_url()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, url, program], stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "running\n"
        assert is_listening(url)
        owner.send_signal(signal.SIGKILL)
    wait_for(lambda: not is_listening(url), what="the broker to end")


def test_it_does_not_get_the_terminals_ctrl_c(program: str) -> None:
    with running(free_url()) as broker:
        assert os.getsid(broker.pid) != os.getsid(0)


def test_it_lets_nobody_in_without_the_password_that_only_this_user_can_read(program: str) -> None:
    url = free_url()
    port = parse_url(url).port
    with running(url):
        assert len(password_at(port)) == 32
        assert is_broker(url)
        for user, password in ((None, ""), (USER, "guessed"), ("other", password_at(port))):
            client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
            codes: SimpleQueue[str] = SimpleQueue()
            client.on_connect = lambda *said, codes=codes: codes.put(str(said[3]))
            if user is not None:
                client.username_pw_set(user, password)
            client.on_disconnect = lambda *_, codes=codes: codes.put("closed")
            client.connect("127.0.0.1", port)
            client.loop_start()
            assert codes.get(timeout=10) != "Success"
            client.disconnect()
            client.loop_stop()
        with probe(url, "a"):
            pass
    assert password_at(port) == ""


def test_it_listens_on_loopback_only(program: str) -> None:
    with running(free_url()) as broker:
        port = int(broker.url.rsplit(":", 1)[1])
        # The address after loopback's own is still this machine: a listener on all would answer.
        with pytest.raises(OSError, match="refused"), socket.socket() as sock:
            sock.connect(("127.0.0.2", port))


@pytest.mark.parametrize(
    "url", ["mqtt://192.168.1.10", "mqtts://127.0.0.1", "mqtt://raspberry", "ws://127.0.0.1"]
)
def test_a_url_of_another_machine_or_with_tls_or_a_websocket_is_refused(url: str) -> None:
    with pytest.raises(NoBroker, match=r"broker/mosquitto\.conf"):
        EmbeddedBroker.start(url)


def test_a_port_in_use_is_an_error(program: str) -> None:
    with running(free_url()) as broker, pytest.raises(NoBroker, match="listens"):
        EmbeddedBroker.start(broker.url)


def test_the_error_without_any_program_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedded, "_find_mosquitto", lambda: None)
    monkeypatch.setattr(embedded, "_has_iotcore", lambda: False)
    with pytest.raises(NoBroker, match=r"apt install mosquitto.*fogmqtt\[embedded\]"):
        EmbeddedBroker.start(free_url())


def test_the_error_of_a_failed_program_quotes_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = [sys.executable, "-c", "raise SystemExit('no such luck')"]
    monkeypatch.setattr(embedded, "_choose_program", lambda: ("mosquitto", lambda *_: failing))
    with pytest.raises(NoBroker, match="no such luck"):
        EmbeddedBroker.start(free_url())


def test_only_loopback_urls_are_local() -> None:
    assert is_local("mqtt://127.0.0.1")
    assert is_local("mqtt://127.0.0.53:1884")
    assert is_local("mqtt://localhost")
    assert is_local("mqtt://[::1]")
    assert not is_local("mqtt://192.168.1.10")
    assert not is_local("mqtts://broker.example")
