"""Columns beside ours: equal strips, and Dask."""

from __future__ import annotations

import importlib.util
import statistics

from emulated import Case
from strips import equal_strips

#: Each of Dask's workers takes a second of a core to start.
MOST_FOR_DASK = 16
NO_DASK = "no Dask here to compare with: pip install -e '.[compare]'"


def has_dask() -> bool:
    return importlib.util.find_spec("distributed") is not None


def compare(case: Case, rounds: int) -> str:
    """The medians of makespan / ideal; a dash where there is none."""
    return f" {_column(case, equal_strips(case, rounds))} {_column(case, _dask(case, rounds))}"


def _dask(case: Case, rounds: int) -> list[float]:
    if not has_dask() or len(case.speeds) > MOST_FOR_DASK:
        return []
    from dasked import run

    return run(case, rounds)


def _column(case: Case, seconds: list[float]) -> str:
    return f"{statistics.median(seconds) / case.ideal_s:7.3f}" if seconds else f"{'-':>7}"
