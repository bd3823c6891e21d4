"""The life of a tile: leases, results, failures, and how a job ends."""

from __future__ import annotations

import pytest

from fogmqtt.core.scheduling.actions import (
    CancelTile,
    DropResult,
    FinishJob,
    KeepResult,
    SendTile,
)
from fogmqtt.core.scheduling.events import (
    BrokerLost,
    JobCancelled,
    JobSubmitted,
    ResultArrived,
    Tick,
    TileFailed,
)
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.progress import DeviceProgress, JobState
from fogmqtt.core.scheduling.scheduler import Scheduler
from tests.scheduling import PIXELS, Bench, devices, only, sent


def test_a_tile_is_sent_accepted_answered_and_the_job_is_finished():
    bench = Bench()
    assert bench.join("eya") == []
    order = SendTile("job", 0, 1, "eya", lease_s=35)  # 5 s to accept, 30 s for unknown work
    assert bench.submit(at=1) == [order]
    assert bench.accept(order, at=2) == []
    assert bench.scheduler.next_wakeup() == 32
    assert bench.answer(order, at=3) == [KeepResult("job", 0, 1, "eya"), FinishJob("job", 2)]
    assert bench.scheduler.next_wakeup() is None


def test_a_job_waits_for_its_first_device():
    bench = Bench()
    assert bench.submit() == []
    assert only(bench.join("eya", at=1)).tile == 0


def test_a_result_without_acceptance_is_as_good():
    bench = Bench()
    bench.join("eya")
    assert FinishJob("job", 1) in bench.answer(only(bench.submit()), at=1)


def test_a_job_without_tiles_is_refused_and_changes_nothing():
    bench = Bench()
    with pytest.raises(ValueError, match="'job' has no tiles"):
        bench.submit(())
    bench.scheduler.check()
    bench.join("eya")
    assert devices(bench.submit()) == ["eya"]


def test_a_tile_without_pixels_is_refused():
    with pytest.raises(ValueError, match="without pixels: 0"):
        Bench().submit((5, 0))


def test_an_id_is_used_once_until_it_is_forgotten():
    bench = Bench()
    bench.join("eya")
    order = only(bench.submit())
    with pytest.raises(ValueError, match="'job' is known already"):
        bench.submit()
    bench.answer(order, at=1)
    with pytest.raises(ValueError, match="'job' is known already"):
        bench.submit()
    bench.scheduler.forget("job")
    assert devices(bench.submit()) == ["eya"]


def test_the_second_result_of_a_tile_is_a_duplicate():
    bench = Bench()
    bench.join("eya")
    first, _ = sent(bench.submit(2))
    assert bench.answer(first, at=1) == [KeepResult("job", 0, 1, "eya")]
    assert bench.answer(first, at=2) == [DropResult("job", 0, 1, "eya", "duplicate")]
    assert bench.scheduler.progress("job").duplicates == 1


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (ResultArrived("job", 0, 1, "mallory"), "never leased"),
        (ResultArrived("job", 0, 2, "eya"), "never leased"),
        (ResultArrived("job", 0, 0, "eya"), "never leased"),
        (ResultArrived("job", 999, 1, "eya"), "never leased"),
        (ResultArrived("job", -1, 1, "eya"), "never leased"),
        (ResultArrived("nothing", 0, 1, "eya"), "unknown job"),
    ],
)
def test_a_result_counts_only_from_a_device_that_was_granted_the_attempt(event, reason):
    bench = Bench()
    bench.join("eya")
    bench.join("mallory")
    bench.accept(only(bench.submit()))
    dropped = DropResult(event.job, event.tile, event.attempt, event.device, reason)
    assert bench.feed(event, at=1) == [dropped]


def test_results_of_ended_jobs_are_told_apart():
    bench = Bench(max_failures=1)
    bench.join("eya")
    finished, failed, cancelled = (only(bench.submit(job=name)) for name in ("a", "b", "c"))
    bench.answer(finished)
    bench.fail(failed)
    bench.feed(JobCancelled("c"))
    reasons = [bench.answer(order)[0].reason for order in (finished, failed, cancelled)]
    assert reasons == ["duplicate", "the job failed", "unknown job"]


def test_an_expired_lease_goes_to_another_device_and_the_first_is_told_to_stop():
    bench = Bench(hedging=False)
    bench.join("eya")
    bench.accept(only(bench.submit()), at=1)
    bench.join("manar", at=2)
    assert bench.tick(at=30.9) == []
    assert bench.tick(at=31) == [
        CancelTile("job", 0, 1, "eya", expired=True),
        SendTile("job", 0, 2, "manar", lease_s=35),
    ]


