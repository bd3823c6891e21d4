"""Compares ours with bare paho, and with another revision: one image, three devices.

Gray, from memory to memory, `local: never`. Each system has its own broker and processes, all are
warm, and they take turns in each round. The columns: the median wall time; the median CPU time of
all processes of the system, its broker among them; ours divided by the system, in wall and in CPU
time, each the median of the rounds' ratios; pixels that differ from one machine's.

    .venv/bin/python benchmarks/bench_systems.py [--megapixels 24] [--pipelines invert canny]
        [--rounds 9] [--systems bare bare+work] [--against REVISION-OR-FOLDER]

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
from system import MODULES, Figures, Started, Task

DEVICES = 3


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
    def wrong(self) -> str:
        return "-" if self.theirs[-1].wrong is None else str(self.theirs[-1].wrong)


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def measure(systems: list[Started], pipeline: str, megapixels: int, rounds: int) -> list[Row]:
    """Measure the systems in turns; the first is ours, and the bare transport repeats its tiles."""
    task = Task(pipeline, megapixels)
    first = systems[0].warm(task)
    task = replace(task, tiles=first.tiles, bytes_back=first.bytes_back)
    for system in systems[1:]:
        system.warm(task)
    figures: dict[str, list[Figures]] = {system.name: [] for system in systems}
    for number in range(rounds):
        shift = number % len(systems)
        for system in systems[shift:] + systems[:shift]:
            figures[system.name].append(system.job(task))
    return [Row(name, theirs, figures[systems[0].name]) for name, theirs in figures.items()]


def print_rows(rows: list[Row], pipeline: str, megapixels: int) -> None:
    tiles = rows[0].theirs[-1].tiles
    title = f"{megapixels} MP {pipeline}"
    print(f"\n{title:22} {'wall s':>8} {'CPU s':>8} {'÷ wall':>8} {'÷ CPU':>8} {'wrong px':>9}")
    for row in rows:
        ratios = f"{row.wall_ratio:8.2f} {row.cpu_ratio:8.2f}" if row is not rows[0] else " " * 17
        print(f"  {row.name:20} {row.wall_s:8.3f} {row.cpu_s:8.3f} {ratios} {row.wrong:>9}")
    print(f"  {tiles} tiles, {len(rows[0].ours)} rounds, load {os.getloadavg()[0]:.1f}", flush=True)


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
