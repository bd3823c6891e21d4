"""Runs tests/property/test_scheduler.py in a copy of the package, for tests/mutations.py.

    cd COPY && PYTHONPATH=COPY python -m tests.mutant COPY MODULE SEED

It runs the property test as pytest does, but stops at the first failure: nobody needs the shortest
example of it. The first line of output says that every module came from the copy. Exit code 0: the
test passed. Exit code 1: it failed, and the last line says why.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from hypothesis import Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

READY = "the copy is in place"
PROPERTY = "tests.property.test_scheduler"


def main(folder: str, module: str, number: str) -> int:
    copy = Path(folder).resolve()
    for name in ("fogmqtt", "fogmqtt.core.scheduling.scheduler", module, PROPERTY):
        _must_be_within(copy, name)
    print(READY, flush=True)
    test = importlib.import_module(PROPERTY)
    quick = settings(test.TestFog.settings, phases=[Phase.generate], database=None)
    try:
        run_state_machine_as_test(seed(int(number))(test.Fog), settings=quick)
    except Exception as error:  # noqa: BLE001 - pytest counts every exception as a failure
        print(f"{type(error).__name__}: {error}".splitlines()[0])
        return 1
    return 0


def _must_be_within(copy: Path, name: str) -> None:
    found = importlib.import_module(name).__file__
    if found is None or copy not in Path(found).resolve().parents:
        raise SystemExit(f"{name} was imported from {found}, not from the copy in {copy}")


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
