"""What is held against a tile, and when it ends the job."""

from __future__ import annotations

import pytest

from fogmqtt.core.scheduling.actions import (
    Action,
    CancelTile,
    FailJob,
    FinishJob,
    KeepResult,
    Quarantine,
)
from fogmqtt.core.scheduling.events import JobCancelled
from fogmqtt.core.scheduling.progress import JobState
from tests.scheduling import Bench, devices, only, sent


def test_a_failed_tile_waits_a_moment_and_goes_to_another_device():
    bench = Bench()
    bench.join("eya")
    first = only(bench.submit())
    bench.join("manar")
    assert bench.fail(first, at=1) == []
    assert bench.scheduler.next_wakeup() == pytest.approx(1.2)
    assert devices(bench.tick(at=1.2)) == ["manar"]


def test_a_lone_device_gets_its_failed_tile_again_after_longer_and_longer_waits():
    bench = Bench(max_failures=10, quarantine_after=99)
    bench.join("eya")
    order = only(bench.submit())
    waits = []
    for _ in range(7):
        bench.fail(order)
        wakeup = bench.scheduler.next_wakeup()
        waits.append(wakeup - bench.now)
        order = only(bench.tick(at=wakeup))
    assert waits == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])


def test_a_tile_that_fails_everywhere_fails_its_job_and_the_reason_quotes_the_event_log():
    bench = Bench(max_failures=2)
    bench.join("eya")
    bench.join("manar")
    orders = {order.device: order for order in sent(bench.submit(2))}
    for order in orders.values():
        bench.accept(order)
    bench.fail(orders["eya"], at=1, reason="ValueError: bad kernel")
    again = only(bench.tick(at=1.2))
    assert (again.device, again.tile, again.attempt) == ("manar", orders["eya"].tile, 2)
    actions = bench.fail(again, at=2, reason="MemoryError")
    assert actions[0] == CancelTile("job", orders["manar"].tile, 1, "manar")
    assert isinstance(actions[1], FailJob)
    assert actions[1].reason.splitlines() == [
        "tile 0 failed 2 times: eya: ValueError: bad kernel; manar: MemoryError",
        "  +1.00 s eya failed: ValueError: bad kernel (tile 0, attempt 1)",
        "  +2.00 s manar failed: MemoryError (tile 0, attempt 2)",
    ]
    assert bench.scheduler.progress("job").state is JobState.FAILED
    assert len(bench.scheduler.event_log("job")) == 2
    assert len(actions) == 2


def test_a_lone_device_is_judge_enough():
    bench = Bench(max_failures=1)
    bench.join("eya")
    (failed,) = bench.fail(only(bench.submit()))
    assert failed.reason.startswith("tile 0 failed once: eya: ValueError")


def test_one_device_is_no_judge_where_another_could_try():
    bench = Bench(max_failures=2, quarantine_after=99)
    bench.join("eya")
    bench.fail(only(bench.submit()))
    again = only(bench.tick(at=1))
    assert again.device == "eya"
    bench.join("manar")
    assert bench.fail(again, at=2) == []
    assert devices(bench.tick(at=3)) == ["manar"]


def test_a_second_opinion_is_waited_for_even_through_a_quarantine():
    bench = Bench(max_failures=2, quarantine_after=2)
    bench.join("manar")
    bench.submit(job="other")
    bench.check_in("manar", at=4)
    bench.tick(at=5)  # a silence
    bench.check_in("manar", at=5.5)
    bench.lose("manar", at=6)
    bench.join("manar", boot="2")
    assert bench.scheduler.quarantined() == {"manar"}
    bench.feed(JobCancelled("other"))
    bench.join("eya")
    first = only(bench.submit())
    bench.fail(first)
    assert sent(bench.tick(at=7)) == []  # eya is idle, and has had its say
    assert devices(bench.tick(at=16)) == ["manar"]


def test_a_second_opinion_that_never_comes_is_not_waited_for_for_ever():
    bench = Bench(max_failures=2, quarantine_after=99, accept_max_s=5)
    bench.join("eya")
    bench.join("silent")
    bench.submit()
    failed: list[Action] = []
    failures = 0
    while not failed:
        for order in sent(bench.tick(at=bench.scheduler.next_wakeup())):
            if order.device == "eya":
                failures += 1
                failed = bench.fail(order)
    assert failures == 4
    assert isinstance(failed[0], FailJob)


def test_a_worker_killed_at_its_deadline_tells_why_and_is_held_to_account_once():
    bench = Bench(max_failures=1, max_expiries=2, quarantine_after=2)
    bench.join("eya")
    bench.join("manar")
    first = sent(bench.submit(2))[0]
    bench.accept(first, at=0)
    bench.tick(at=30)  # the lease ends
    assert bench.fail(first, at=30.1, reason="killed after 30 s") == []
    assert bench.scheduler.quarantined() == frozenset()
    assert any("eya failed: killed after 30 s" in line for line in bench.scheduler.event_log("job"))


def test_a_device_whose_tile_ended_its_job_may_still_tell_why():
    bench = Bench(max_expiries=1)
    bench.join("eya")
    order = only(bench.submit())
    bench.accept(order)
    assert isinstance(bench.tick(at=30)[-1], FailJob)
    bench.fail(order, at=31, reason="killed after 30 s")
    assert bench.scheduler.fleet_event_log()[-1].endswith("does not hold: killed after 30 s")


