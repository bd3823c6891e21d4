"""Prints the figures by which fogmqtt is judged, and compares them with those written down.

    .venv/bin/python benchmarks/table.py --quick    the ratios of `make bench-quick`
    .venv/bin/python benchmarks/table.py            all figures
    .venv/bin/python benchmarks/table.py --write    the same; writes figures.json, the table in
                                                    README.md and the picture
    .venv/bin/python benchmarks/table.py --check    for `make proof`: fails if a ratio is 15 % worse
                                                    than the one written down
    .venv/bin/python benchmarks/table.py --only idle memory [--write]
                                                    the figures of these groups

`--check` measures a group of ratios up to three times before one of them fails. It judges wall
times only if other programs use less than a tenth of the cores, and did so when the figure was
written down; ratios of CPU time, if the two shares differ by a quarter at most; and nothing on a
machine with another number of cores. On another kind of processor, only a ratio that is twice the
one written down fails. `--write` takes the median of three measurements of these groups, and keeps
the worst of them: that is what `--check` compares with, since a peer may be lucky once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from judge import (
    ATTEMPTS,
    WORSE,
    WORSE_ELSEWHERE,
    Measured,
    Verdict,
    Written,
    attempts,
    median,
)
from measures import GOALS, GROUPS, JUDGED, QUICK

from fogmqtt.process_tuning import tune

HERE = Path(__file__).parent
FIGURES = HERE / "figures.json"
README = HERE / "README.md"
#: The lines of README.md around the table.
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"


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
    if written["cores"] != os.cpu_count():
        print(
            f"the figures were written down on {written['cores']} cores, and this machine has "
            f"{os.cpu_count()}: nothing is judged"
        )
        return True
    here = processor()
    by_key = {}
    for key, figure in written["figures"].items():
        taken = written["taken"][key]
        worse = WORSE if taken["processor"] == here else WORSE_ELSEWHERE
        by_key[key] = Written(figure, taken["others"], written["worst"].get(key, figure), worse)
    passed = [_passes(GROUPS[name], by_key) for name in JUDGED]
    return all(passed)


def _passes(measure: Callable[[], Measured], written: dict[str, Written]) -> bool:
    verdict = Verdict(written)
    for number, measured in enumerate(attempts(measure, verdict), 1):
        show(measured, {key: was.figure for key, was in written.items()})
        for key, best in verdict.worse.items():
            print(
                f"attempt {number} of {ATTEMPTS}: {GOALS[key].title}: {best:.2f} is more than "
                f"{written[key].worse:g} times {written[key].worst:.2f}, which was written down"
            )
    for key in sorted(verdict.not_judged):
        print(
            f"not judged: {GOALS[key].title}: other programs use {measured.others:.0%} of the "
            f"cores; when the figure was written down, {written[key].others:.0%}"
        )
    return not verdict.worse


def write(measured: Measured, written: dict[str, Any]) -> None:
    """Add figures to those written down, and write the file and the table."""
    written["cores"] = os.cpu_count()
    written["taken"] = written.get("taken", {}) | dict.fromkeys(measured.figures, _taken(measured))
    written["figures"] |= {key: round(value, 3) for key, value in measured.figures.items()}
    worst = {key: round(value, 3) for key, value in measured.worst.items()}
    written["worst"] = written.get("worst", {}) | worst
    beside = written.setdefault("beside", {})
    for key, peers in measured.beside.items():
        beside[key] = {name: round(value, 3) for name, value in peers.items()}
    written["systems"] = written.get("systems", {}) | measured.systems
    FIGURES.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", "utf-8")
    before, _, rest = README.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(before + BEGIN + "\n".join(_table(written)) + "\n" + END + after, "utf-8")


def _taken(measured: Measured) -> dict[str, Any]:
    """Return the revision of the code, and how busy the machine was."""
    revision = subprocess.run(
        ["git", "-C", str(HERE.parent), "log", "-1", "--format=%h", "--", "fogmqtt"],
        check=False,
        capture_output=True,
        text=True,
    )
    return {
        "revision": revision.stdout.strip() or "a copy without history",
        "load": round(os.getloadavg()[0]),
        "others": round(measured.others, 2),
        "processor": processor(),
    }


def processor() -> str:
    """Return what tells kinds of processors apart. Ratios differ between them."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").partition("\n\n")[0].splitlines()
    except OSError:
        return platform.machine()
    known = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in known.items()}
    # The first four are those of x86-64, the others those of ARM.
    wanted = ("vendor_id", "cpu family", "model", "model name", "CPU implementer", "CPU part")
    return " ".join(fields[name] for name in wanted if name in fields) or platform.machine()


def _table(written: dict[str, Any]) -> Iterable[str]:
    figures = written["figures"]
    yield "| figure | must be at most | is | peers | load | others | at |"
    yield "|---|---|---|---|---|---|---|"
    for key, goal in GOALS.items():
        if key in figures:
            must = "" if goal.must is None else f"{goal.must:g}"
            beside = _beside(written["beside"].get(key, {}))
            taken = written["taken"][key]
            busy = f"{taken['load']} | {taken['others']:.0%} | {taken['revision']}"
            yield f"| {goal.title} | {must} | {figures[key]:.2f} | {beside} | {busy} |"
    yield ""
    yield "| 24 MP | wall s | CPU s | wrong pixels |"
    yield "|---|---|---|---|"
    for pipeline, systems in written["systems"].items():
        for name, seen in systems.items():
            wrong = "-" if seen["wrong"] is None else seen["wrong"]
            yield f"| {pipeline}, {name} | {seen['wall_s']:.3f} | {seen['cpu_s']:.3f} | {wrong} |"
    yield ""
    yield (
        f"Taken on {written['cores']} cores, {platform.system()} {platform.machine()}, Python "
        f"{platform.python_version()}. Load is the average of a minute, `others` the share of "
        "the cores that other programs used: on a busy machine wall times say little."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the figures down")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--quick", action="store_true", help="only the ratios of make bench-quick")
    what.add_argument("--check", action="store_true", help="judge the ratios of make proof")
    what.add_argument("--only", nargs="+", choices=GROUPS, help="only these groups of figures")
    options = parser.parse_args()
    tune()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # end all processes that were started
    written = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {"figures": {}}
    if options.check:
        sys.exit(0 if check(written) else 1)
    was, total = dict(written["figures"]), Measured()
    for name in QUICK if options.quick else options.only or GROUPS:
        times = ATTEMPTS if options.write and name in JUDGED else 1
        measured = median([GROUPS[name]() for _ in range(times)])
        total.add(measured)
        if options.write:  # at once: a later group may fail
            write(measured, written)
    show(total, was)
    if options.write:
        from picture import draw

        draw(written, HERE / "figures.svg")


if __name__ == "__main__":
    main()
