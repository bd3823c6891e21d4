"""A broker that somebody else wrote, as processes on loopback that the suite may kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import psutil

from fogmqtt.transport.link import Protocol
from fogmqtt.transport.probe import is_broker
from tests.fog import free_port

#: Seconds until a broker answers. Those on a virtual machine of their own take long.
START_S = 120.0


class BrokerProblem(Exception):
    """The broker itself cannot be installed or started."""


@dataclass
class Process:
    """A program in the background. All that it starts ends with it."""

    command: list[str]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "out.log"

    def start(self) -> None:
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def end(self, how: signal.Signals) -> None:
        """Send a signal to the program and to all that it started, and wait for their end."""
        if self._process is None:
            return
        family = [psutil.Process(self._process.pid)] if self.running else []
        family += [child for one in family for child in one.children(recursive=True)]
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(how)
        _, left = psutil.wait_procs(family, timeout=20)
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self._process.wait(20)
        self._process = None

    def said(self) -> str:
        return self.log.read_text("utf-8", errors="replace") if self.log.exists() else ""


class Broker(ABC):
    """One kind of broker, with the settings that fogmqtt needs. `folder` is its own.

    Class attributes are what the page says about it.
    """

    #: How the command line calls it, and how the page does.
    key: ClassVar[str]
    title: ClassVar[str]
    #: Where it comes from: Debian, PyPI or npm, and the package.
    source: ClassVar[str]
    protocols: ClassVar[tuple[Protocol, ...]] = (5, "3.1.1")
    #: The highest QoS; a broker of MQTT 3.1.1 cannot announce it.
    max_qos: ClassVar[int] = 2
    #: What its configuration needs, and what it cannot do; sentences for the page.
    settings: ClassVar[str] = ""
    limits: ClassVar[str] = ""
    username: ClassVar[str] = ""
    password: ClassVar[str] = ""

    def __init__(self, folder: Path, cache: Path, protocol: Protocol) -> None:
        self.folder = folder
        #: Where packages are installed; it is kept.
        self.cache = cache
        self.protocol = protocol
        self.ports = self._ports()
        self.processes: list[Process] = []

    def _ports(self) -> tuple[int, ...]:
        return (free_port(),)

    @classmethod
    @abstractmethod
    def install(cls, cache: Path) -> None:
        """Install it. Raises BrokerProblem."""

    @classmethod
    @abstractmethod
    def version(cls, cache: Path) -> str:
        """The version that is installed."""

    @abstractmethod
    def prepare(self) -> list[Process]:
        """Write the configuration; returns one process for each node."""

    def ready(self) -> None:  # noqa: B027  # most have one node
        """Join the nodes, which all answer."""

    @property
    def urls(self) -> tuple[str, ...]:
        """One for each node."""
        return tuple(f"mqtt://127.0.0.1:{port}" for port in self.ports)

    @property
    def url(self) -> str:
        return self.urls[0]

    def start(self) -> None:
        """Start all nodes, and wait until they answer. Raises BrokerProblem."""
        self.folder.mkdir(parents=True)
        self.processes = self.prepare()
        for at in range(len(self.processes)):
            self._start(at)
        self.ready()

    def kill(self, node: int = -1) -> None:
        """End a node as a power cut does; the last one by default."""
        self.processes[node].end(signal.SIGKILL)

    def restart(self, node: int = -1) -> None:
        """Start a killed node again, and wait until it answers. Raises BrokerProblem."""
        self._start(node)

    def stop(self) -> None:
        for process in self.processes:
            process.end(signal.SIGTERM)

    def _start(self, at: int) -> None:
        process, url = self.processes[at], self.urls[at]
        process.start()
        deadline = time.monotonic() + START_S
        while not is_broker(url):
            if not process.running or time.monotonic() > deadline:
                raise BrokerProblem(f"{self.title} did not start: {process.said()[-1500:]}")
            time.sleep(0.1)


def program(name: str, *folders: str) -> str:
    """The path of a program; Debian keeps servers where ordinary users do not look."""
    path = ":".join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", *folders))
    found = shutil.which(name, path=path)
    if found is None:
        raise BrokerProblem(f"{name} is not installed")
    return found


def printed(*command: str) -> str:
    """What a program prints, on either channel."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr
