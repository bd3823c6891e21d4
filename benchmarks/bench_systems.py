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
class Rounds:
    """One system's figures for one pipeline, one for each round."""

    name: str
    figures: list[Figures]

    @property
    def wall_s(self) -> float:
        return statistics.median(each.seconds for each in self.figures)

    @property
    def cpu_s(self) -> float:
        return statistics.median(each.cpu_s for each in self.figures)

    @property
    def others(self) -> float:
        """What other programs used of the machine meanwhile, 0 to 1."""
        return statistics.median(each.others for each in self.figures)

    @property
    def wrong(self) -> int | None:
        return self.figures[-1].wrong

    def wall_over(self, other: Rounds) -> float:
        """The median of the rounds' ratios of wall time to another system's."""
        pairs = zip(self.figures, other.figures, strict=True)
        return statistics.median(ours.seconds / theirs.seconds for ours, theirs in pairs)

    def cpu_over(self, other: Rounds) -> float:
        """The median of the rounds' ratios of CPU time to another system's."""
        pairs = zip(self.figures, other.figures, strict=True)
        return statistics.median(ours.cpu_s / theirs.cpu_s for ours, theirs in pairs)


def measure(
    systems: list[Started], pipeline: str, megapixels: int, rounds: int
) -> dict[str, Rounds]:
    """Measure the systems in turns; the first is ours, and the bare transport repeats its tiles."""
    ours = systems[0].warm(Task(pipeline, megapixels))
    task = Task(pipeline, megapixels, ours.tiles, ours.bytes_back)
    tasks = {system.name: best_task(system, task) for system in systems}
    measured = {system.name: Rounds(system.name, []) for system in systems}
    for number in range(rounds):
        shift = number % len(systems)
        for system in systems[shift:] + systems[:shift]:
            measured[system.name].figures.append(system.job(tasks[system.name]))
    return measured


def best_task(system: Started, task: Task) -> Task:
    """Warm a system up, and return the task with the number of strips that suits it best."""
    system.warm(task)
    if system.name not in PEERS:
        return task
    tasks = [replace(task, tiles=tiles) for tiles in sorted({DEVICES, 4 * DEVICES, task.tiles})]
    times = [min(system.job(each).seconds for _ in range(TRIALS)) for each in tasks]
    return tasks[times.index(min(times))]


def print_rows(measured: dict[str, Rounds], pipeline: str, megapixels: int) -> None:
    """Print a table of the systems; ours is the first."""
    ours = next(iter(measured.values()))
    title = f"{megapixels} MP {pipeline}"
    heads = ("wall s", "CPU s", "÷ wall", "÷ CPU", "wrong px", "tiles")
    print(f"\n{title:22}", *(f"{head:>8}" for head in heads))
    for row in measured.values():
        ratios = ("", "")
        if row is not ours:
            ratios = (f"{ours.wall_over(row):.2f}", f"{ours.cpu_over(row):.2f}")
        wrong = "-" if row.wrong is None else row.wrong
        cells = (f"{row.wall_s:.3f}", f"{row.cpu_s:.3f}", *ratios, wrong, row.figures[-1].tiles)
        print(f"  {row.name:20}", *(f"{cell:>8}" for cell in cells))
    load = f"load {os.getloadavg()[0]:.1f}, others used {ours.others:.0%} of the cores"
    print(f"  {len(ours.figures)} rounds, {load}", flush=True)


def started(stack: ExitStack, name: str, *, against: str = "") -> Started:
    """Start a system, or the code of another revision, until the stack closes.

    Raises NoRevision.
    """
    folder = stack.enter_context(checkout(against)) if against else None
    system = Started(name, workers=DEVICES, checkout=folder, label=against)
    stack.callback(system.close)
    return system


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
        systems = [started(stack, "fog")]
        for name in options.systems:
            if sentence := missing(name):
                print(sentence)
            else:
                systems.append(started(stack, name))
        for name in options.against:
            try:
                systems.append(started(stack, "fog", against=name))
            except NoRevision as problem:
                print(problem)
        for megapixels in options.megapixels:
            for pipeline in options.pipelines:
                measured = measure(systems, pipeline, megapixels, options.rounds)
                print_rows(measured, pipeline, megapixels)


if __name__ == "__main__":
    main()
