"""How long a job would take, asked before it is submitted."""

from __future__ import annotations

import pytest

from fogmqtt.core.scheduling.events import JobCancelled, JobSubmitted
from tests.scheduling import PIXELS, Bench, sent


def estimate(bench: Bench, tiles: int, *operators: str, kind: str = "blur") -> float | None:
    job = JobSubmitted("maybe", kind, (PIXELS,) * tiles, frozenset(operators))
    return bench.scheduler.estimate_s(job, bench.now)


def test_without_a_device_nothing_is_known():
    assert estimate(Bench(), 10) is None


def test_without_a_measurement_of_this_kind_nothing_is_known():
    bench = Bench()
    bench.measured("eya", seconds=1)
    assert estimate(bench, 10, kind="canny") is None


def test_an_idle_fleet_shares_the_tiles_by_speed():
    bench = Bench()
    bench.measured("fast", seconds=1)
    bench.measured("slow", seconds=3)
    assert estimate(bench, 40) == pytest.approx(30, rel=0.01)


def test_workers_count():
    bench = Bench()
    bench.measured("eya", seconds=1, workers=4)
    assert estimate(bench, 40) == pytest.approx(10, rel=0.01)


def test_an_unmeasured_device_counts_as_a_typical_one():
    bench = Bench()
    bench.measured("eya", seconds=1)
    bench.join("new")
    assert estimate(bench, 40) == pytest.approx(20, rel=0.01)


def test_devices_that_cannot_do_it_do_not_count():
    bench = Bench()
    bench.measured("eya", "canny", seconds=1)
    bench.measured("manar", seconds=1)
    assert estimate(bench, 10, "canny") == pytest.approx(10, rel=0.01)
    assert estimate(bench, 10, "dnn") is None


def test_the_work_of_other_jobs_counts_as_far_as_their_share_allows():
    bench = Bench()
    bench.measured("eya", seconds=1)
    bench.submit(100)
    # Half of the time is its own; three tiles are at the device already.
    assert 20 <= (estimate(bench, 10) or 0) <= 26


def test_the_first_tiles_way_counts():
    bench = Bench(probe_pixels=10_000)
    bench.join("far")
    (order,) = (one for one in bench.submit(1, job="first"))
    bench.accept(order, at=0.5)
    bench.answer(order, at=1)
    assert estimate(bench, 10) == pytest.approx(10.5, rel=0.01)


def test_asking_changes_nothing():
    bench = Bench()
    bench.measured("eya", seconds=1)
    assert estimate(bench, 10) == estimate(bench, 10)
    with pytest.raises(KeyError):
        bench.scheduler.progress("maybe")
    bench.scheduler.check()


def test_a_tile_that_was_taken_back_before_its_turn_says_nothing_of_the_speed():
    bench = Bench()
    bench.measured("eya", seconds=2)
    first, second = bench.submit(1, job="first"), bench.submit(1, job="second", kind="canny")
    for order in (*sent(first), *sent(second)):
        bench.accept(order)
    # The worker is expected to be busy with the first tile, whose job is cancelled, for a second.
    bench.feed(JobCancelled("first"), at=bench.now + 1)
    bench.feed(JobCancelled("second"), at=bench.now + 0.5)
    assert estimate(bench, 10, kind="canny") is None
    assert estimate(bench, 10) == pytest.approx(20, rel=0.1)
