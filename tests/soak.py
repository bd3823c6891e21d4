"""Many small jobs through one gateway: memory, files and threads stay, and how long a job takes.

Run: python -m tests.soak [--jobs 10000] [--report soak]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import psutil

from fogmqtt.images.drawing import Drawing, Label, Line, Shape, png, svg
from fogmqtt.transport.base import Received
from tests.fog import Probe
from tests.processes import Fog, Program, has_opencv, photo, private_fog, until

DEVICES = ("eya", "oumayma")
#: Jobs on their way at once.
WINDOW = 16
#: Different pictures, in turn.
_PICTURES = 8
_JOB_S = 60.0
#: What may be more at the end than after the first fifth.
MORE = {"memory MB": 12.0, "files": 6.0, "threads": 2.0}
_COLOURS = ("#0072b2", "#009e73", "#d55e00")
_WIDTH, _HEIGHT, _LEFT, _PLOT = 1100, 220, 90, 150


@dataclass(frozen=True)
class Sample:
    """What a process holds at a moment."""

    at_s: float
    name: str
    figures: dict[str, float]


@dataclass
class Soak:
    """How it went."""

    jobs: int
    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    #: Jobs that did not end exactly; and all that grew.
    wrong: list[str] = field(default_factory=list)

    def growth(self) -> Iterator[tuple[str, str, float, float]]:
        """Process, figure, its minimum in the second fifth and in the last.

        What jobs hold while they run comes and goes; what leaks raises the minimum.
        """
        for name in dict.fromkeys(sample.name for sample in self.samples):
            mine = [sample for sample in self.samples if sample.name == name]
            fifth = max(1, len(mine) // 5)
            for figure in MORE:
                early = min(one.figures[figure] for one in mine[fifth : 2 * fifth] or mine)
                late = min(one.figures[figure] for one in mine[-fifth:])
                yield name, figure, early, late

    def grown(self) -> list[str]:
        """What did not stay, as sentences."""
        return [
            f"{name}: {figure} grew from {early:.1f} to {late:.1f}"
            for name, figure, early, late in self.growth()
            if late - early > MORE[figure]
        ]


def soak(folder: Path, jobs: int, every_s: float = 1.0) -> Soak:
    """So many jobs, at most WINDOW at once, around a broker and processes of their own."""
    with private_fog(folder, GATEWAY__INBOX="", DEVICE__CHECKIN_S="2") as fog:
        fog.fleet(*DEVICES)
        fog.serve()
        with fog.probe("fog/v1/replies/#", client_id="customer") as client:
            watch = _Watch(fog, every_s)
            done = Soak(jobs)
            customer = _Customer(client, done)
            customer.work(min(200, jobs // 5), counted=False)
            for device in fog.programs[: len(DEVICES)]:
                # It does so between its first jobs, and holds more memory from then on.
                until(partial(has_opencv, device), "OpenCV in the agent")
            began = time.monotonic()
            watch.begin()
            customer.work(jobs, counted=True)
            done.seconds = time.monotonic() - began
            done.samples = watch.end()
        for program in fog.programs:
            if not program.running or "Traceback" in program.said:
                done.wrong.append(program.said[-3000:])
    return done


class _Customer:
    """Submits pictures and looks at what comes back."""

    def __init__(self, client: Probe, soak: Soak) -> None:
        self._client = client
        self._soak = soak
        pictures = [photo(48, 64, number) for number in range(_PICTURES)]
        self._files = [cv2.imencode(".png", one)[1].tobytes() for one in pictures]
        self._expected = [
            cv2.Canny(cv2.cvtColor(one, cv2.COLOR_BGR2GRAY), 50, 150) for one in pictures
        ]
        self._sent_at: dict[str, float] = {}
        self._exact: set[str] = set()

    def work(self, jobs: int, *, counted: bool) -> None:
        """Have so many done."""
        prefix = "s" if counted else "w"
        for number in range(jobs):
            while len(self._sent_at) >= WINDOW:
                self._hear(counted)
            reply = f"{prefix}{number}"
            self._sent_at[reply] = time.monotonic()
            picture = self._files[number % _PICTURES]
            self._client.publish(f"fog/v1/submit/edges/{reply}", picture)
        while self._sent_at:
            self._hear(counted)

    def _hear(self, counted: bool) -> None:
        message = self._client.inbox.take(Received, within=_JOB_S)
        _, _, _, reply, leaf = message.topic.split("/")
        if leaf == "image":
            self._look(reply, message.payload)
            return
        status = json.loads(message.payload)
        if status["state"] not in ("done", "failed") or reply not in self._sent_at:
            return
        took_s = time.monotonic() - self._sent_at.pop(reply)
        if counted:
            self._soak.latencies_s.append(took_s)
        if reply not in self._exact:
            self._soak.wrong.append(f"{reply}: {status}")
        self._exact.discard(reply)

    def _look(self, reply: str, payload: bytes) -> None:
        got = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_UNCHANGED)
        if got is not None and np.array_equal(got, self._expected[int(reply[1:]) % _PICTURES]):
            self._exact.add(reply)


class _Watch:
    """A thread that looks at every process of a fog now and then."""

    def __init__(self, fog: Fog, every_s: float) -> None:
        names = (*DEVICES, "mariem")
        self._processes = {
            name: _process(one) for name, one in zip(names, fog.programs, strict=True)
        }
        self._every_s = every_s
        self._samples: list[Sample] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._began = 0.0

    def begin(self) -> None:
        self._began = time.monotonic()
        self._thread.start()

    def end(self) -> list[Sample]:
        self._over.set()
        self._thread.join()
        return self._samples

    def _run(self) -> None:
        while True:
            for name, process in self._processes.items():
                at_s = time.monotonic() - self._began
                self._samples.append(Sample(at_s, name, _figures(process)))
            if self._over.wait(self._every_s):
                return


def _process(program: Program) -> psutil.Process:
    return psutil.Process(program.process.pid)


def _figures(process: psutil.Process) -> dict[str, float]:
    return {
        "memory MB": process.memory_info().rss / 2**20,
        "files": float(process.num_fds()),
        "threads": float(process.num_threads()),
    }


def plot(soak: Soak) -> Drawing:
    """A graph for each figure, a line for each process."""
    shapes: list[Shape] = []
    for row, figure in enumerate(MORE):
        shapes += _graph(soak.samples, figure, 40 + row * _HEIGHT)
    names = dict.fromkeys(sample.name for sample in soak.samples)
    for number, name in enumerate(names):
        shapes.append(Label(_LEFT + number * 120, 20, name, 13, _COLOURS[number % len(_COLOURS)]))
    return Drawing(_WIDTH, 40 + _HEIGHT * len(MORE), shapes)


def _graph(samples: Sequence[Sample], figure: str, top: float) -> Iterator[Shape]:
    most = max(sample.figures[figure] for sample in samples) * 1.1 or 1.0
    end_s = max(sample.at_s for sample in samples) or 1.0
    bottom = top + _PLOT
    yield Line(_LEFT, bottom, _WIDTH - 20, bottom, "#999999")
    yield Label(_LEFT - 8, bottom, "0", 11, anchor="end")
    yield Label(_LEFT - 8, top + 10, f"{most:.0f}", 11, anchor="end")
    yield Label(_LEFT, top - 4, f"{figure} over {end_s:.0f} s", 12)
    across = (_WIDTH - 20 - _LEFT) / end_s
    for number, name in enumerate(dict.fromkeys(sample.name for sample in samples)):
        points = [
            (_LEFT + one.at_s * across, bottom - one.figures[figure] / most * _PLOT)
            for one in samples
            if one.name == name
        ]
        for a, b in pairwise(points):
            yield Line(*a, *b, _COLOURS[number % len(_COLOURS)], 1.5)


def told(soak: Soak) -> str:
    """The figures, for people."""
    latencies = sorted(soak.latencies_s)
    shares = (0.5, 0.9, 0.99, 0.999, 1.0)
    points = [latencies[min(len(latencies) - 1, int(share * len(latencies)))] for share in shares]
    said = ", ".join(f"p{share * 100:g} {at:.3f}" for share, at in zip(shares, points, strict=True))
    lines = [
        f"{soak.jobs} jobs in {soak.seconds:.0f} s, {soak.jobs / soak.seconds:.0f} a second",
        f"seconds from submission to the end, {WINDOW} at once: {said}",
        *(
            f"{name}: {figure} {early:.1f} early, {late:.1f} at the end"
            for name, figure, early, late in soak.growth()
        ),
        *soak.grown(),
        *soak.wrong[:20],
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--report", type=Path, default=Path("soak"), help="a folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fogmqtt-soak-") as folder:
        done = soak(Path(folder), options.jobs)
    options.report.mkdir(parents=True, exist_ok=True)
    (options.report / "soak.txt").write_text(told(done) + "\n", "utf-8")
    (options.report / "soak.png").write_bytes(png(plot(done)))
    (options.report / "soak.svg").write_text(svg(plot(done)), "utf-8")
    print(told(done))
    return 1 if done.grown() or done.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
