"""What is held against a device: quarantine, death, draining, silence; and who starves."""

from __future__ import annotations

import pytest

from fogmqtt.core.scheduling.actions import (
    FailJob,
    KeepResult,
    Quarantine,
    ReportStarved,
    SendTile,
)
from fogmqtt.core.scheduling.events import DeviceJoined, DeviceLost, JobCancelled
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.progress import JobState
from fogmqtt.core.scheduling.scheduler import Scheduler
from tests.scheduling import Bench, devices, only, sent


def quarantines(actions: list[object]) -> list[float]:
    return [action.seconds for action in actions if isinstance(action, Quarantine)]


def test_a_lost_devices_tiles_go_to_others_at_once():
    bench = Bench()
    bench.join("eya")
    bench.submit(2)
    bench.join("manar")
    assert {order.tile for order in sent(bench.lose("eya", at=1))} == {0, 1}


def test_a_device_that_restarted_holds_nothing_of_what_it_was_sent():
    bench = Bench()
    bench.join("eya", boot="1")
    bench.submit()
    again = only(bench.join("eya", boot="2", at=1))
    assert (again.tile, again.attempt) == (0, 2)


def test_a_device_that_announces_itself_anew_keeps_what_it_holds():
    bench = Bench()
    bench.join("eya", "blur")
    assert len(sent(bench.submit(5, "blur"))) == 3
    more = sent(bench.join("eya", "blur", workers=2, at=1))
    assert [(order.tile, order.attempt) for order in more] == [(3, 1)]
    assert bench.join("eya", "blur", workers=1, at=2) == []


def test_a_suspect_is_sent_to_a_device_that_holds_nothing_else():
    bench = Bench(alone_after=0, quarantine_after=99)
    bench.join("eya")
    bench.accept(only(bench.submit(job="poison")))
    bench.lose("eya", at=1)
    bench.submit(9, job="other")
    suspect = only(bench.join("manar", at=2))
    assert suspect.job == "poison"
    bench.accept(suspect)
    assert sent(bench.join("oumayma", "blur", at=3))[0].job == "other"  # and no copy of poison
    assert len(sent(bench.answer(suspect, at=4))) == 3


def test_a_device_is_kept_free_for_a_suspect_until_it_is_idle():
    bench = Bench(alone_after=0, quarantine_after=99)
    bench.join("eya")
    bench.accept(only(bench.submit(job="poison")))
    bench.join("manar")
    held = [one for one in sent(bench.submit(9, job="other")) if one.device == "manar"]
    bench.lose("eya", at=1)
    assert sent(bench.answer(held[0], at=2)) == []
    assert sent(bench.answer(held[1], at=3)) == []
    suspect = only(bench.answer(held[2], at=4))
    assert (suspect.job, suspect.device) == ("poison", "manar")


def test_a_device_that_is_kept_free_for_a_suspect_gets_no_copy_of_a_late_tile():
    bench = Bench(alone_after=0, quarantine_after=99)
    bench.measured("manar", seconds=1, workers=2)
    bench.measured("slow", seconds=1)
    held = only(bench.submit(1, "manar", job="held"))
    late = only(bench.submit(1, job="late"))
    bench.join("eya")
    poison = only(bench.submit(job="poison"))
    assert devices([held, late, poison]) == ["manar", "slow", "eya"]
    for order in (held, late, poison):
        bench.accept(order)
    bench.lose("eya")
    assert sent(bench.tick(at=bench.now + 3)) == []
    suspect = only(bench.answer(held))
    assert (suspect.job, suspect.device) == ("poison", "manar")


def test_a_run_of_mishaps_puts_a_device_into_quarantine():
    bench = Bench()
    bench.join("eya")
    orders = sent(bench.submit(3))
    for order in orders:
        assert quarantines(bench.fail(order)) == []
    bench.join("manar")
    again = [one for at in (0.2, 0.3) for one in sent(bench.tick(at))]
    assert devices(again) == ["manar"] * 3
    assert quarantines(bench.answer(again[0])) == []
    assert quarantines(bench.answer(again[1])) == []
    quarantine = bench.answer(again[2], at=1)[1]
    why = f"3 faults in a row; the last: failed tile {again[2].tile}, which manar did"
    assert quarantine == Quarantine("eya", 10, why)
    assert bench.scheduler.quarantined() == {"eya"}


