"""The rules by which `make proof` judges the figures of the benchmarks."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

JUDGE = Path(__file__).parents[2] / "benchmarks" / "judge.py"
BUSY = 0.8


@pytest.fixture(scope="module")
def judge() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_judge", JUDGE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def seen(
    judge: ModuleType, *attempts: tuple[dict[str, float], float], then: float = 0.0
) -> tuple[object, int]:
    """Return the verdict on attempts, by figures written at a share of others, and their number."""
    coming = iter([judge.Measured(figures, others=others) for figures, others in attempts])
    written = {"wall": judge.Written(0.9, then, 1.0), "cpu": judge.Written(1.8, then, 2.0)}
    verdict = judge.Verdict(written)
    return verdict, len(list(judge.attempts(lambda: next(coming), verdict)))


def test_a_figure_may_be_15_percent_worse(judge):
    verdict, made = seen(judge, ({"wall": 1.14, "cpu": 2.29}, 0.0))
    assert (verdict.worse, made) == ({}, 1)


def test_on_another_kind_of_processor_a_figure_may_be_twice_as_bad(judge):
    written = {"wall": judge.Written(0.9, 0.0, 1.0, judge.WORSE_ELSEWHERE)}
    for figure, worse in ((1.9, {}), (2.1, {"wall": 2.1})):
        verdict = judge.Verdict(written)
        verdict.add(judge.Measured({"wall": figure}))
        assert verdict.worse == worse


def test_the_median_of_several_measurements_is_written_down_with_the_worst(judge):
    runs = [judge.Measured({"wall": wall}, others=wall / 10) for wall in (1.3, 1.1, 1.2)]
    assert judge.median(runs) == judge.Measured({"wall": 1.2}, others=0.13, worst={"wall": 1.3})


def test_a_figure_that_is_worse_three_times_fails(judge):
    verdict, made = seen(judge, *[({"wall": worse}, 0.0) for worse in (1.4, 1.2, 1.3)])
    assert (verdict.worse, made) == ({"wall": 1.2}, 3)


def test_one_good_attempt_is_enough(judge):
    verdict, made = seen(judge, ({"wall": 1.4}, 0.0), ({"wall": 1.1}, 0.0))
    assert (verdict.worse, made) == ({}, 2)


def test_nothing_is_judged_on_a_machine_that_is_busier_than_then(judge):
    verdict, made = seen(judge, ({"wall": 3.0, "cpu": 9.0}, BUSY))
    assert (verdict.worse, verdict.not_judged, made) == ({}, {"wall", "cpu"}, 1)


def test_nothing_is_judged_by_figures_of_a_busier_machine(judge):
    verdict, made = seen(judge, ({"wall": 3.0, "cpu": 9.0}, 0.0), then=BUSY)
    assert (verdict.worse, verdict.not_judged, made) == ({}, {"wall", "cpu"}, 1)


def test_only_cpu_time_is_judged_on_a_machine_as_busy_as_then(judge):
    verdict, made = seen(judge, *[({"wall": 3.0, "cpu": 3.0}, BUSY)] * 3, then=BUSY - 0.2)
    assert (verdict.worse, verdict.not_judged, made) == ({"cpu": 3.0}, {"wall"}, 3)


def test_a_figure_that_was_not_written_down_is_not_judged(judge):
    verdict, made = seen(judge, ({"new": 9.0}, 0.0))
    assert (verdict.worse, verdict.not_judged, made) == ({}, set(), 1)
