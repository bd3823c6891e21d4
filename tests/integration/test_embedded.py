"""A broker of our own where none runs: it serves, it is private, and it ends with us."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

from fogmqtt.errors import NoBroker
from fogmqtt.transport import embedded
from fogmqtt.transport.base import Received
from fogmqtt.transport.embedded import EmbeddedBroker, is_local, listening
from fogmqtt.transport.link import Protocol
from tests.fog import free_port, need, probe, wait_for

PROGRAMS = ("mosquitto", "iotcore")
BOTH: tuple[Protocol, ...] = (5, "3.1.1")

OWNER = """
import sys, time
from fogmqtt.transport import embedded
if sys.argv[2] == "iotcore":
    embedded._mosquitto = lambda: None
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
        monkeypatch.setattr(embedded, "_mosquitto", lambda: None)
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
def test_it_answers_at_the_url_and_passes_big_messages_and_retained_ones(
    program: str, protocol: Protocol
) -> None:
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
    assert not listening(url)


def test_it_can_be_started_again_at_once_and_stopped_twice(program: str) -> None:
    url = free_url()
    for _ in range(2):
        broker = EmbeddedBroker.start(url)
        assert listening(url)
        broker.stop()
        broker.stop()
        assert not listening(url)


def test_it_ends_with_its_owner_even_when_that_is_killed(program: str) -> None:
    url = free_url()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, url, program], stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "running\n"
        assert listening(url)
        owner.send_signal(signal.SIGKILL)
    wait_for(lambda: not listening(url), what="the broker to end")


def test_the_terminals_ctrl_c_does_not_reach_it(program: str) -> None:
    with running(free_url()) as broker:
        assert os.getsid(broker.pid) != os.getsid(0)


def test_it_is_reached_from_this_machine_only(program: str) -> None:
    with running(free_url()) as broker:
        port = int(broker.url.rsplit(":", 1)[1])
        # The address after loopback's own is still this machine: a listener on all would answer.
        with pytest.raises(OSError, match="refused"), socket.socket() as sock:
            sock.connect(("127.0.0.2", port))


@pytest.mark.parametrize("url", ["mqtt://192.168.1.10", "mqtts://127.0.0.1", "mqtt://raspberry"])
def test_it_serves_no_other_machine_and_no_tls(url: str) -> None:
    with pytest.raises(NoBroker, match=r"broker/mosquitto\.conf"):
        EmbeddedBroker.start(url)


def test_a_taken_port_is_an_error_and_not_a_second_broker(program: str) -> None:
    with running(free_url()) as broker, pytest.raises(NoBroker, match="listens"):
        EmbeddedBroker.start(broker.url)


def test_without_any_program_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedded, "_mosquitto", lambda: None)
    monkeypatch.setattr(embedded, "_has_iotcore", lambda: False)
    with pytest.raises(NoBroker, match=r"apt install mosquitto.*fogmqtt\[embedded\]"):
        EmbeddedBroker.start(free_url())


def test_a_program_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = [sys.executable, "-c", "raise SystemExit('no such luck')"]
    monkeypatch.setattr(embedded, "_choose", lambda: ("mosquitto", lambda *_: failing))
    with pytest.raises(NoBroker, match="no such luck"):
        EmbeddedBroker.start(free_url())


def test_loopback_is_local_and_nothing_else() -> None:
    assert is_local("mqtt://127.0.0.1")
    assert is_local("mqtt://127.0.0.53:1884")
    assert is_local("mqtt://localhost")
    assert is_local("mqtt://[::1]")
    assert not is_local("mqtt://192.168.1.10")
    assert not is_local("mqtts://broker.example")
