"""One system under measurement in a process of its own, with all that it needs as its children.

A system is a gateway with its devices and its broker, or a peer with its workers. Since nothing is
shared, the CPU time of the process and its children is all that a job costs. `Started` is the side
of the benchmark: it sends a line of JSON for each job, and reads a line with the figures.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Protocol

HERE = Path(__file__).parent
#: The module of each system; its `start` returns a context with a System.
MODULES = {
    "fog": "fog_system",
    "bare": "bare",
    "bare+work": "bare",
    "dask": "dask_system",
    "imagezmq": "imagezmq_system",
    "celery": "celery_system",
}
PEERS = ("dask", "imagezmq", "celery")
#: The packages of the extra `bench` that each peer needs.
_PACKAGES = {"dask": ("distributed",), "imagezmq": ("imagezmq",), "celery": ("celery", "redis")}
#: Jobs with the same pipeline before the measured ones: workers load OpenCV in them, and times are
#: learned.
WARM_JOBS = 2


@dataclass(frozen=True)
class Task:
    """A job for a system. Peers cut the image into this number of strips."""

    pipeline: str
    megapixels: int
    tiles: int = 3
    #: The bytes of a tile's result, for the bare transport.
    bytes_back: int = 0
    #: Seconds from the start of the job until the fault of the first worker; None for no fault.
    drop_after_s: float | None = None
    kill_after_s: float | None = None


@dataclass(frozen=True)
class Figures:
    """What a job took: wall time from memory to memory, and CPU time of all processes."""

    seconds: float
    cpu_s: float
    #: What other programs used of the machine meanwhile, 0 to 1.
    others: float
    tiles: int
    bytes_back: int
    #: Pixels that differ from one machine's; None if the system makes no image.
    wrong: int | None


@dataclass(frozen=True)
class Done:
    """The result of a job; no image for the bare transport."""

    image: object | None
    tiles: int
    bytes_back: int = 0


class System(Protocol):
    """A system that is ready for jobs."""

    def prepare(self, task: Task) -> None:
        """Do what is not to be measured."""

    def run(self, task: Task) -> Done:
        """Run one job from memory to memory."""


class Starter(Protocol):
    """A module of MODULES."""

    def start(
        self, name: str, workers: int, speeds: tuple[float, ...]
    ) -> AbstractContextManager[System]:
        """Start a system with its workers, and end it.

        With speeds, each worker of a peer takes the time of a device of that speed.
        """


def missing(name: str) -> str | None:
    """Return a sentence that says what a system needs here, or None if nothing is missing."""
    lacks = [each for each in _PACKAGES.get(name, ()) if importlib.util.find_spec(each) is None]
    if lacks:
        return f"{name} is not measured: pip install -e '.[bench]' brings {', '.join(lacks)}"
    if name == "celery" and shutil.which("redis-server") is None:
        return "celery is not measured: it needs a redis-server; apt install redis-server"
    return None


class Started:
    """A system in a child process. Raises SystemFailed if the child ends."""

    def __init__(
        self,
        name: str,
        *,
        workers: int = 3,
        speeds: tuple[float, ...] = (),
        checkout: Path | None = None,
        label: str = "",
    ) -> None:
        self.name = label or name
        command = [sys.executable, str(HERE / "system.py"), name, str(workers)]
        command += ["--speeds", *map(str, speeds)]
        environment = dict(os.environ, FOGMQTT_DEVICE__WORKERS="1")
        if checkout is not None:
            command += ["--checkout", str(checkout)]
            environment["PYTHONPATH"] = str(checkout)
        self._process = subprocess.Popen(
            command,
            cwd=checkout or HERE.parent,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._warm: set[tuple[str, int]] = set()
        self._read()

    def warm(self, task: Task) -> Figures:
        """Run jobs that do not count, and return the figures of the last one."""
        return [self.job(task) for _ in range(WARM_JOBS)][-1]

    def job(self, task: Task) -> Figures:
        self._stdin.write(json.dumps(asdict(task)) + "\n")
        self._stdin.flush()
        return Figures(**json.loads(self._read()))

    def close(self) -> None:
        """Let the child end its own children, and wait for it."""
        self._stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def _stdin(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemFailed(f"{self.name} ended with exit code {self._process.wait()}")
        return line


class SystemFailed(Exception):
    """A system under measurement ended."""


def serve(name: str, workers: int, speeds: tuple[float, ...]) -> None:
    """Run the jobs that stdin names. Whatever the system prints goes to stderr."""
    from cpu_time import CpuTime
    from photo import wrong_pixels

    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the benchmark closes stdin
    starter: Starter = importlib.import_module(MODULES[name])
    with starter.start(name, workers, speeds) as system:
        replies.write("ready\n")
        for line in sys.stdin:
            task = Task(**json.loads(line))
            system.prepare(task)
            cpu, began = CpuTime(), time.perf_counter()
            done = system.run(task)
            seconds = time.perf_counter() - began
            usage = cpu.usage()
            wrong = None
            if done.image is not None:
                wrong = wrong_pixels(done.image, task.megapixels, task.pipeline)
            figures = Figures(
                seconds, usage.cpu_s, usage.others, done.tiles, done.bytes_back, wrong
            )
            replies.write(json.dumps(asdict(figures)) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=MODULES)
    parser.add_argument("workers", type=int)
    parser.add_argument("--speeds", type=float, nargs="*", default=[])
    parser.add_argument("--checkout", type=Path, help="measure the code of this folder")
    options = parser.parse_args()
    if options.checkout:
        sys.path[:0] = [str(options.checkout), str(options.checkout / "benchmarks")]
    serve(options.name, options.workers, tuple(options.speeds))


if __name__ == "__main__":
    main()