def test_a_failure_that_comes_after_a_loss_is_not_held_against_the_tile_twice():
    bench = Bench(max_failures=1, quarantine_after=2)
    bench.join("eya")
    order = only(bench.submit())
    bench.accept(order)
    bench.lose("eya", at=1)
    bench.join("manar", at=2)
    assert bench.fail(order, at=3) == []
    assert bench.scheduler.quarantined() == frozenset()


def test_a_failure_that_comes_after_the_lease_ended_counts_once():
    bench = Bench(max_failures=2, quarantine_after=99)
    bench.join("eya")
    first = only(bench.submit())
    bench.tick(at=5)  # not accepted, and sent again
    assert bench.fail(first, at=6) == []
    assert bench.fail(first, at=7) == []
    assert any("failed tile 0 of job" in line for line in bench.scheduler.fleet_event_log())


def test_a_late_failure_of_a_tile_that_is_done_counts_against_the_device_only():
    bench = Bench(max_failures=1, quarantine_after=1, hedge_min_s=0)
    bench.measured("slow", seconds=1)
    first, second = sent(bench.submit(2))
    bench.accept(first)
    bench.accept(second)
    copies = sent(bench.join("fast", at=bench.now + 2))
    copy = next(one for one in copies if one.tile == first.tile)
    bench.answer(copy, at=bench.now + 1)
    assert any(isinstance(one, Quarantine) for one in bench.fail(first))
    assert bench.scheduler.progress("job").done == 1


def test_a_failure_of_a_copy_leaves_the_original_at_work():
    bench = Bench(max_failures=1)
    bench.measured("eya", seconds=1)
    first = only(bench.submit())
    bench.accept(first)
    copy = only(bench.join("manar", at=bench.now + 2))
    assert bench.fail(copy) == []
    assert bench.answer(first) == [KeepResult("job", 0, 1, "eya"), FinishJob("job", 2)]


def test_a_tile_that_hangs_whoever_takes_it_fails_its_job():
    bench = Bench(max_expiries=2, quarantine_after=99)
    bench.join("eya")
    bench.accept(only(bench.submit()), at=0)
    bench.accept(only(bench.tick(at=30)), at=30)
    failed = bench.tick(at=bench.scheduler.next_wakeup())[-1]
    assert isinstance(failed, FailJob)
    assert failed.reason.startswith("tile 0 was accepted 2 times and never answered: eya: no")


def test_a_device_too_slow_for_its_lease_gets_a_longer_one_until_it_can_finish():
    bench = Bench()
    bench.join("slow")
    bench.accept(only(bench.submit()), at=0)
    again = only(bench.tick(at=30))
    bench.accept(again)
    assert bench.scheduler.next_wakeup() == 30 + 4 * 30
    assert FinishJob("job", 130) in bench.answer(again, at=130)


def test_what_waited_behind_the_tile_in_hand_is_not_blamed_for_a_death():
    bench = Bench(max_losses=1)
    bench.join("eya")
    for order in sent(bench.submit(1, job="first")) + sent(bench.submit(1, job="second")):
        bench.accept(order)
    assert [one.job for one in bench.lose("eya", at=1) if isinstance(one, FailJob)] == ["first"]


@pytest.mark.parametrize("accepted", [1, 3])
def test_a_device_that_dies_with_several_tiles_of_a_job_fails_it_once(accepted):
    bench = Bench(max_losses=1)
    bench.join("eya")
    for order in sent(bench.submit(9))[:accepted]:
        bench.accept(order)
    assert [type(action) for action in bench.lose("eya", at=1)] == [FailJob]
    bench.submit(job="next")
    assert {order.job for order in sent(bench.join("eya", boot="2", at=2))} == {"next"}


def test_what_hung_too_often_gets_no_more_copies_and_ends_with_its_last_lease():
    bench = Bench(max_expiries=2, first_lease_s=3, accept_s=1, quarantine_after=99)
    for device in ("eya", "manar", "oumayma"):
        bench.join(device)
    orders = sent(bench.submit())
    for _ in range(40):
        for order in orders:
            bench.accept(order)
        actions = bench.tick(at=bench.scheduler.next_wakeup())
        orders = sent(actions)
        if any(isinstance(one, FailJob) for one in actions):
            break
    assert any(isinstance(one, FailJob) for one in actions)
    assert bench.now < 15


def test_what_a_device_died_of_gets_no_more_copies_and_ends_with_its_last_lease():
    bench = Bench(max_losses=1)
    bench.measured("slow", seconds=1)
    first = only(bench.submit())
    bench.accept(first)
    begin = bench.now
    bench.join("fast", at=begin + 1)
    copy = only(bench.tick(at=begin + 2))
    bench.accept(copy)
    assert bench.join("slow", boot="2", at=begin + 2.1) == []
    bench.join("third", at=begin + 2.2)
    for seconds in range(3, 6):
        assert sent(bench.tick(at=begin + seconds)) == []
    assert [type(action) for action in bench.lose("fast", at=begin + 6)] == [FailJob]
