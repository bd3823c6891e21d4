"""Checks that the property test of the scheduler catches bugs: plants one after the other.

    python -m tests.mutations                   every bug of tests/planted.py, two at a time
    python -m tests.mutations --only NAME …     only these bugs
    python -m tests.mutations --seed 17         with other examples

First, tests/property/test_scheduler.py must pass in a copy of the package without a bug. Then each
bug is planted in a copy of its own, and the test must fail there within ten runs. Exit code 1: a
bug survived. Exit code 2: a bug could not be planted, or the test fails without a bug.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mutant import READY
from tests.planted import BUGS, Bug
from tests.planting import NotPlantedError, plant

ROOT = Path(__file__).parents[1]
#: A run that takes longer counts as failed, as it does in pytest.
TIMEOUT_S = 120
_PROCESSES = 2
#: One run of examples may miss a bug that shows rarely.
_RUNS = 10
_NOT_COPIED = shutil.ignore_patterns("__pycache__", ".*")


class NotStartedError(Exception):
    """The property test did not start in a copy."""


@dataclass(frozen=True)
class Trial:
    """The outcome of the property test with one bug, or without any; `why` is its failure."""

    bug: Bug | None
    caught: bool
    seconds: float
    why: str = ""


@contextmanager
def copy_with(bug: Bug | None) -> Iterator[Path]:
    """A temporary folder with the package and the tests, and with the bug planted there."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name)
        for part in ("fogmqtt", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=_NOT_COPIED)
        if bug is not None:
            (folder / bug.path).write_text(plant(bug, folder), "utf-8")
        yield folder


def run_trial(bug: Bug | None, seed: int = 0) -> Trial:
    """Run the property test in a copy with this bug.

    Raises NotPlantedError for a bug that does not fit, NotStartedError if the test cannot run.
    """
    with copy_with(bug) as folder:
        began = time.monotonic()
        code, lines = _run(folder, bug.module if bug else "fogmqtt.core", seed)
        seconds = time.monotonic() - began
    if not lines or lines[0] != READY or code not in {0, 1}:
        name = bug.name if bug else "without a bug"
        raise NotStartedError(f"{name}: the property test did not start: {' '.join(lines)[-500:]}")
    return Trial(bug, code == 1, seconds, lines[-1])


def _run_until_caught(bug: Bug, seed: int) -> Trial:
    """Return the first run that caught the bug, or the last of `_RUNS` runs."""
    trial = run_trial(bug, seed)
    for offset in range(1, _RUNS):
        if trial.caught:
            break
        trial = run_trial(bug, seed + offset)
    return trial


def _run(folder: Path, module: str, seed: int) -> tuple[int, list[str]]:
    """Run tests/mutant.py. Returns its exit code and the lines that it printed."""
    command = [sys.executable, "-B", "-m", "tests.mutant", str(folder), module, str(seed)]
    # The order of sets decides, too, which examples are drawn: one seed gives one outcome.
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONHASHSEED": "0"}
    try:
        child = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, [READY, f"did not end within {TIMEOUT_S} s"]
    return child.returncode, child.stdout.splitlines()


def _report(trial: Trial) -> None:
    name = trial.bug.name if trial.bug else "(none)"
    verdict = f"caught   {trial.why[:70]}" if trial.caught else "SURVIVED"
    if trial.bug is None and not trial.caught:
        verdict = "passes"
    print(f"{name:<44} {trial.seconds:6.1f} s  {verdict}", flush=True)


def _chosen(names: Sequence[str]) -> list[Bug]:
    unknown = set(names) - {bug.name for bug in BUGS}
    if unknown:
        raise SystemExit(f"no such bug: {', '.join(sorted(unknown))}; see tests/planted.py")
    return [bug for bug in BUGS if not names or bug.name in names]


def _try_all(bugs: Sequence[Bug], seed: int) -> int:
    for bug in bugs:
        plant(bug, ROOT)
    unmutated = run_trial(None, seed)
    _report(unmutated)
    if unmutated.caught:
        print(f"the property test fails without a bug: {unmutated.why}", file=sys.stderr)
        return 2
    survived = []
    with ThreadPoolExecutor(_PROCESSES) as pool:
        for trial in pool.map(lambda bug: _run_until_caught(bug, seed), bugs):
            _report(trial)
            if trial.bug and not trial.caught:
                survived.append(trial.bug)
    print(f"{len(bugs) - len(survived)} of {len(bugs)} bugs were caught")
    for bug in survived:
        print(f"survived: {bug.name}: {bug.meaning}")
    return 1 if survived else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        return _try_all(_chosen(options.only), options.seed)
    except (NotPlantedError, NotStartedError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
