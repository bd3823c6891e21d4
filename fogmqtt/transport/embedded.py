"""An embedded broker for machines without a broker: Mosquitto if it is installed, else iotcore.

It is private to one user of this machine: it listens on loopback only, asks for a password that
only this user can read, and ends with this process.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fogmqtt.errors import NoBroker
from fogmqtt.parent import before_exec
from fogmqtt.process_tuning import KEPT_MEMORY
from fogmqtt.transport.link import Address, parse_url
from fogmqtt.transport.mosquitto_password import password_line
from fogmqtt.transport.own_password import USER, OwnPassword, make_password
from fogmqtt.transport.probe import is_listening, is_local

#: Seconds within which a broker must answer after its start, and end after a SIGTERM.
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0
#: What a broker says while it starts.
_OUTPUT = "out"

# `user`: Mosquitto that root starts would change its user, and the kernel clears the parent death
# signal of a process that changes its user. For other users the line has no effect. 10 000 queued
# messages: the default of 1000 drops tiles without notice. 0 (no limit) disconnects innocent
# clients in Debian's build.
_MOSQUITTO = """\
user root
listener {port} {host}
allow_anonymous false
password_file {folder}/passwords
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
[{section}.connections.auth]
{user} = "{password}"
"""


@dataclass(frozen=True, slots=True)
class EmbeddedBroker:
    """A broker process that this process started."""

    url: str
    #: The name of the program: mosquitto or iotcore.
    program: str
    _process: subprocess.Popen[bytes]
    _password: OwnPassword

    @classmethod
    def start(cls, url: str, protocol: int | str = 5) -> EmbeddedBroker:
        """Start a broker at a loopback url and wait until it answers.

        Linux ends the broker with the thread that started it, so call this on a thread that lives
        as long as the broker is needed. Raises NoBroker if no program is installed, the url does
        not name this machine, the port is in use, or the broker does not start.
        """
        address = parse_url(url)
        if address.tls or address.path or not is_local(url):
            raise NoBroker(
                "broker.embedded: an embedded broker serves MQTT over TCP to this machine only, "
                f"not {url}; "
                "use mqtt://127.0.0.1:1883, or run Mosquitto with broker/mosquitto.conf"
            )
        if is_listening(url):
            raise NoBroker(
                f"broker.embedded: another program listens at {url}; "
                "use another port, or set broker.embedded to never"
            )
        program, write = _choose_program()
        password = make_password(address.port)
        try:
            with password.folder() as folder:  # a broker reads its configuration once
                command = write(address, folder, protocol, password.text)
                broker = cls(url, program, _spawn(command, folder), password)
                broker._wait_until_ready(folder / _OUTPUT)
        except NoBroker:
            raise
        except OSError as problem:
            password.forget()
            raise NoBroker(f"broker.embedded: {program} cannot be started: {problem}") from None
        return broker

    @property
    def has_counters(self) -> bool:
        """Whether it has `$SYS` counters. iotcore disconnects a client that subscribes to them."""
        return self.program == "mosquitto"

    @property
    def client_options(self) -> str:
        """What mosquitto_pub and mosquitto_sub need to log in, as a shell takes it."""
        return self._password.options

    @property
    def pid(self) -> int:
        """The process id of the broker."""
        return self._process.pid

    def stop(self) -> None:
        """End the broker; idempotent."""
        self._password.forget()
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self, output: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if is_listening(self.url):
                return
            time.sleep(0.02)
        said = output.read_text(errors="replace").strip()[-300:]
        self.stop()
        raise NoBroker(f"broker.embedded: {self.program} did not start at {self.url}: {said}")


#: Writes a configuration into a folder and returns the command that starts a broker with it.
_WriteConfig = Callable[[Address, Path, int | str, str], list[str]]


def _choose_program() -> tuple[str, _WriteConfig]:
    if _find_mosquitto() is not None:
        return "mosquitto", _write_mosquitto
    if _has_iotcore():
        return "iotcore", _write_iotcore
    raise NoBroker(
        "broker.embedded: no broker is installed; "
        "`sudo apt install mosquitto`, or `pip install 'fogmqtt[embedded]'`"
    )


def _find_mosquitto() -> str | None:
    # Debian installs it in a folder that is not in the PATH of a normal user.
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _has_iotcore() -> bool:
    return importlib.util.find_spec("iotcore") is not None


def _host(address: Address) -> str:
    return "127.0.0.1" if address.host == "localhost" else address.host


def _write_mosquitto(
    address: Address, folder: Path, protocol: int | str, password: str
) -> list[str]:
    del protocol  # Mosquitto accepts both versions on one port
    config = folder / "mosquitto.conf"
    (folder / "passwords").write_text(password_line(USER, password))
    text = _MOSQUITTO.format(host=_host(address), port=address.port, folder=folder)
    config.write_text(text)
    return [_find_mosquitto() or "mosquitto", "-c", str(config)]


def _write_iotcore(address: Address, folder: Path, protocol: int | str, password: str) -> list[str]:
    config = folder / "iotcore.toml"
    section = "v5.1" if protocol == 5 else "v4.1"
    host = f"[{address.host}]" if ":" in address.host else _host(address)
    text = _IOTCORE.format(
        section=section, host=host, port=address.port, user=USER, password=password
    )
    config.write_text(text)
    return [sys.executable, "-m", "iotcore", "--config", str(config), "--log-level", "CRITICAL"]


def _spawn(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / _OUTPUT).open("wb") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=folder,
            env=os.environ | KEPT_MEMORY,
            start_new_session=True,  # the parent handles Ctrl-C of the terminal, in its own order
            preexec_fn=before_exec(signal.SIGTERM),
        )
