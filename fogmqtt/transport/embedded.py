"""A broker of our own, for machines where none runs: Mosquitto if it is installed, else iotcore.

It is private to this machine: it listens on loopback only, and it dies with us.
"""

from __future__ import annotations

import ctypes
import getpass
import importlib.util
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fogmqtt.errors import NoBroker
from fogmqtt.transport.link import Address, parse_url

#: Seconds that a broker gets to answer, and to end.
START_S = 15.0
STOP_S = 5.0
_PR_SET_PDEATHSIG = 1

# `user`: started by root, Mosquitto would become another user, and a process that changes its
# user forgets that it is to die with its parent. 10 000 queued messages, since its default of
# 1000 drops tiles silently; never 0, which on Debian's build cuts off innocent clients.
_MOSQUITTO = """\
user {user}
listener {port} {host}
allow_anonymous true
set_tcp_nodelay true
persistence false
max_queued_messages 10000
max_packet_size 268435455
log_dest stderr
"""

# It keeps the newest messages of each filter, ten segments, read or not: with segments of 256 MB
# every job's tiles stayed in its memory, up to 2.7 GB a filter. A message may exceed a segment.
_IOTCORE = """\
id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 1000
max_segment_size = 16777216
max_segment_count = 10
[{section}]
name = "{section}"
listen = "{host}:{port}"
next_connection_delay_ms = 1
[{section}.connections]
connection_timeout_ms = 60000
max_payload_size = 268435455
max_inflight_count = 1000
dynamic_filters = true
"""


@dataclass(frozen=True, slots=True)
class EmbeddedBroker:
    """A broker process that we started."""

    url: str
    #: What runs: mosquitto or iotcore.
    program: str
    _process: subprocess.Popen[bytes]
    _folder: Path

    @classmethod
    def start(cls, url: str, protocol: int | str = 5) -> EmbeddedBroker:
        """Start a broker at a loopback url, and wait until it answers.

        Call it on a thread that lives as long as the broker shall: Linux ends the broker with
        the thread that started it. Raises NoBroker where no program is there, the url is not
        this machine's, or the port is taken.
        """
        address = parse_url(url)
        if address.tls or not is_local(url):
            raise NoBroker(
                f"broker.embedded: a broker of our own serves this machine only, not {url}; "
                "use mqtt://127.0.0.1:1883, or run Mosquitto with broker/mosquitto.conf"
            )
        if listening(url):
            raise NoBroker(f"broker.embedded: something else listens at {url} already")
        program, write = _choose()
        folder = Path(tempfile.mkdtemp(prefix="fogmqtt-broker-"))
        broker = cls(url, program, _spawn(write(address, folder, protocol), folder), folder)
        broker._wait()
        return broker

    @property
    def counters(self) -> bool:
        """Whether it has `$SYS` counters; iotcore closes the connection of whoever subscribes."""
        return self.program == "mosquitto"

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """End it, and leave nothing behind; idempotent."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if listening(self.url):
                return
            time.sleep(0.02)
        said = (self._folder / "out").read_text(errors="replace").strip()[-300:]
        self.stop()
        raise NoBroker(f"broker.embedded: {self.program} did not start at {self.url}: {said}")


def is_local(url: str) -> bool:
    """Whether the url names this machine's loopback."""
    host = parse_url(url).host
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listening(url: str) -> bool:
    """Whether something takes connections there."""
    address = parse_url(url)
    try:
        with socket.create_connection((address.host, address.port), 0.5):
            return True
    except OSError:
        return False


#: Writes a configuration into a folder; the command that runs a broker with it.
_Write = Callable[[Address, Path, int | str], list[str]]


def _choose() -> tuple[str, _Write]:
    if _mosquitto() is not None:
        return "mosquitto", _write_mosquitto
    if _has_iotcore():
        return "iotcore", _write_iotcore
    raise NoBroker(
        "broker.embedded: no broker is installed; "
        "`sudo apt install mosquitto`, or `pip install 'fogmqtt[embedded]'`"
    )


def _mosquitto() -> str | None:
    # Debian installs it where the PATH of a normal user does not lead.
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _has_iotcore() -> bool:
    return importlib.util.find_spec("iotcore") is not None


def _host(address: Address) -> str:
    return "127.0.0.1" if address.host == "localhost" else address.host


def _write_mosquitto(address: Address, folder: Path, protocol: int | str) -> list[str]:
    del protocol  # it speaks both on one port
    config = folder / "mosquitto.conf"
    config.write_text(
        _MOSQUITTO.format(user=getpass.getuser(), host=_host(address), port=address.port)
    )
    return [_mosquitto() or "mosquitto", "-c", str(config)]


def _write_iotcore(address: Address, folder: Path, protocol: int | str) -> list[str]:
    config = folder / "iotcore.toml"
    section = "v5.1" if protocol == 5 else "v4.1"
    host = f"[{address.host}]" if ":" in address.host else _host(address)
    config.write_text(_IOTCORE.format(section=section, host=host, port=address.port))
    return [sys.executable, "-m", "iotcore", "--config", str(config), "--log-level", "CRITICAL"]


def _spawn(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "out").open("wb") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=folder,
            start_new_session=True,  # the terminal's Ctrl-C is ours to pass on, in order
            preexec_fn=_dies_with(os.getpid()),
        )


def _dies_with(parent: int) -> Callable[[], None] | None:
    """For the child, before it becomes the broker: the kernel ends it when we are gone.

    However we went; Linux only, elsewhere a broker outlives a killed gateway.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # found here: after the fork no lock may be waited for

    def ask_the_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # gone before we asked
            os._exit(1)

    return ask_the_kernel
