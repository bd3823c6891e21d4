"""Spot checks: a sample of tiles is done twice, and a device that lies is found out."""

from __future__ import annotations

import pytest

from fogmqtt.core.scheduling.actions import (
    Action,
    Arbitrate,
    CancelTile,
    DropResult,
    FinishJob,
    KeepResult,
    Quarantine,
    ReportStarved,
    RevokeResult,
    SendTile,
)
from fogmqtt.core.scheduling.events import DeviceRefuted, JobCancelled
from fogmqtt.core.scheduling.progress import DeviceProgress
from tests.scheduling import Bench, devices, only, sent

RIGHT, WRONG = 1, 2


def kinds(actions: list[Action]) -> list[type[Action]]:
    return [type(action) for action in actions]


def asked(bench: Bench) -> tuple[SendTile, SendTile]:
    """A job of one tile: done by eya, its check tile is sent to manar. Both orders."""
    bench.join("eya")
    first = only(bench.submit(1, check_tiles=(0,)))
    bench.join("manar")
    return first, only(bench.answer(first, at=1, digest=RIGHT))


def test_a_check_tile_is_done_by_another_device_once_its_tile_is_done():
    bench = Bench()
    _, second = asked(bench)
    assert (second.device, second.tile, second.attempt) == ("manar", 1, 1)
    assert bench.answer(second, at=2, digest=RIGHT) == [
        DropResult("job", 1, 1, "manar", "check result"),
        FinishJob("job", 2),
    ]


def test_check_tiles_count_as_checked_and_as_nothing_else():
    bench = Bench()
    _, second = asked(bench)
    running = bench.scheduler.progress("job")
    assert (running.done, running.total, running.checked) == (1, 1, 0)
    bench.join("oumayma")
    again = only(bench.hand_back(second))
    copy = only(bench.join("fourth", at=40))
    bench.answer(copy if again.device == "oumayma" else again, digest=RIGHT)
    ended = bench.scheduler.progress("job")
    assert (ended.retries, ended.hedges, ended.checked) == (0, 0, 1)
    assert ended.devices == {"eya": DeviceProgress(1, 1000)}


def test_check_tiles_come_after_the_ordinary_tiles_of_their_job():
    bench = Bench(ahead=0)
    bench.join("eya")
    bench.join("manar")
    pending, tiles = sent(bench.submit(4, check_tiles=(0, 1))), []
    while pending:
        order = pending.pop(0)
        tiles.append(order.tile)
        pending += sent(bench.answer(order, at=bench.now + 1, digest=RIGHT))
    assert tiles[:4] == [0, 1, 2, 3]
    assert set(tiles[4:]) == {4, 5}


def test_a_check_tile_is_given_up_at_once_where_there_is_no_second_device():
    bench = Bench()
    bench.join("eya")
    order = only(bench.submit(1, check_tiles=(0,)))
    assert kinds(bench.answer(order, at=1, digest=RIGHT)) == [KeepResult, FinishJob]
    assert bench.scheduler.progress("job").checked == 0
    assert bench.scheduler.event_log("job") == ("+1.00 s no second device for tile 0",)


def test_a_check_tile_waits_for_a_second_device_while_there_is_other_work():
    bench = Bench()
    bench.join("eya")
    first, last = sent(bench.submit(2, check_tiles=(0,)))
    bench.answer(first, at=1, digest=RIGHT)
    assert only(bench.join("manar", at=2)).tile == 2
    bench.answer(last, at=3, digest=RIGHT)
    assert FinishJob("job", 3) in bench.lose("manar")


@pytest.mark.parametrize("leave", ["lose", "drain"])
def test_a_second_device_that_leaves_is_not_waited_for(leave):
    bench = Bench()
    bench.join("eya")
    bench.join("manar")
    order = sent(bench.submit(1, check_tiles=(0,)))[0]
    getattr(bench, leave)("manar")
    assert kinds(bench.answer(order, at=1, digest=RIGHT)) == [KeepResult, FinishJob]