def test_a_late_result_is_kept_if_nobody_was_faster():
    bench = Bench()
    bench.join("eya")
    first = only(bench.submit())
    bench.accept(first, at=0)
    second = only(bench.tick(at=30))
    assert second.attempt == 2
    assert bench.answer(first, at=31) == [
        CancelTile("job", 0, 2, "eya"),
        KeepResult("job", 0, 1, "eya"),
        FinishJob("job", 31),
    ]
    assert any("answered late, and first" in line for line in bench.scheduler.event_log("job"))


def test_a_late_result_is_kept_while_the_tile_waits_out_its_back_off():
    bench = Bench()
    bench.join("eya")
    first = only(bench.submit())
    bench.accept(first, at=0)
    bench.fail(only(bench.tick(at=30)), at=31)
    assert bench.answer(first, at=31.1) == [
        KeepResult("job", 0, 1, "eya"),
        FinishJob("job", 31.1),
    ]
    assert bench.scheduler.next_wakeup() is None


def test_a_result_of_a_lost_device_is_kept():
    bench = Bench()
    bench.join("eya")
    order = only(bench.submit())
    bench.lose("eya", at=1)
    assert bench.answer(order, at=2) == [KeepResult("job", 0, 1, "eya"), FinishJob("job", 2)]


def test_a_result_that_comes_at_the_last_moment_is_not_late():
    bench = Bench()
    bench.join("eya")
    order = only(bench.submit())
    bench.accept(order, at=0)
    assert bench.answer(order, at=30) == [KeepResult("job", 0, 1, "eya"), FinishJob("job", 30)]


def test_a_tile_that_was_not_accepted_goes_to_another_device_without_blame_for_the_tile():
    bench = Bench(max_failures=1, max_losses=1, max_expiries=1, accept_s=2)
    bench.measured("eya", seconds=0)
    bench.submit()
    bench.join("manar", at=1)
    cancelled, again = bench.tick(at=2)
    assert cancelled == CancelTile("job", 0, 1, "eya")
    assert again == SendTile("job", 0, 2, "manar", lease_s=32)


def test_the_time_to_accept_doubles_at_each_silence_and_is_reset_by_an_acceptance():
    bench = Bench(quarantine_after=99, accept_max_s=12, starve_s=999)
    bench.join("eya")
    order = only(bench.submit())
    times = []
    for _ in range(3):
        times.append(bench.scheduler.next_wakeup())
        order = only(bench.tick(at=times[-1]))
    assert times == [5, 15, 27]
    bench.accept(order, at=28)
    assert only(bench.submit(job="next", at=28)).lease_s == 5 + 2 * 30


def test_tiles_sent_before_a_silence_was_noticed_belong_to_the_same_silence():
    bench = Bench(quarantine_after=2)
    bench.join("eya")
    assert len(sent(bench.submit(3))) == 3
    cancelled_and_sent = bench.tick(at=5)
    assert len(sent(cancelled_and_sent)) == 1  # one at a time, until it accepts
    assert bench.scheduler.quarantined() == frozenset()


def test_a_device_that_speaks_gets_more_time_for_what_is_still_on_its_way():
    bench = Bench()
    bench.join("eya")
    first, second, _ = sent(bench.submit(3))
    bench.accept(first, at=4)
    assert bench.tick(at=5) == []
    bench.accept(second, at=8)
    assert bench.tick(at=9) == []


def test_but_not_for_ever():
    bench = Bench(accept_max_s=10, hedge_min_s=100)
    bench.join("eya")
    first, *_, lost = sent(bench.submit(3))
    for second in range(1, 10):
        bench.accept(first, at=second)
    assert bench.tick(at=9.9) == []
    assert CancelTile("job", lost.tile, 1, "eya") in bench.tick(at=10)


def test_an_acceptance_that_comes_too_late_or_twice_changes_nothing():
    bench = Bench()
    bench.join("eya")
    first = only(bench.submit())
    second = only(bench.tick(at=5))
    assert bench.accept(first, at=6) == []
    bench.accept(second, at=7)
    wakeup = bench.scheduler.next_wakeup()
    assert bench.accept(second, at=8) == []
    assert bench.scheduler.next_wakeup() == wakeup


