"""What tests of several folders share: ports, waiting, real brokers, a client that collects."""

from __future__ import annotations

import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from fogmqtt.transport.base import Connected, Received, Transport
from fogmqtt.transport.link import Link, Protocol
from fogmqtt.transport.paho import PahoTransport
from fogmqtt.transport.probe import is_listening

T = TypeVar("T")

_CONFIG = """\
user {user}
listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
persistence false
max_queued_messages 10000
{more}
"""


#: Below the ports that Linux gives to connections: such a port is still free a moment later.
_PORTS = range(10_000, 32_000)


def mosquitto() -> str | None:
    """The program; Debian puts it where a normal user's PATH does not lead."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def need(found: object, what: str, install: str) -> None:
    """Skip the test where a program or package is not installed; in CI, fail."""
    if found:
        return
    reason = f"{what} is not installed: `{install}`"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """A loopback port that nobody listens at."""
    chance = random.SystemRandom()  # tests in other processes ask at the same moment
    while True:
        port = chance.choice(_PORTS)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def wait_for(found: Callable[[], T], *, within: float = 10.0, what: str = "") -> T:
    """Call until the answer is true, and return it; fail the test after `within` seconds."""
    deadline = time.monotonic() + within
    while not (answer := found()):
        assert time.monotonic() < deadline, f"waited {within} s in vain for {what or found}"
        time.sleep(0.005)
    return answer


@dataclass
class RealBroker:
    """A Mosquitto process on loopback that a test may kill, freeze and start again."""

    folder: Path
    port: int = field(default_factory=free_port)
    #: More lines for its configuration.
    more: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "mosquitto.log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, on the same port as before, and wait until it answers."""
        config = self.folder / "mosquitto.conf"
        config.write_text(
            _CONFIG.format(user=getpass.getuser(), port=self.port, more=self.more), "utf-8"
        )
        self.process = start_mosquitto(config, self.folder / "mosquitto.log", self.url)

    def stop(self) -> None:
        """End it politely: it publishes wills and says goodbye."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it from running without closing a single connection."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(how)
        self.process.wait(10)
        self.process = None


def start_mosquitto(
    config: Path, log: Path, url: str, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Run Mosquitto with a configuration, and wait until it answers at `url`."""
    program = mosquitto()
    assert program is not None
    with log.open("ab") as out:
        process = subprocess.Popen([program, "-c", str(config)], stdout=out, stderr=out, cwd=cwd)

    def answers() -> bool:
        assert process.poll() is None, f"mosquitto ended: {log.read_text(errors='replace')[-2000:]}"
        return is_listening(url)

    wait_for(answers, what=f"mosquitto at {url}")
    return process


class Inbox:
    """Where a transport delivers, and a test looks; any thread."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._events: list[object] = []

    def put(self, event: object) -> None:
        with self._arrived:
            self._events.append(event)
            self._arrived.notify_all()

    def all(self) -> list[object]:
        """Everything that nobody took yet."""
        with self._arrived:
            return list(self._events)

    def take(self, kind: type[T], *, within: float = 10.0) -> T:
        """The next event of one kind, waited for; those before it are dropped."""
        return self.take_where(lambda event: isinstance(event, kind), kind, within=within)

    def message(self, topic: str, *, within: float = 10.0) -> Received:
        """The next message on one topic, waited for; what came before it is dropped."""
        wanted = lambda event: isinstance(event, Received) and event.topic == topic  # noqa: E731
        return self.take_where(wanted, Received, within=within)

    def take_where(
        self, wanted: Callable[[object], bool], kind: type[T], *, within: float = 10.0
    ) -> T:
        with self._arrived:
            found = self._arrived.wait_for(lambda: any(map(wanted, self._events)), within)
            assert found, f"no {kind.__name__} within {within} s, only {self._events[-20:]}"
            at = next(at for at, event in enumerate(self._events) if wanted(event))
            event = self._events[at]
            del self._events[: at + 1]
        assert isinstance(event, kind)
        return event


@dataclass(frozen=True)
class Probe:
    """One more MQTT client, which collects what it hears."""

    transport: Transport
    inbox: Inbox

    def publish(self, topic: str, payload: bytes, **options: object) -> None:
        self.transport.publish(topic, payload, **options)  # type: ignore[arg-type]

    def message(self, topic: str, *, within: float = 10.0) -> Received:
        return self.inbox.message(topic, within=within)


@contextmanager
def probe(
    url: str, *filters: str, client_id: str = "probe", protocol: Protocol = 5, **link: str | None
) -> Iterator[Probe]:
    """A connected client whose filters are in force; `link`: username, password, ca and so on."""
    inbox = Inbox()
    transport = PahoTransport(Link(url, client_id, protocol, **link), inbox.put)
    for topic_filter in filters:
        transport.subscribe(topic_filter)
    transport.start()
    try:
        inbox.take(Connected)
        yield Probe(transport, inbox)
    finally:
        transport.close()
