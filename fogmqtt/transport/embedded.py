"""A broker of our own, for machines where none runs: Mosquitto if it is installed, else iotcore.

It is private to this machine: it listens on loopback only, and it dies with us.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fogmqtt.errors import NoBroker
from fogmqtt.transport.link import Address, parse_url

#: Seconds that a broker gets to answer, and to end.
START_S = 15.0
STOP_S = 5.0
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_PR_SET_PDEATHSIG = 1

_MOSQUITTO = """\
listener {port} {host}
allow_anonymous true
set_tcp_nodelay true
persistence false
max_queued_messages 10000
max_packet_size 268435455
log_dest file {folder}/log
"""

_IOTCORE = """\
id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 1000
max_segment_size = 268435456
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

        Raises NoBroker where no program is there, the url is not this machine's, or the port
        is taken.
        """
        address = parse_url(url)
        if address.tls or not is_local(url):
            raise NoBroker(
                f"broker.embedded: a broker of our own serves this machine only, not {url}; "
                "use mqtt://127.0.0.1:1883, or run Mosquitto with broker/mosquitto.conf"
            )
        if listening(url):
            raise NoBroker(f"broker.embedded: something else listens at {url} already")
        folder = Path(tempfile.mkdtemp(prefix="fogmqtt-broker-"))
        program, command = _command(address, folder, protocol)
        log = (folder / "out").open("wb")
        with log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the terminal's Ctrl-C is ours to pass on, in order
                preexec_fn=_die_with_parent,  # noqa: PLW1509
            )
        broker = cls(url, program, process, folder)
        broker._wait()
        return broker

    def stop(self) -> None:
        """End it, and leave nothing behind."""
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
    return parse_url(url).host in _LOCAL


def listening(url: str) -> bool:
    """Whether something takes connections there."""
    address = parse_url(url)
    try:
        with socket.create_connection((address.host, address.port), 0.5):
            return True
    except OSError:
        return False


def _command(address: Address, folder: Path, protocol: int | str) -> tuple[str, list[str]]:
    mosquitto = shutil.which(
        "mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    )
    host = "127.0.0.1" if address.host == "localhost" else address.host
    if mosquitto:
        config = folder / "mosquitto.conf"
        config.write_text(_MOSQUITTO.format(host=host, port=address.port, folder=folder))
        _let_in(folder)
        return "mosquitto", [mosquitto, "-c", str(config)]
    if importlib.util.find_spec("iotcore") is None:
        raise NoBroker(
            "broker.embedded: no broker is installed; "
            "`sudo apt install mosquitto`, or `pip install 'fogmqtt[embedded]'`"
        )
    config = folder / "iotcore.toml"
    section = "v5.1" if protocol == 5 else "v4.1"
    config.write_text(_IOTCORE.format(section=section, host=host, port=address.port))
    return "iotcore", [sys.executable, "-m", "fogmqtt.transport.iotcore_child", str(config)]


def _let_in(folder: Path) -> None:
    """Started by root, Mosquitto gives up root's rights before it opens its log."""
    if os.geteuid() == 0:
        folder.chmod(0o777)  # noqa: S103


def _die_with_parent() -> None:
    """Runs in the child: the kernel ends it when we are gone, however we went (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