def test_what_fails_everywhere_is_no_devices_fault():
    """An operator that raises fails its job, and costs nobody else a device."""
    bench = Bench()
    bench.join("eya")
    bench.join("manar")
    orders = sent(bench.submit(6))
    while orders:
        bench.fail(orders.pop(0))
        while not orders and (at := bench.scheduler.next_wakeup()) is not None:
            orders += sent(bench.tick(at))
    assert bench.scheduler.progress("job").state is JobState.FAILED
    assert bench.scheduler.quarantined() == frozenset()


def quarantined(bench: Bench) -> None:
    """A device under the name of eya dies three times with tiles on their way to it."""
    bench.submit(9)
    for boot in "1234":
        bench.join("eya", boot=boot)
        bench.lose("eya")
    assert bench.scheduler.quarantined() == {"eya"}
    assert bench.join("eya", boot="4") == []
    assert bench.scheduler.ready_devices() == frozenset()
    assert any("eya is quarantined for 10 s" in line for line in bench.scheduler.event_log("job"))


def test_a_success_ends_the_run():
    bench = Bench()
    bench.join("eya")
    orders = sent(bench.submit(9))
    bench.fail(orders[0])
    bench.fail(orders[1])
    (more,) = sent(bench.answer(orders[2], at=0.1))[:1]
    bench.fail(more)
    assert bench.scheduler.quarantined() == frozenset()


def test_a_device_on_probation_gets_one_tile_and_one_success_sets_it_free():
    bench = Bench()
    quarantined(bench)
    order = only(bench.tick(at=10))
    assert bench.scheduler.ready_devices() == {"eya"}
    assert len(sent(bench.answer(order, at=11))) == 3


def test_one_mishap_on_probation_is_enough_and_the_quarantine_doubles():
    bench = Bench(max_failures=99)
    quarantined(bench)
    lengths = [10.0]
    for _ in range(6):
        only(bench.tick(at=bench.now + lengths[-1]))
        bench.lose("eya")
        lengths += quarantines(bench.join("eya", boot=f"boot{len(lengths)}"))
    assert lengths == [10, 20, 40, 80, 160, 300, 300]


def test_a_quarantine_outlasts_a_restart():
    bench = Bench()
    quarantined(bench)
    bench.lose("eya", at=1)
    assert bench.join("eya", boot="5", at=2) == []
    assert bench.scheduler.quarantined() == {"eya"}
    assert len(sent(bench.tick(at=10))) == 1


def test_a_quarantine_ends_while_the_device_is_away():
    bench = Bench(starve_s=99)
    quarantined(bench)
    bench.lose("eya", at=1)
    assert bench.tick(at=10) == []
    assert bench.scheduler.quarantined() == frozenset()
    assert len(sent(bench.join("eya", at=11))) == 1


def test_a_device_that_restarts_and_goes_is_quarantined_and_does_not_thrash():
    bench = Bench()
    bench.submit(99)
    granted = 0
    for second in range(100):
        granted += len(sent(bench.join("eya", boot=str(second), at=second)))
        bench.lose("eya", at=second + 0.5)
    assert granted < 20


def test_a_silent_device_is_quarantined_after_a_run_of_silences():
    bench = Bench()
    bench.join("eya")
    bench.submit(9)
    lengths: list[float] = []
    while not lengths:
        wakeup = bench.scheduler.next_wakeup()
        bench.check_in("eya", at=wakeup - 1)
        bench.tick(at=wakeup)
        lengths = quarantines(bench.check_in("eya", at=wakeup + 0.1))
    assert bench.now == pytest.approx(5 + 10 + 20, abs=1)