def test_a_check_tile_that_fails_costs_no_job_and_is_not_tried_twice_on_one_device():
    bench = Bench(max_failures=1)
    _, second = asked(bench)
    bench.join("oumayma")
    assert bench.fail(second, at=2) == [FinishJob("job", 2)]  # one failure is the limit here


def test_a_check_tile_goes_to_each_device_once():
    bench = Bench()
    _, second = asked(bench)
    bench.join("oumayma")
    third = only(bench.fail(second, at=2))
    assert third.device == "oumayma"
    assert bench.hand_back(third, at=3) == [FinishJob("job", 3)]


def test_a_check_tile_that_is_never_accepted_holds_the_job_up_no_longer_than_a_tile_would():
    bench = Bench()
    asked(bench)
    assert kinds(bench.tick(at=6)) == [CancelTile, FinishJob]


def test_what_devices_died_of_is_not_sent_out_for_a_second_opinion():
    bench = Bench(alone_after=0)
    bench.join("eya")
    bench.accept(only(bench.submit(1, check_tiles=(0,))))
    bench.join("oumayma")
    again = only(bench.lose("eya"))
    bench.join("manar")
    assert kinds(bench.answer(again, digest=RIGHT)) == [KeepResult, FinishJob]


def test_a_check_tile_that_a_device_died_of_is_given_up():
    bench = Bench(alone_after=0)
    _, second = asked(bench)
    bench.join("oumayma")
    bench.accept(second)
    assert bench.lose("manar", at=2) == [FinishJob("job", 2)]


def test_a_straggling_check_tile_gets_a_copy_but_not_from_the_first_device():
    bench = Bench()
    _, second = asked(bench)
    bench.accept(second)
    assert sent(bench.tick(at=25)) == []
    copy = only(bench.join("oumayma", at=26))
    assert (copy.tile, copy.device) == (1, "oumayma")
    assert CancelTile("job", 1, 1, "manar") in bench.answer(copy, at=27, digest=RIGHT)


@pytest.mark.parametrize("check_tiles", [(2,), (-1,), (0, 0)])
def test_check_tiles_that_cannot_be_are_refused(check_tiles):
    with pytest.raises(ValueError, match="'job' has 2 tiles and the check tiles"):
        Bench().submit(2, check_tiles=check_tiles)


# Who differs is found out.


def disputed(bench: Bench) -> tuple[SendTile, SendTile]:
    """As `asked`; eya said RIGHT and manar WRONG."""
    first, second = asked(bench)
    dropped, arbitrate = bench.answer(second, at=2, digest=WRONG)
    assert kinds([dropped]) == [DropResult]
    assert arbitrate == Arbitrate("job", 0)
    return first, second


def test_the_gateway_is_asked_who_is_right_and_the_job_waits_for_its_answer():
    bench = Bench()
    disputed(bench)
    assert bench.tick(at=99) == []
    assert bench.scheduler.progress("job").done == 1
    quarantine, finish = bench.arbitrate(0, RIGHT, at=100)
    assert quarantine == Quarantine("manar", 3600, "a wrong result: tile 0 of job")
    assert finish == FinishJob("job", 100)
    assert bench.scheduler.progress("job").checked == 1
    assert any("eya and manar differ" in line for line in bench.scheduler.event_log("job"))


def test_a_job_that_only_waits_for_the_gateway_is_not_starved():
    bench = Bench()
    disputed(bench)
    bench.lose("eya")
    bench.lose("manar")
    assert bench.tick(at=99) == []
    bench.arbitrate(0, WRONG, at=100)
    assert kinds(bench.tick(at=105)) == [ReportStarved]


