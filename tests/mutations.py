"""Whether the property test of the scheduler would notice: plants one bug after the other.

    python -m tests.mutations                   every bug of tests/planted.py, two at a time
    python -m tests.mutations --only NAME …     these
    python -m tests.mutations --seed 17         with other examples

Each bug is put into a copy of the package, and tests/property/test_scheduler.py must fail there
within five runs; first it must hold in a copy without one. Exit code 1: a bug survived; 2: one
could not be planted, or the test does not hold without.
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

ROOT = Path(__file__).parents[1]
#: What pytest allows a test.
TIMEOUT_S = 120
_PROCESSES = 2
#: A bug of a rare kind may escape one run of examples, as it would one run of pytest.
_RUNS = 5
_NOT_COPIED = shutil.ignore_patterns("__pycache__", ".*")


class NotPlantedError(Exception):
    """A bug could not be planted: what its text was made for has changed."""


@dataclass(frozen=True)
class Trial:
    """What the property test said to a bug, or to none; `why` is its failure."""

    bug: Bug | None
    caught: bool
    seconds: float
    why: str = ""


def planted(bug: Bug, root: Path) -> str:
    """The source of the bug's module with the bug in it. Raises NotPlantedError."""
    source = (root / bug.path).read_text("utf-8")
    found = source.count(bug.old)
    if found != 1:
        raise NotPlantedError(f"{bug.name}: its text is {found} times in {bug.path}, not once")
    return source.replace(bug.old, bug.new)


@contextmanager
def copy_with(bug: Bug | None) -> Iterator[Path]:
    """A folder with the package, the tests and the bug."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name)
        for part in ("fogmqtt", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=_NOT_COPIED)
        if bug is not None:
            (folder / bug.path).write_text(planted(bug, folder), "utf-8")
        yield folder


def tried(bug: Bug | None, seed: int = 0) -> Trial:
    """Run the property test with this bug. Raises NotPlantedError where it cannot even start."""
    with copy_with(bug) as folder:
        began = time.monotonic()
        code, said = _run(folder, bug.module if bug else "fogmqtt.core", seed)
        seconds = time.monotonic() - began
    if not said or said[0] != READY or code not in {0, 1}:
        name = bug.name if bug else "the copy without a bug"
        raise NotPlantedError(f"{name} does not start: {' '.join(said)[-500:]}")
    return Trial(bug, code == 1, seconds, said[-1])


def _tried_often(bug: Bug, seed: int) -> Trial:
    """The first of so many runs that caught it, or else the last."""
    trial = tried(bug, seed)
    for again in range(1, _RUNS):
        if trial.caught:
            break
        trial = tried(bug, seed + again)
    return trial


def _run(folder: Path, module: str, seed: int) -> tuple[int, list[str]]:
    """The child's exit code, and what it said."""
    command = [sys.executable, "-B", "-m", "tests.mutant", str(folder), module, str(seed)]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    try:
        ended = subprocess.run(
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
        return 1, [READY, f"no end within {TIMEOUT_S} s"]
    return ended.returncode, ended.stdout.splitlines()


def _report(trial: Trial) -> None:
    name = trial.bug.name if trial.bug else "(none)"
    verdict = f"caught   {trial.why[:70]}" if trial.caught else "SURVIVED"
    if trial.bug is None and not trial.caught:
        verdict = "passes"
    print(f"{name:<44} {trial.seconds:6.1f} s  {verdict}", flush=True)


def _chosen(names: Sequence[str]) -> list[Bug]:
    strange = set(names) - {bug.name for bug in BUGS}
    if strange:
        raise SystemExit(f"no such bug: {', '.join(sorted(strange))}; see tests/planted.py")
    return [bug for bug in BUGS if not names or bug.name in names]


def _try_all(bugs: Sequence[Bug], seed: int) -> int:
    for bug in bugs:
        planted(bug, ROOT)
    sound = tried(None, seed)
    _report(sound)
    if sound.caught:
        print(f"the property test does not hold without a bug: {sound.why}", file=sys.stderr)
        return 2
    survived = []
    with ThreadPoolExecutor(_PROCESSES) as pool:
        for trial in pool.map(lambda bug: _tried_often(bug, seed), bugs):
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
    except NotPlantedError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