def test_a_draining_device_finishes_and_gets_no_more():
    bench = Bench()
    bench.join("eya")
    orders = sent(bench.submit(9))
    assert bench.drain("eya", at=1) == []
    assert bench.answer(orders[0], at=2) == [KeepResult("job", 0, 1, "eya")]


def test_draining_is_over_when_the_device_has_restarted():
    bench = Bench()
    bench.join("eya", boot="1")
    bench.drain("eya")
    bench.submit()
    assert bench.join("eya", boot="1") == []
    assert len(sent(bench.join("eya", boot="2"))) == 1


def test_a_device_that_hands_a_tile_back_is_left_alone_for_a_moment():
    bench = Bench()
    bench.join("eya")
    order = only(bench.submit())
    assert bench.hand_back(order, at=1) == []
    assert bench.hand_back(order, at=1) == []
    again = only(bench.tick(at=1.2))
    assert bench.scheduler.quarantined() == frozenset()
    assert bench.hand_back(again, at=2) == []
    assert bench.tick(at=2.3) == []
    assert len(sent(bench.tick(at=2.4))) == 1  # twice as long, since it took none


def test_a_tile_handed_back_goes_to_another_device_at_once():
    bench = Bench()
    bench.join("eya")
    order = only(bench.submit())
    bench.join("manar")
    assert devices(bench.hand_back(order, at=1)) == ["manar"]


def test_handing_back_late_or_in_quarantine_changes_nothing():
    bench = Bench(quarantine_after=1)
    bench.join("eya")
    _, second, _ = sent(bench.submit(3))
    bench.lose("eya")
    bench.join("eya", boot="2")
    wakeup = bench.scheduler.next_wakeup()
    bench.hand_back(second)
    assert bench.scheduler.quarantined() == {"eya"}
    assert bench.scheduler.next_wakeup() == wakeup


def starved(bench: Bench, at: float) -> tuple[float, str]:
    (report,) = bench.tick(at=at)
    assert isinstance(report, ReportStarved)
    return report.waited_s, report.reason


def test_a_job_without_any_device_is_reported_once():
    bench = Bench()
    bench.submit(at=1)
    assert bench.tick(at=5.9) == []
    assert starved(bench, at=6) == (5, "no device is online")
    assert bench.tick(at=600) == []
    assert bench.scheduler.event_log("job") == ("+5.00 s starved: no device is online",)


def test_a_job_is_reported_again_after_a_device_came_and_went():
    bench = Bench()
    bench.submit()
    assert starved(bench, at=5)[0] == 5
    bench.join("eya", at=6)
    bench.lose("eya", at=7)
    assert starved(bench, at=12.5) == (5.5, "no device is online")


def test_the_report_says_which_operator_is_missing_where():
    bench = Bench()
    for name in "abcdefgh":
        bench.join(name, "gray")
    bench.submit(1, "gray", "canny", "blur")
    reason = starved(bench, at=5)[1]
    assert reason.startswith("no device has every operator: a lacks blur, canny; b lacks blur")
    assert reason.endswith("f lacks blur, canny and 2 more")


def test_the_report_says_why_a_device_lacks_an_operator_where_that_is_known():
    bench = Bench()
    bench.join("eya", lacks={"gaussian/float32": "rounds differently (OpenCV 4.10.0)"})
    bench.join("manar", "gaussian/float32", lacks={"vignette": "is not\ninstalled"})
    bench.submit(1, "gaussian/float32", "vignette")
    assert starved(bench, at=5)[1] == (
        "no device has every operator: "
        "eya lacks gaussian/float32: rounds differently (OpenCV 4.10.0), vignette; "
        "manar lacks vignette: is not installed"
    )


def test_the_report_says_who_is_quarantined_and_who_is_draining():
    bench = Bench(quarantine_after=1)
    bench.join("eya")
    bench.join("manar")
    bench.drain("manar")
    bench.submit()
    bench.lose("eya")
    bench.join("eya", boot="2")
    reason = starved(bench, at=5)[1]
    assert reason == "every able device is quarantined (eya) or draining (manar)"


