"""Prints the figures by which fogmqtt is judged, and compares them with those written down.

    .venv/bin/python benchmarks/table.py --quick    the ratios of `make bench-quick`
    .venv/bin/python benchmarks/table.py            all figures
    .venv/bin/python benchmarks/table.py --write    the same; writes figures.json, the table in
                                                    README.md and the picture
    .venv/bin/python benchmarks/table.py --check    for `make proof`: fails if a ratio is 15 % worse
                                                    than the one written down

`--check` measures a group of ratios up to three times before one of them fails. It does not judge
wall times while other programs use more than a tenth of the cores, and nothing on a machine with
another number of cores: the figures were not written down for those. CPU ratios it always judges.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from judge import ATTEMPTS, WORSE, Measured, Verdict, attempts
from measures import ALL, CHECKED, GOALS, QUICK

from fogmqtt.process_tuning import tune

HERE = Path(__file__).parent
FIGURES = HERE / "figures.json"
README = HERE / "README.md"
#: The lines of README.md around the table.
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"


def run(measurements: Iterable[Callable[[], Measured]]) -> Measured:
    """Run measurements one after the other."""
    measured = Measured()
    for measurement in measurements:
        measured.add(measurement())
    return measured


def show(measured: Measured, written: dict[str, float]) -> None:
    """Print each figure beside its goal, the one written down, and the peers'."""
    print(f"\n{'':68} {'must':>6} {'now':>6} {'was':>6}")
    for key, goal in GOALS.items():
        if key in measured.figures:
            must = "" if goal.must is None else f"{goal.must:g}"
            was = f"{written[key]:.2f}" if key in written else ""
            beside = _beside(measured.beside.get(key, {}))
            print(f"{goal.title:68} {must:>6} {measured.figures[key]:6.2f} {was:>6}  {beside}")
    for remark in measured.remarks:
        print(remark)
    print(f"load {os.getloadavg()[0]:.1f}; others used {measured.others:.0%} of the cores")


def _beside(peers: dict[str, float]) -> str:
    return ", ".join(f"{name} {ratio:.2f}" for name, ratio in peers.items())


def check(written: dict[str, Any]) -> bool:
    """Return whether no judged ratio is too much worse, and print what was seen."""
    if written["taken"]["cores"] != os.cpu_count():
        print(
            f"the figures were written down on {written['taken']['cores']} cores, and this machine "
            f"has {os.cpu_count()}: nothing is judged"
        )
        return True
    passed = [_passes(group, written["figures"]) for group in CHECKED]
    return all(passed)


def _passes(measure: Callable[[], Measured], written: dict[str, float]) -> bool:
    verdict = Verdict(written)
    for number, measured in enumerate(attempts(measure, verdict), 1):
        show(measured, written)
        for key, best in verdict.worse.items():
            print(
                f"attempt {number} of {ATTEMPTS}: {GOALS[key].title}: {best:.2f} is more than "
                f"{WORSE:g} times {written[key]:.2f}, which was written down"
            )
    for key in sorted(verdict.not_judged):
        print(f"not judged, since other programs keep this machine busy: {GOALS[key].title}")
    return not verdict.worse


def write(measured: Measured) -> None:
    """Write down the figures, the table and the picture."""
    from picture import draw

    written = {
        "taken": _taken(measured),
        "figures": {key: round(value, 3) for key, value in measured.figures.items()},
        "beside": {
            key: {name: round(value, 3) for name, value in peers.items()}
            for key, peers in measured.beside.items()
        },
        "systems": measured.systems,
    }
    FIGURES.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", "utf-8")
    before, _, rest = README.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(before + BEGIN + "\n".join(_table(written)) + "\n" + END + after, "utf-8")
    draw(written, HERE / "figures.svg")


def _taken(measured: Measured) -> dict[str, Any]:
    revision = subprocess.run(
        ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"],
        check=False,
        capture_output=True,
        text=True,
    )
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "day": datetime.now(UTC).date().isoformat(),
        "revision": revision.stdout.strip() or "unknown",
        "load": round(os.getloadavg()[0], 1),
        "others": round(measured.others, 2),
    }


def _table(written: dict[str, Any]) -> Iterable[str]:
    taken, figures = written["taken"], written["figures"]
    yield "| figure | must be at most | is | others |"
    yield "|---|---|---|---|"
    for key, goal in GOALS.items():
        if key in figures:
            must = "" if goal.must is None else f"{goal.must:g}"
            beside = _beside(written["beside"].get(key, {}))
            yield f"| {goal.title} | {must} | {figures[key]:.2f} | {beside} |"
    yield ""
    yield "| 24 MP | wall s | CPU s | wrong pixels |"
    yield "|---|---|---|---|"
    for pipeline, systems in written["systems"].items():
        for name, seen in systems.items():
            wrong = "-" if seen["wrong"] is None else seen["wrong"]
            yield f"| {pipeline}, {name} | {seen['wall_s']:.3f} | {seen['cpu_s']:.3f} | {wrong} |"
    yield ""
    yield (
        f"Taken on {taken['day']} at {taken['revision']}, {taken['cores']} cores, "
        f"{taken['system']}; load {taken['load']}, other programs used up to "
        f"{taken['others']:.0%} of the cores."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    for option in ("--quick", "--write", "--check"):
        what.add_argument(option, action="store_true")
    options = parser.parse_args()
    tune()
    written = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {"figures": {}}
    if options.check:
        sys.exit(0 if check(written) else 1)
    measured = run(QUICK if options.quick else ALL)
    show(measured, written["figures"])
    if options.write:
        write(measured)


if __name__ == "__main__":
    main()
