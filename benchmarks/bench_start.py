"""Measures `fog-gateway run`: the time from its start until its first tile is sent.

Three devices of this machine are warm. Each round starts the command anew, on the demo's photograph
as a PNG and on one of 24 MP as a JPEG, with `local: never`. `first tile s` ends when the first tile
arrives at another client of the broker, `all s` when the command has ended. `CPU s` is what the
command and its processes used. `--against REVISION` runs the command of other code in turns.

Run: .venv/bin/python benchmarks/bench_start.py [--rounds 7] [--against REVISION-OR-FOLDER]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from bare import client
from client import gateway_at
from photo import photo
from revision import ROOT, checkout

from fogmqtt.cli.demo import PHOTO, device_process, free_port
from fogmqtt.images.cv import cv2
from fogmqtt.transport.embedded import EmbeddedBroker
from fogmqtt.wire.topics import Topics

DEVICES = 3
SMALL, LARGE = "photograph", "24 MP JPEG"
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Start:
    """One run of the command."""

    first_tile_s: float
    all_s: float
    cpu_s: float


def measure(rounds: int, sources: Sequence[Path] = ()) -> dict[tuple[str, str], list[Start]]:
    """Run the command on each image, and return its runs by the image's name and the code.

    `sources` are folders whose code is run as well, in turns.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        broker = EmbeddedBroker.start(f"mqtt://127.0.0.1:{port}")
        stack.callback(broker.stop)
        for number in range(DEVICES):
            stack.enter_context(device_process(f"d{number}", broker.url))
        with gateway_at(broker.url, DEVICES):
            pass  # the devices are online and know what they can do
        time.sleep(1.0)  # their workers have started
        runs: dict[tuple[str, str], list[Start]] = {}
        large = folder / "large.jpg"
        cv2.imwrite(str(large), photo(24))
        for _ in range(rounds + 1):
            for name, path in ((SMALL, PHOTO), (LARGE, large)):
                for source in (ROOT, *sources):
                    start = _run(path, port, broker.url, source)
                    runs.setdefault((name, source.name), []).append(start)
        return {name: starts[1:] for name, starts in runs.items()}


def _run(image: Path, port: int, url: str, source: Path) -> Start:
    program = "import sys; from fogmqtt.cli.gateway import main; sys.exit(main())"
    with tempfile.TemporaryDirectory() as folder, _tiles(port) as arrived:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        command = [sys.executable, "-c", program, "--broker", url, "run", str(image)]
        environment = {**os.environ, "FOGMQTT_GATEWAY__LOCAL": "never"}
        environment["PYTHONPATH"] = str(source)
        done = subprocess.run(
            [*command, "--pipeline", "invert", "-o", f"{folder}/out.bmp"],
            check=False,
            cwd=folder,
            env=environment,
            stderr=subprocess.PIPE,
        )
        ended = time.perf_counter()
        assert done.returncode == 0, done.stderr.decode()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Start(arrived[0] - began, ended - began, cpu_s)


@contextmanager
def _tiles(port: int) -> Iterator[list[float]]:
    """Yield the moments at which tiles arrive."""
    arrived: list[float] = []
    subscribed = threading.Event()
    watcher = client("watches-tiles", port)
    watcher.on_subscribe = lambda *_: subscribed.set()
    watcher.on_message = lambda *_: arrived.append(time.perf_counter())
    watcher.subscribe(Topics().device("+", "tiles"), 1)
    watcher.loop_start()
    try:
        assert subscribed.wait(TIMEOUT_S)
        yield arrived
    finally:
        watcher.disconnect()
        watcher.loop_stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--against", nargs="*", default=[], metavar="REVISION-OR-FOLDER")
    options = parser.parse_args()
    with ExitStack() as stack:
        sources = [stack.enter_context(checkout(name)) for name in options.against]
        runs = measure(options.rounds, sources)
    heads = ("first tile s", "all s", "CPU s")
    print(" " * 33, *(f"{head:>13}" for head in heads), f"  load {os.getloadavg()[0]:.1f}")
    for (name, source), starts in runs.items():
        for kind, choose in (("median", statistics.median), ("best", min), ("worst", max)):
            columns = (choose(column) for column in zip(*map(astuple, starts), strict=True))
            print(f"{name:14} {source:11} {kind:6}", *(f"{each:13.3f}" for each in columns))


if __name__ == "__main__":
    main()