def test_a_device_that_comes_at_the_last_moment_prevents_the_report():
    bench = Bench()
    bench.submit()
    assert devices(bench.join("eya", at=5)) == ["eya"]
    assert bench.tick(at=5) == []


def test_a_job_that_fails_at_the_moment_of_the_report_is_not_reported():
    bench = Bench(max_expiries=1, first_lease_s=5, starve_s=5)
    bench.join("eya")
    bench.accept(only(bench.submit()))
    bench.drain("eya")
    assert [type(action) for action in bench.tick(at=5)][-1] is FailJob


def test_the_report_may_come_at_once():
    bench = Bench(starve_s=0)
    assert bench.submit(at=1) == []
    assert bench.scheduler.next_wakeup() == 1
    assert starved(bench, at=1)[0] == 0


@pytest.mark.parametrize("act", ["lose", "drain"])
def test_devices_that_never_joined_are_noted(act):
    bench = Bench()
    getattr(bench, act)("nobody")
    assert "nobody" in bench.scheduler.fleet_event_log()[0]


def test_ids_from_the_network_do_not_fill_the_memory():
    scheduler = Scheduler(Policy())
    scheduler.handle(DeviceJoined("stays", "1", 1), 0)
    for index in range(5000):
        scheduler.handle(DeviceJoined(f"d{index}", "1", 1), 0)
        scheduler.handle(DeviceLost(f"d{index}", "gone"), 0)
    assert scheduler.ready_devices() == {"stays"}
    scheduler.handle(DeviceJoined("d4999", "1", 1), 0)
    scheduler.check()


def test_a_device_that_was_forgotten_may_still_answer():
    bench = Bench()
    bench.join("eya")
    first, second, third = sent(bench.submit(3))
    bench.lose("eya")
    for index in range(4096):
        bench.scheduler.handle(DeviceJoined(f"d{index}", "1", 1, frozenset()), 0)
    assert KeepResult("job", first.tile, 1, "eya") in bench.answer(first, at=1)
    bench.hand_back(second, at=1)
    bench.fail(third, at=1)
    bench.scheduler.handle(DeviceJoined("one more", "1", 1), 1)
    assert len(bench.scheduler.ready_devices()) == 4097


def test_a_contradiction_is_found():
    bench = Bench()
    bench.submit()
    bench.scheduler._table.jobs["job"].remaining = 7
    with pytest.raises(AssertionError, match="7 remain, 1 are undone"):
        bench.scheduler.check()


def both_hold_a_tile_of_a_frame() -> tuple[Bench, dict[str, SendTile]]:
    bench = Bench(ahead=0)
    for name in ("eya", "manar"):
        bench.join(name)
    for number in range(2):  # both have answered before, so neither is doubtful
        for order in sent(bench.submit(2, job=f"first{number}")):
            bench.accept(order)
            bench.answer(order, at=bench.now + 0.1)
    return bench, {one.device: one for one in sent(bench.submit(2, job="frame"))}


def test_a_device_that_has_not_accepted_its_tile_of_a_late_frame_is_doubted():
    bench, held = both_hold_a_tile_of_a_frame()
    bench.accept(held["eya"], at=bench.now + 0.1)
    bench.feed(JobCancelled("frame", is_late=True), at=bench.now + 0.1)
    assert {one.device for one in sent(bench.submit(2, job="next"))} == {"eya"}


def test_nobody_is_doubted_for_a_late_frame_if_nobody_has_spoken_since():
    bench, _ = both_hold_a_tile_of_a_frame()
    bench.feed(JobCancelled("frame", is_late=True), at=bench.now + 0.2)
    assert {one.device for one in sent(bench.submit(2, job="next"))} == {"eya", "manar"}


def test_nobody_is_doubted_for_a_job_that_somebody_cancelled():
    bench, held = both_hold_a_tile_of_a_frame()
    bench.accept(held["eya"], at=bench.now + 0.1)
    bench.feed(JobCancelled("frame"), at=bench.now + 0.1)
    assert {one.device for one in sent(bench.submit(2, job="next"))} == {"eya", "manar"}