def test_everything_that_a_liar_did_for_the_job_is_done_again_by_others():
    bench = Bench(hedge_min_s=100)
    bench.join("liar")
    orders = sent(bench.submit(3, check_tiles=(1,)))
    for order in orders[:2]:
        bench.answer(order, at=1, digest=WRONG)
    second = only(bench.join("manar", at=2))
    bench.answer(second, digest=RIGHT)
    actions = bench.arbitrate(1, RIGHT)
    assert actions[:2] == [
        RevokeResult("job", 0, 1, "liar"),
        RevokeResult("job", 1, 1, "liar"),
    ]
    assert CancelTile("job", 2, 1, "liar") in actions
    assert {(one.tile, one.attempt, one.device) for one in sent(actions)} == {
        (0, 2, "manar"),
        (1, 2, "manar"),
        (2, 2, "manar"),
    }
    assert bench.scheduler.progress("job").devices == {}
    for order in sent(actions):
        last = bench.answer(order, at=3, digest=RIGHT)
    assert last[-1] == FinishJob("job", 3)
    assert bench.scheduler.progress("job").devices == {"manar": DeviceProgress(3, 3000)}


def test_nothing_a_liar_says_counts_any_more():
    bench = Bench()
    bench.join("liar")
    kept, running, _ = sent(bench.submit(3))
    bench.answer(kept, at=1)
    bench.feed(DeviceRefuted("job", "liar", "its pixels differ"))
    for order in (kept, running):
        dropped = DropResult("job", order.tile, 1, "liar", "refuted")
        assert bench.answer(order, at=2) == [dropped]
    assert bench.fail(running, at=3) == []
    assert bench.scheduler.progress("job").done == 0


def test_other_jobs_keep_what_they_have_of_a_liar_and_take_no_more():
    bench = Bench()
    bench.join("liar")
    kept, running = sent(bench.submit(2, job="other"))
    bench.answer(kept, at=1)
    actions = bench.feed(DeviceRefuted("job", "liar", "its pixels differ"))
    assert actions == [
        Quarantine("liar", 3600, "a wrong result: its pixels differ"),
        CancelTile("other", 1, 1, "liar"),
    ]
    assert bench.scheduler.progress("other").done == 1
    assert kinds(bench.answer(running, at=2)) == [DropResult]


def test_a_liar_gets_no_tile_of_that_job_even_after_its_quarantine_and_under_a_new_boot():
    bench = Bench(refuted_s=10)
    bench.join("liar")
    bench.submit()
    bench.feed(DeviceRefuted("job", "liar", "its pixels differ"))
    assert bench.join("liar", boot="2", at=1) == []
    assert bench.scheduler.quarantined() == {"liar"}
    starved = bench.tick(at=5)
    assert starved[0].reason == "every able device is quarantined (liar)"
    assert bench.tick(at=10) == []
    assert bench.scheduler.ready_devices() == {"liar"}
    assert devices(bench.submit(job="next")) == ["liar"]
    assert devices(bench.join("manar")) == ["manar"]


def test_a_job_left_with_a_liar_only_says_so():
    bench = Bench(refuted_s=1)
    bench.join("liar")
    bench.submit()
    bench.feed(DeviceRefuted("job", "liar", "its pixels differ"))
    bench.tick(at=1)
    assert bench.tick(at=5)[0].reason == "every able device is refuted (liar)"


def test_a_longer_quarantine_is_not_cut_short():
    bench = Bench(quarantine_after=1, refuted_s=5)
    bench.submit()
    bench.join("eya")
    bench.lose("eya")
    bench.join("eya", boot="2")
    (quarantine,) = bench.feed(DeviceRefuted("job", "eya", "its pixels differ"), at=1)
    assert quarantine.seconds == 9


def test_two_liars_are_found_at_once():
    bench = Bench()
    disputed(bench)
    actions = bench.arbitrate(0, 3)
    assert kinds(actions) == [RevokeResult, Quarantine, Quarantine]
    assert bench.scheduler.quarantined() == {"eya", "manar"}
    again = only(bench.join("oumayma"))
    assert kinds(bench.answer(again, digest=3)) == [KeepResult, FinishJob]


