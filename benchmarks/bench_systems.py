"""Compares ours with bare paho, other libraries and another revision: one image, three devices.

Gray, from memory to memory, `local: never`. Each system has its own broker and processes, all are
warm, and they take turns in each round. The columns: the median wall time; the median CPU time of
all processes of the system, its broker among them; ours divided by the system, in wall and in CPU
time, each the median of the rounds' ratios; pixels that differ from one machine's; the number of
tiles. The peers get strips, as many as suit them best: one or four for each worker, or our number.

    .venv/bin/python benchmarks/bench_systems.py [--megapixels 24] [--pipelines invert canny]
        [--rounds 9] [--systems bare dask] [--against REVISION-OR-FOLDER]

`--against` adds a row for each other revision, of which it makes a temporary work tree; a folder
with another checkout is taken as it is.
"""

from __future__ import annotations

import argparse
import os
import statistics
from contextlib import ExitStack
from dataclasses import dataclass, replace

from photo import HALO
from revision import NoRevision, checkout
from system import MODULES, PEERS, Figures, Started, Task, missing

DEVICES = 3
#: Jobs with each number of strips, before the one that suits a peer best is chosen.
TRIALS = 2


@dataclass(frozen=True)
class Row:
    """One system's figures for one pipeline, one for each round, and ours of the same rounds."""

    name: str
    theirs: list[Figures]
    ours: list[Figures]

    @property
    def wall_s(self) -> float:
        return statistics.median(each.seconds for each in self.theirs)

    @property
    def cpu_s(self) -> float:
        return statistics.median(each.cpu_s for each in self.theirs)

    @property
    def wall_ratio(self) -> float:
        """Ours divided by theirs."""
        return _ratio([each.seconds for each in self.ours], [each.seconds for each in self.theirs])

    @property
    def cpu_ratio(self) -> float:
        """Ours divided by theirs."""
        return _ratio([each.cpu_s for each in self.ours], [each.cpu_s for each in self.theirs])

    @property
    def tiles(self) -> int:
        return self.theirs[-1].tiles

    @property
    def wrong(self) -> str:
        return "-" if self.theirs[-1].wrong is None else str(self.theirs[-1].wrong)


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def measure(systems: list[Started], pipeline: str, megapixels: int, rounds: int) -> list[Row]:
    """Measure the systems in turns; the first is ours, and the bare transport repeats its tiles."""
    ours = systems[0].warm(Task(pipeline, megapixels))
    task = Task(pipeline, megapixels, ours.tiles, ours.bytes_back)
    tasks = {system.name: best_task(system, task) for system in systems}
    figures: dict[str, list[Figures]] = {system.name: [] for system in systems}
    for number in range(rounds):
        shift = number % len(systems)
        for system in systems[shift:] + systems[:shift]:
            figures[system.name].append(system.job(tasks[system.name]))
    return [Row(name, theirs, figures[systems[0].name]) for name, theirs in figures.items()]


def best_task(system: Started, task: Task) -> Task:
    """Warm a system up, and return the task with the number of strips that suits it best."""
    system.warm(task)
    if system.name not in PEERS:
        return task
    tasks = [replace(task, tiles=tiles) for tiles in sorted({DEVICES, 4 * DEVICES, task.tiles})]
    times = [min(system.job(each).seconds for _ in range(TRIALS)) for each in tasks]
    return tasks[times.index(min(times))]


def print_rows(rows: list[Row], pipeline: str, megapixels: int) -> None:
    title = f"{megapixels} MP {pipeline}"
    heads = ("wall s", "CPU s", "÷ wall", "÷ CPU", "wrong px", "tiles")
    print(f"\n{title:22}", *(f"{head:>8}" for head in heads))
    for row in rows:
        ratios = ("", "") if row is rows[0] else (f"{row.wall_ratio:.2f}", f"{row.cpu_ratio:.2f}")
        cells = (f"{row.wall_s:.3f}", f"{row.cpu_s:.3f}", *ratios, row.wrong, row.tiles)
        print(f"  {row.name:20}", *(f"{cell:>8}" for cell in cells))
    print(f"  {len(rows[0].ours)} rounds, load {os.getloadavg()[0]:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--megapixels", type=int, nargs="+", default=[24])
    parser.add_argument("--pipelines", nargs="+", choices=HALO, default=list(HALO))
    others = [name for name in MODULES if name != "fog"]
    parser.add_argument("--systems", nargs="*", choices=others, default=others)
    parser.add_argument("--against", nargs="*", default=[], metavar="REVISION-OR-FOLDER")
    options = parser.parse_args()
    print(f"gray, {DEVICES} devices, {os.cpu_count()} cores; ÷: ours divided by the row")
    with ExitStack() as stack:
        systems = [Started("fog", workers=DEVICES)]
        stack.callback(systems[0].close)
        for name in options.systems:
            if sentence := missing(name):
                print(sentence)
                continue
            systems.append(Started(name, workers=DEVICES))
            stack.callback(systems[-1].close)
        for name in options.against:
            try:
                folder = stack.enter_context(checkout(name))
            except NoRevision as problem:
                print(problem)
                continue
            systems.append(Started("fog", workers=DEVICES, checkout=folder))
            systems[-1].name = name
            stack.callback(systems[-1].close)
        for megapixels in options.megapixels:
            for pipeline in options.pipelines:
                rows = measure(systems, pipeline, megapixels, options.rounds)
                print_rows(rows, pipeline, megapixels)


if __name__ == "__main__":
    main()
