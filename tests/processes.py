"""Gateways and devices as real processes around a real broker, and photographs to give them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from fogmqtt.images.spec import Image
from fogmqtt.transport.base import Received
from fogmqtt.wire.topics import OFFLINE, ONLINE
from tests.fog import Probe, RealBroker, probe, wait_for

DEVICES = ("eya", "oumayma", "manar")
#: Generous, since the machine that tests may be slow and busy; nothing waits for its end.
PATIENCE_S = 60.0


def photo(height: int = 480, width: int = 640, seed: int = 7) -> Image:
    """Something like a photograph: slopes, soft blobs, hard edges and grain; (h, w, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(40, 215, (max(2, height // 24), max(2, width // 24), 3))
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        corner = rng.integers(0, (width, height))
        colour = rng.integers(0, 256, 3).tolist()
        cv2.circle(picture, corner.tolist(), int(rng.integers(8, 40)), colour, -1, cv2.LINE_AA)
    picture += rng.normal(0, 4, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def read(path: Path) -> Image:
    """A file as OpenCV reads it by itself."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, f"{path} is no image"
    return image


def gray_of(path: Path) -> Image:
    """A file's colours, as the operator `gray` must make them gray."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def edges_of(path: Path, low: float = 50, high: float = 150) -> Image:
    """What `gray | canny` must make of a file."""
    return cv2.Canny(gray_of(path), low, high)


def same(got: Image, expected: Image) -> bool:
    return got.dtype == expected.dtype and np.array_equal(got, expected)


@dataclass(frozen=True)
class Program:
    """A process of ours; what it says goes to a file."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8", errors="replace")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def says(self, text: str, *, within: float = PATIENCE_S) -> None:
        """Wait until it said this."""

        def heard() -> bool:
            if text in self.said:
                return True
            assert self.running, f"it ended without saying {text!r}: {self.said[-2000:]}"
            return False

        wait_for(heard, within=within, what=f"{text!r} in {self.said[-2000:]}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, *, within: float = PATIENCE_S) -> int:
        """Wait for its end; returns the exit code."""
        return self.process.wait(within)

    def stop(self) -> int:
        """End it politely; returns the exit code."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        """End it as a power cut does."""
        self.signal(signal.SIGKILL)
        self.process.wait(10)


@dataclass(frozen=True)
class Ran:
    """How a `fog-gateway run` went."""

    code: int
    out: str
    err: str
    report: Any

    @property
    def error(self) -> str:
        """The one line that it must end with."""
        last = self.err.strip().splitlines()[-1]
        assert last.startswith("error: "), self.err
        assert "Traceback" not in self.err, self.err
        return last


@dataclass
class Fog:
    """A broker with gateways and devices, in a folder of its own."""

    folder: Path
    broker: RealBroker
    #: Settings of every process, as environment variables without FOGMQTT_.
    settings: dict[str, str] = field(default_factory=dict)
    programs: list[Program] = field(default_factory=list)
    #: What stands on every process's PYTHONPATH.
    path: str = str(Path(__file__).parents[1])

    def device(self, name: str, *more: str, **settings: str) -> Program:
        """Start a device; it has one worker unless told otherwise."""
        settings = {"DEVICE__WORKERS": "1", **settings}
        command = ["-m", "fogmqtt.cli.device", "--id", name, *more]
        return self._start(name, command, settings)

    def fleet(self, *names: str, speed: float | None = None) -> tuple[Program, ...]:
        """Start devices, and wait until all are online; `speed` in pixels per second."""
        more = () if speed is None else ("--emulate-speed", str(speed))
        started = tuple(self.device(name, *more) for name in names or DEVICES)
        for name, program in zip(names or DEVICES, started, strict=True):
            program.says(f"{name} is online")
        return started

    def serve(self, **settings: str) -> Program:
        """Start a serving gateway, and wait until it is online."""
        program = self.start_serving(**settings)
        program.says("mariem is online")
        return program

    def serve_with(self, config: Path, **settings: str) -> Program:
        """Start a serving gateway with a configuration file; the settings overrule it."""
        command = ["-m", "fogmqtt.cli.gateway", "--config", str(config)]
        return self._start("mariem", command, settings)

    def start_serving(self, **settings: str) -> Program:
        return self._start("mariem", ["-m", "fogmqtt.cli.gateway"], settings)

    def run(self, *arguments: str | Path, code: int = 0, **settings: str) -> Ran:
        """`fog-gateway run`, to its end, which must come with this exit code."""
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, *_run(*arguments, "--report", report)],
            cwd=self.folder,
            env=self._env(settings),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == code, f"exit {done.returncode}: {done.stderr}"
        told = json.loads(report.read_text()) if report.exists() else None
        return Ran(done.returncode, done.stdout, done.stderr, told)

    def start_run(self, *arguments: str | Path, **settings: str) -> Program:
        """`fog-gateway run` in the background."""
        return self._start("run", _run(*arguments), settings)

    def command(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Any other `fog-gateway` command, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "fogmqtt.cli.gateway", *arguments],
            cwd=self.folder,
            env=self._env(settings),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def examined(self) -> None:
        """Wait until every device knows what it can do, and how fast."""

        def all_known() -> bool:
            listed = json.loads(self.command("devices", "--json").stdout)
            return not any(device.get("conformance_running") for device in listed.values())

        wait_for(all_known, within=PATIENCE_S, what="the examinations")

    def save(self, name: str, image: Image) -> Path:
        path = self.folder / name
        assert cv2.imwrite(str(path), image)
        return path

    @contextmanager
    def probe(self, *filters: str, client_id: str = "probe") -> Iterator[Probe]:
        with probe(self.broker.url, *filters, client_id=client_id) as client:
            yield client

    def close(self) -> None:
        """End whatever still runs, gateways first: they have nothing to wait for then."""
        for program in reversed(self.programs):
            if program.running:
                program.kill()

    def _start(
        self, name: str, command: list[str], settings: dict[str, str], stdout: int | None = None
    ) -> Program:
        log = self.folder / f"{name}-{len(self.programs)}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.folder,
                env=self._env(settings),
                stdout=out if stdout is None else stdout,
                stderr=out,
            )
        program = Program(process, log)
        self.programs.append(program)
        return program

    def _env(self, settings: dict[str, str]) -> dict[str, str]:
        """Nothing of the tester's own configuration gets in."""
        mine = {key: value for key, value in os.environ.items() if not key.startswith("FOGMQTT_")}
        ours = {
            "BROKER__URL": self.broker.url,
            "BROKER__EMBEDDED": "never",
            "GATEWAY__LOCAL": "never",
            "DASHBOARD__ENABLED": "never",
            **self.settings,
            **settings,
        }
        set_here = {f"FOGMQTT_{key}": value for key, value in ours.items()}
        return mine | set_here | {"PYTHONPATH": self.path}


def _run(*arguments: str | Path) -> list[str]:
    return ["-m", "fogmqtt.cli.gateway", "run", *map(str, arguments)]


@contextmanager
def fog_at(folder: Path, broker: RealBroker, **settings: str) -> Iterator[Fog]:
    """A fog whose processes are gone at the end."""
    made = Fog(folder, broker, settings)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def private_fog(folder: Path, more: str = "", **settings: str) -> Iterator[Fog]:
    """A fog around a broker that nobody else uses."""
    (folder / "broker").mkdir()
    broker = RealBroker(folder / "broker", more=more)
    broker.start()
    try:
        with fog_at(folder, broker, **settings) as made:
            yield made
    finally:
        broker.kill()


def forget_gateways(broker: RealBroker) -> None:
    """Remove what gateways that are gone left retained at a broker."""
    end = "tests/end"
    topics = ("fog/v1/gateways/#", "fog/v1/jobs/#", "fog/v1/replies/#", end)
    with probe(broker.url, *topics, client_id="forgets") as client:
        client.publish(end, b"")  # it arrives after all that is retained
        while (message := client.inbox.take(Received)).topic != end:
            client.publish(message.topic, b"", retain=True)


def status_becomes(client: Probe, topic: str, expected: bytes) -> None:
    """Wait until this is said on a status topic."""
    assert expected in (ONLINE, OFFLINE)
    while client.message(topic, within=PATIENCE_S).payload != expected:
        pass


def has_opencv(program: Program) -> bool:
    """Whether the program itself has loaded OpenCV, and not only a worker of it."""
    return any("/cv2/" in one.path for one in psutil.Process(program.process.pid).memory_maps())


def until(found: Callable[[], bool], what: str) -> None:
    """Wait for something that processes do."""
    wait_for(found, within=PATIENCE_S, what=what)
