"""Real processes, a real broker, and faults by the seed.

Run: python -m tests.chaos [--seed 7] [--seeds 10] [--faults 24] [--report chaos]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from fogmqtt.images.drawing import png, svg
from tests.chaos.play import QUIET_S, Played, play
from tests.chaos.report import kinds, problems, table, timeline
from tests.chaos.schedule import drawn


def main() -> int:
    options = _options()
    seeds = [options.seed] if options.seed is not None else range(1, options.seeds + 1)
    options.report.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in seeds:
        runs.append(_run(seed, options))
        _write(runs, options.report)
        print(table(runs[-1:]), flush=True)
    print(table(runs))
    return 0 if all(run.is_good for run in runs) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--seeds", type=int, default=10, help="from 1 to this")
    parser.add_argument("--faults", type=int, default=24, help="of each seed")
    parser.add_argument("--jobs", type=int, default=24, help="of each seed")
    parser.add_argument("--length", type=float, default=30.0, help="seconds in which they fall")
    parser.add_argument("--quiet", type=float, default=QUIET_S, help="seconds to end in, after")
    parser.add_argument("--only", action="append", help="only faults of this kind; repeatable")
    parser.add_argument("--report", type=Path, default=Path("chaos"), help="a folder")
    return parser.parse_args()


def _run(seed: int, options: argparse.Namespace) -> Played:
    schedule = drawn(seed, faults=options.faults, jobs=options.jobs, length_s=options.length)
    if options.only:
        faults = tuple(fault for fault in schedule.faults if fault.kind in options.only)
        schedule = replace(schedule, faults=faults)
    facts = (
        f"persistence {schedule.persistence}, MQTT {schedule.protocol}, {schedule.encoding}, "
        f"local {schedule.local}"
    )
    print(f"== seed {seed}: {facts}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fogmqtt-chaos-", ignore_cleanup_errors=True) as folder:
        run = play(schedule, Path(folder), lambda line: print(line, flush=True), options.quiet)
        if not run.is_good:
            _keep_logs(Path(folder), options.report / f"seed-{seed}")
    for problem in problems(run):
        print(f"!! {problem}", flush=True)
    return run


def _keep_logs(folder: Path, kept: Path) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    for log in (*folder.glob("*.log"), *folder.glob("broker/*.log")):
        (kept / log.name).write_bytes(log.read_bytes())


def _write(runs: list[Played], folder: Path) -> None:
    found = "\n".join(f"- {problem}" for run in runs for problem in problems(run))
    text = (
        f"# Chaos\n\n{table(runs)}\n{kinds(runs)}\n## What must not be\n\n{found or 'Nothing.'}\n"
    )
    (folder / "report.md").write_text(text, "utf-8")
    drawing = timeline(runs[-1])
    name = f"seed-{runs[-1].schedule.seed}"
    (folder / f"{name}.png").write_bytes(png(drawing))
    (folder / f"{name}.svg").write_text(svg(drawing), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
