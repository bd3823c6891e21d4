"""The rules by which `make proof` judges the figures of the benchmarks."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

JUDGE = Path(__file__).parents[2] / "benchmarks" / "judge.py"
WRITTEN = {"wall": 1.0, "cpu": 2.0}


@pytest.fixture(scope="module")
def judge() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_judge", JUDGE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def seen(judge: ModuleType, *attempts: tuple[dict[str, float], float]) -> tuple[object, int]:
    """Return the verdict on these attempts, and how many of them were made."""
    coming = iter([judge.Measured(figures, others=others) for figures, others in attempts])
    verdict = judge.Verdict(WRITTEN)
    return verdict, len(list(judge.attempts(lambda: next(coming), verdict)))


def test_a_figure_may_be_15_percent_worse(judge):
    verdict, made = seen(judge, ({"wall": 1.14, "cpu": 2.29}, 0.0))
    assert (verdict.worse, made) == ({}, 1)


def test_a_figure_that_is_worse_three_times_fails(judge):
    verdict, made = seen(judge, *[({"wall": worse}, 0.0) for worse in (1.4, 1.2, 1.3)])
    assert (verdict.worse, made) == ({"wall": 1.2}, 3)


def test_one_good_attempt_is_enough(judge):
    verdict, made = seen(judge, ({"wall": 1.4}, 0.0), ({"wall": 1.1}, 0.0))
    assert (verdict.worse, made) == ({}, 2)


def test_wall_times_are_not_judged_while_other_programs_are_busy(judge):
    verdict, made = seen(judge, ({"wall": 3.0, "cpu": 2.0}, 0.8))
    assert (verdict.worse, verdict.not_judged, made) == ({}, {"wall"}, 1)


def test_cpu_times_are_judged_while_other_programs_are_busy(judge):
    verdict, made = seen(judge, *[({"cpu": 3.0}, 0.8)] * 3)
    assert (verdict.worse, made) == ({"cpu": 3.0}, 3)


def test_a_figure_that_was_not_written_down_is_not_judged(judge):
    verdict, made = seen(judge, ({"new": 9.0}, 0.0))
    assert (verdict.worse, verdict.not_judged, made) == ({}, set(), 1)
