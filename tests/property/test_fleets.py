"""Whatever the fleet, its faults and the jobs: every job ends once, whole, and near its bound.

FOG_FLEETS=10000 plays so many instead of a hundred. `make fleets` does, on all cores.
"""

from __future__ import annotations

import math
import os
import random

import pytest

from fogmqtt.simulate.fleet import DeviceSpec, FleetSpec
from fogmqtt.simulate.outcome import simulate
from fogmqtt.simulate.work import even_job
from tests.fleets import BEYOND, RATIO, Verdict, again, judge_all

COUNT = int(os.environ.get("FOG_FLEETS", "100"))


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    return list(judge_all(range(COUNT), processes=1 if COUNT < 1000 else os.cpu_count() or 1))


@pytest.mark.timeout(600)
def test_every_job_ends_once_with_every_tile_merged_once(verdicts):
    fouls = [f"{again(one.seed)}: {one.foul}" for one in verdicts if one.foul]
    assert fouls == []


def test_no_innocent_device_goes_to_quarantine(verdicts):
    jailed = [again(one.seed) for one in verdicts if one.quarantined_s > 0]
    assert jailed == []


def test_no_run_beats_its_bound(verdicts):
    assert [again(one.seed) for one in verdicts if one.ratio < 1] == []


def test_the_makespan_stays_near_the_bound(verdicts):
    ratios = sorted(one.ratio for one in verdicts if not one.foul)
    assert ratios[len(ratios) // 2] <= 1.05
    over = [again(one.seed) for one in verdicts if one.ratio > RATIO]
    assert len(over) <= math.ceil(BEYOND * len(ratios)), over
    assert ratios[-1] <= 2.0, max(verdicts, key=lambda one: one.ratio)


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_a_thousand_devices_do_a_hundred_thousand_tiles_near_the_bound():
    chance = random.Random(1)
    speeds = [math.exp(chance.uniform(math.log(1e6), math.log(10e6))) for _ in range(1000)]
    fleet = FleetSpec(
        tuple(DeviceSpec(f"d{i}", one, overhead_ms=0.2) for i, one in enumerate(speeds))
    )
    outcome = simulate(fleet, [even_job("job", 100_000, 800_000)], seed=1)
    assert outcome.done
    assert outcome.ratio <= 1.02, outcome.verdict
