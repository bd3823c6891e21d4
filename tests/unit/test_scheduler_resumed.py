"""A job of which an earlier life of the gateway did a part: only the rest is work."""

from __future__ import annotations

import pytest

from fogmqtt.core.scheduling.actions import DropResult, FinishJob, KeepResult
from fogmqtt.core.scheduling.events import DeviceRefuted, ResultArrived
from tests.scheduling import Bench, sent


def test_only_what_is_not_done_is_sent():
    bench = Bench(max_window=8)
    bench.join("eya", workers=4)
    orders = sent(bench.submit(4, done=frozenset({0, 2})))
    assert [order.tile for order in orders] == [1, 3]
    bench.answer(orders[0], at=1)
    assert bench.answer(orders[1], at=2) == [KeepResult("job", 3, 1, "eya"), FinishJob("job", 2)]


def test_a_job_all_of_whose_tiles_are_done_finishes_at_once():
    bench = Bench()
    assert bench.submit(3, done=frozenset(range(3)), at=5) == [FinishJob("job", 0)]
    assert bench.scheduler.next_wakeup() is None
    assert (bench.scheduler.progress("job").done, bench.scheduler.progress("job").total) == (3, 3)


def test_what_was_done_counts_as_done_and_is_credited_to_nobody():
    bench = Bench()
    bench.submit(4, done=frozenset({1}))
    progress = bench.scheduler.progress("job")
    assert (progress.done, progress.total, progress.devices) == (1, 4, {})


def test_a_result_for_a_done_tile_is_nobodys():
    bench = Bench()
    bench.join("eya")
    bench.submit(2, done=frozenset({0}))
    (dropped,) = bench.feed(ResultArrived("job", 0, 1, "eya"), at=1)
    assert dropped == DropResult("job", 0, 1, "eya", "never leased")


def test_who_is_refuted_loses_nothing_that_was_done_before():
    bench = Bench()
    bench.join("eya")
    bench.submit(2, done=frozenset({0}))
    bench.feed(DeviceRefuted("job", "eya", "lied"), at=1)
    assert bench.scheduler.progress("job").done == 1


@pytest.mark.parametrize("done", [{2}, {-1}, {0, 5}])
def test_done_tiles_that_are_none_are_refused(done):
    with pytest.raises(ValueError, match="'job' has 2 tiles, and"):
        Bench().submit(2, done=frozenset(done))


def test_a_done_tile_has_no_check_tile():
    with pytest.raises(ValueError, match="'job' has 2 tiles and the check tiles"):
        Bench().submit(2, check_tiles=(0,), done=frozenset({0}))