def test_where_the_right_digest_is_known_the_next_liar_is_found_without_asking():
    bench = Bench()
    disputed(bench)
    bench.arbitrate(0, 3)
    again = only(bench.join("oumayma"))
    assert kinds(bench.answer(again, digest=4)) == [DropResult, Quarantine, CancelTile]
    assert "oumayma" in bench.scheduler.quarantined()
    assert bench.scheduler.progress("job").done == 0


def test_where_nobody_can_tell_nobody_is_blamed():
    bench = Bench()
    disputed(bench)
    assert bench.arbitrate(0, None, at=3) == [FinishJob("job", 3)]
    assert bench.scheduler.quarantined() == frozenset()
    assert bench.scheduler.progress("job").checked == 0


def test_an_answer_that_nobody_asked_for_is_noted():
    bench = Bench()
    disputed(bench)
    bench.feed(JobCancelled("job"))
    assert bench.arbitrate(0, RIGHT) == []
    assert "is not disputed" in bench.scheduler.fleet_event_log()[-1]


def test_a_device_that_never_joined_may_be_refuted():
    bench = Bench()
    assert bench.feed(DeviceRefuted("job", "nobody", "its pixels differ")) == []
    assert "nobody was refuted" in bench.scheduler.fleet_event_log()[-1]


def test_a_second_opinion_is_worth_nothing_without_the_first():
    bench = Bench()
    _, second = asked(bench)
    actions = bench.feed(DeviceRefuted("job", "eya", "its pixels differ"))
    assert CancelTile("job", 1, 1, "manar") in actions
    again = only(actions)
    assert (again.tile, again.device) == (0, "manar")
    late = DropResult("job", 1, 1, "manar", "not wanted")
    assert bench.answer(second, digest=RIGHT) == [late]
    assert bench.answer(again, at=2, digest=RIGHT)[-1] == FinishJob("job", 2)


def test_an_agreement_with_a_liar_is_sought_again():
    bench = Bench()
    bench.join("eya")
    first, other = sent(bench.submit(2, check_tiles=(0,)))
    bench.answer(first, digest=RIGHT)
    bench.answer(only(bench.join("manar")), digest=RIGHT)
    assert bench.scheduler.progress("job").checked == 1
    bench.join("oumayma")
    actions = bench.feed(DeviceRefuted("job", "manar", "its pixels differ"))
    assert bench.scheduler.progress("job").checked == 0
    assert (only(actions).tile, only(actions).device) == (2, "oumayma")
    assert other.device == "eya"


def test_the_second_device_may_be_refuted_before_the_gateway_has_told():
    bench = Bench()
    disputed(bench)
    bench.join("oumayma")
    actions = bench.feed(DeviceRefuted("job", "manar", "its pixels differ"), at=3)
    assert kinds(actions) == [Quarantine]
    assert bench.arbitrate(0, RIGHT, at=5)[-1] == FinishJob("job", 5)
    assert bench.scheduler.progress("job").checked == 1


def test_the_first_device_may_be_refuted_before_the_gateway_has_told():
    bench = Bench()
    disputed(bench)
    again = only(bench.feed(DeviceRefuted("job", "eya", "its pixels differ"), at=3))
    assert (again.tile, again.device) == (0, "manar")
    assert kinds(bench.answer(again, at=4, digest=RIGHT)) == [KeepResult]
    # Its check result was wrong, so nothing of it is believed.
    assert kinds(bench.arbitrate(0, RIGHT)) == [RevokeResult, Quarantine]
    last = only(bench.join("oumayma"))
    assert bench.answer(last, at=5, digest=RIGHT)[-1] == FinishJob("job", 5)
    assert bench.scheduler.progress("job").checked == 1


def test_a_copy_of_a_check_tile_is_called_back_when_the_check_result_is_there():
    bench = Bench()
    _, second = asked(bench)
    bench.accept(second)
    copy = only(bench.join("oumayma", at=26))
    actions = bench.answer(second, at=27, digest=WRONG)
    assert actions[1:] == [CancelTile("job", 1, copy.attempt, "oumayma"), Arbitrate("job", 0)]