def test_losing_the_broker_blames_nobody_and_late_results_are_welcome():
    bench = Bench(max_failures=1, max_losses=1, quarantine_after=1)
    bench.join("eya")
    bench.join("manar")
    orders = sent(bench.submit(2))
    bench.accept(orders[0])
    assert bench.lose_the_broker(at=1) == []
    assert bench.scheduler.ready_devices() == frozenset()
    assert bench.scheduler.quarantined() == frozenset()
    assert bench.answer(orders[0], at=2) == [KeepResult("job", 0, 1, "eya")]
    again = only(bench.join("eya", at=3))
    assert (again.tile, again.attempt) == (1, 2)


def test_after_an_outage_a_device_goes_on_with_what_it_has():
    bench = Bench()
    bench.join("eya")
    bench.join("manar")
    orders = sent(bench.submit(6))
    for order in orders:
        bench.accept(order)
    bench.feed(BrokerLost())
    mine = {one.tile for one in orders if one.device == "manar"}
    assert {one.tile for one in sent(bench.join("manar", at=1))} == mine


def test_cancelling_a_job_takes_its_tiles_back_and_forgets_it():
    bench = Bench()
    bench.join("eya")
    bench.submit(2)
    assert bench.feed(JobCancelled("job"), at=1) == [
        CancelTile("job", 0, 1, "eya"),
        CancelTile("job", 1, 1, "eya"),
    ]
    assert bench.scheduler.next_wakeup() is None
    with pytest.raises(KeyError):
        bench.scheduler.progress("job")
    with pytest.raises(KeyError):
        bench.scheduler.event_log("job")


def test_cancelling_an_unknown_job_is_noted():
    bench = Bench()
    bench.feed(JobCancelled("nothing"), at=1)
    assert bench.scheduler.fleet_event_log() == (
        "+1.00 s job nothing was cancelled and is not running",
    )


def test_jobs_take_turns():
    bench = Bench(ahead=3)
    bench.submit(9, job="first")
    bench.submit(9, job="second")
    jobs = [order.job for order in sent(bench.join("eya"))]
    assert jobs == ["first", "second", "first", "second"]


def test_a_job_that_nobody_can_do_holds_up_no_other():
    bench = Bench()
    bench.submit(3, "canny", job="impossible")
    bench.submit(3, "blur", job="possible")
    assert {order.job for order in sent(bench.join("eya", "blur"))} == {"possible"}


def test_progress_says_who_did_what():
    bench = Bench()
    bench.join("eya")
    first, second = sent(bench.submit((100, 300)))
    bench.answer(first, at=1)
    bench.hand_back(second, at=1)
    again = only(bench.tick(at=1.2))
    running = bench.scheduler.progress("job")
    assert (running.state, running.done, running.total) == (JobState.RUNNING, 1, 2)
    bench.answer(again, at=2)
    ended = bench.scheduler.progress("job")
    assert ended.state is JobState.FINISHED
    assert ended.devices == {"eya": DeviceProgress(tiles=2, pixels=400)}
    assert (ended.retries, ended.hedges, ended.duplicates) == (1, 0, 0)


def test_the_progress_of_ended_jobs_is_kept_up_to_a_bound():
    scheduler = Scheduler(Policy(max_failures=1))
    for index in range(300):
        scheduler.handle(JobSubmitted(f"job{index}", "blur", (PIXELS,)), 0)
        scheduler.handle(JobCancelled(f"job{index}"), 0)
    bench = Bench()
    bench.join("eya")
    for index in range(257):
        bench.answer(only(bench.submit(job=f"job{index}")))
    assert bench.scheduler.progress("job1").done == 1
    with pytest.raises(KeyError):
        bench.scheduler.progress("job0")


def test_a_clock_that_goes_back_does_no_harm():
    bench = Bench()
    bench.join("eya", at=100)
    order = only(bench.submit(at=50))
    assert bench.answer(order, at=0) == [KeepResult("job", 0, 1, "eya"), FinishJob("job", 0)]


def test_what_devices_say_of_unknown_tiles_is_noted():
    bench = Bench()
    bench.join("eya")
    order = SendTile("job", 7, 1, "eya", 0)
    bench.accept(order)
    bench.hand_back(order)
    bench.feed(TileFailed("job", 7, 1, "eya", "no"))
    bench.feed(Tick())
    said = " ".join(bench.scheduler.fleet_event_log())
    for what in ("accepted", "returned", "failed"):
        assert f"eya {what} tile 7 of job (attempt 1), which it does not hold" in said
