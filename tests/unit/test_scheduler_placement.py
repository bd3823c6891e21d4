"""Who gets which tile: windows, speed, copies of stragglers."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter

import pytest

from fogmqtt.core.scheduling.actions import (
    CancelTile,
    DistrustTimings,
    FinishJob,
    KeepResult,
    SendTile,
)
from tests.scheduling import PIXELS, Bench, devices, only, sent, sizes


def test_a_device_holds_as_many_tiles_as_it_has_workers_and_a_few_ahead():
    bench = Bench(ahead=2)
    bench.join("eya", workers=4)
    assert len(sent(bench.submit(99))) == 6


def test_no_device_holds_more_than_the_limit():
    bench = Bench()
    bench.join("server", workers=1000)
    assert len(sent(bench.submit(99))) == 16


def test_a_device_without_workers_counts_as_having_one():
    bench = Bench()
    bench.join("odd", workers=0)
    assert len(sent(bench.submit(99))) == 3


def test_only_devices_with_every_operator_get_the_tiles():
    bench = Bench()
    bench.join("eya", "gray")
    bench.join("manar", "gray", "canny")
    assert set(devices(bench.submit(9, "gray", "canny"))) == {"manar"}


def test_idle_devices_go_first_in_order_of_joining():
    bench = Bench()
    for name in ("eya", "oumayma", "manar"):
        bench.join(name)
    assert devices(bench.submit(4)) == ["eya", "oumayma", "manar", "eya"]


def test_a_device_with_more_workers_gets_more_tiles():
    bench = Bench(ahead=0)
    bench.join("one", workers=1)
    bench.join("four", workers=4)
    assert Counter(devices(bench.submit(5))) == {"one": 1, "four": 4}


def test_a_fast_device_goes_before_a_slow_one():
    bench = Bench()
    bench.measured("slow", seconds=10)
    bench.measured("fast", seconds=1)
    assert devices(bench.submit()) == ["fast"]


def test_a_slow_device_is_not_handed_the_last_tiles():
    bench = Bench()
    bench.measured("slow", seconds=10)
    bench.measured("fast", seconds=1)
    assert devices(bench.submit(3)) == ["fast", "fast", "fast"]


def test_a_slow_device_works_where_it_is_done_before_the_fast_ones():
    bench = Bench()
    bench.measured("slow", seconds=3)
    bench.measured("fast", seconds=1)
    assert set(devices(bench.submit(8))) == {"slow", "fast"}


def test_a_slow_device_is_left_alone_where_the_full_ones_would_still_be_sooner():
    bench = Bench()
    bench.measured("slow", seconds=10)
    bench.measured("fast", seconds=1)
    assert devices(bench.submit(5)) == ["fast", "fast", "fast"]


def test_what_nobody_has_time_for_is_looked_at_again():
    """The last tiles are all for the fast device, until it is later than it should be."""
    bench = Bench()
    bench.measured("slow", seconds=10)
    bench.measured("fast", seconds=1)
    late = bench.submit(5)
    assert devices(late) == ["fast", "fast", "fast"]
    for order in sent(late):
        bench.accept(order)
    began, given = bench.now, []
    while not given and (at := bench.scheduler.next_wakeup()) is not None:
        given = sent(bench.tick(at))
    assert bench.now < began + 4  # before any lease ends
    assert "slow" in devices(given)


def test_a_device_that_nobody_knows_is_tried_like_a_typical_one():
    bench = Bench()
    bench.measured("known", seconds=1)
    bench.join("new")
    assert devices(bench.submit(2)) == ["known", "new"]


def test_tiles_of_other_sizes_are_placed_by_their_own_size():
    bench = Bench(ahead=0)
    bench.measured("slow", seconds=2)
    bench.measured("fast", seconds=1)
    assert sorted((one.device, one.tile) for one in sent(bench.submit((PIXELS, 10 * PIXELS)))) == [
        ("fast", 1),
        ("slow", 0),
    ]


def lease_of(bench: Bench, device: str) -> float:
    """Seconds that the device would be given for a tile after accepting it."""
    order = next(one for one in sent(bench.submit(9, job="probe")) if one.device == device)
    bench.accept(order)
    return order.lease_s - 2


def test_a_lease_is_a_multiple_of_what_the_work_should_take_with_its_queue():
    bench = Bench()
    bench.measured("eya", seconds=2)
    assert [order.lease_s for order in sent(bench.submit(3))] == [2 + 8, 2 + 16, 2 + 24]


def test_several_workers_share_the_queue():
    bench = Bench()
    bench.measured("eya", seconds=2, workers=2)
    leases = [order.lease_s - 2 for order in sent(bench.submit(4))]
    assert leases == [8, 8, 16, 20]


def test_a_lease_is_never_shorter_or_longer_than_makes_sense():
    bench = Bench()
    bench.measured("fast", seconds=0.001)
    assert lease_of(bench, "fast") == 2
    bench = Bench()
    bench.measured("slow", seconds=20)
    assert only(bench.submit((1000 * PIXELS,))).lease_s == 602


def test_speed_is_learned_per_kind_of_work():
    bench = Bench()
    bench.measured("eya", seconds=1)
    assert only(bench.submit(kind="canny")).lease_s == 32


def test_speed_is_learned_per_pixel():
    bench = Bench()
    bench.measured("eya", seconds=1)
    assert only(bench.submit((3 * PIXELS,))).lease_s == 2 + 12


@pytest.mark.parametrize(("before", "after"), [(0.1, 1.0), (1.0, 0.1)])
def test_a_tenfold_change_of_speed_is_followed_within_a_few_tiles(before, after):
    bench = Bench(min_lease_s=0.001, accept_s=0.001, ahead=0)
    bench.measured("eya", seconds=before)
    order = only(bench.submit(9))
    for _ in range(5):
        bench.accept(order)
        order = only(bench.answer(order, at=bench.now + after, compute_s=after))
    assert order.lease_s / 4 == pytest.approx(after, rel=0.5)


def test_a_queue_is_not_taken_for_slowness():
    bench = Bench(min_lease_s=0.001)
    bench.join("eya")
    orders = sent(bench.submit(9))
    for second, order in enumerate(orders, start=1):
        more = sent(bench.answer(order, at=second))
    assert (more[-1].lease_s - 5) / 4 == pytest.approx(3)  # three tiles of a second each


def test_results_that_queued_up_on_the_way_are_not_taken_for_speed():
    bench = Bench(min_lease_s=0.001, ahead=1)
    bench.join("eya")
    first, second = sent(bench.submit(9))
    bench.answer(first, at=2, compute_s=1)
    more = only(bench.answer(second, at=2, compute_s=1))
    assert (more.lease_s - 5) / 4 >= 2 * 1


@pytest.mark.parametrize("lie", [-1.0, math.nan, math.inf, 1.5])
def test_an_impossible_computing_time_is_told_and_not_believed(lie):
    bench = Bench()
    bench.join("eya")
    first, second, *_ = sent(bench.submit(5))
    claim = f"claims {lie} s of work within 1.00 s"
    assert DistrustTimings("eya", claim) in bench.answer(first, at=1, compute_s=lie)
    assert bench.scheduler.event_log("job") == (f"+1.00 s eya {claim} (tile 0, attempt 1)",)
    # Each start of a device is named once.
    actions = bench.answer(second, at=2, compute_s=1e6)
    assert not [one for one in actions if isinstance(one, DistrustTimings)]
    order = sent(bench.join("eya", boot="2"))[0]
    actions = bench.answer(order, at=3, compute_s=-1.0)
    assert [one.device for one in actions if isinstance(one, DistrustTimings)] == ["eya"]


def test_late_results_are_measured_too():
    bench = Bench()
    bench.join("eya")
    first = only(bench.submit())
    bench.accept(first)
    again = only(bench.tick(at=30))
    bench.answer(first, at=40)
    assert only(bench.submit(job="next")).lease_s > 5 + 4 * 30
    assert again.device == "eya"


def test_the_copy_wins_and_the_slow_device_is_told_to_stop():
    bench = Bench()
    bench.measured("slow", seconds=1)
    slow = only(bench.submit())
    bench.accept(slow)
    begin = bench.now
    assert bench.join("fast", at=begin + 1) == []
    copy = only(bench.tick(at=begin + 2))
    assert (copy.device, copy.tile, copy.attempt) == ("fast", 0, 2)
    assert bench.answer(copy, at=begin + 3) == [
        CancelTile("job", 0, 1, "slow"),
        KeepResult("job", 0, 2, "fast"),
        FinishJob("job", 3),
    ]
    assert bench.scheduler.progress("job").hedges == 1
    assert bench.scheduler.progress("job").retries == 0


def test_a_device_much_faster_than_the_holder_need_not_wait():
    bench = Bench()
    bench.measured("slow", seconds=100)
    bench.measured("fast", seconds=1)
    bench.drain("fast")
    bench.accept(only(bench.submit()))
    assert devices(bench.join("fast", boot="2", at=bench.now + 1)) == ["fast"]


def test_what_takes_no_longer_than_jitter_is_not_hedged():
    bench = Bench(hedge_min_s=0.2)
    bench.measured("eya", seconds=0.001)
    bench.measured("manar", seconds=0.001)
    begin = bench.now
    bench.submit()
    assert bench.tick(at=begin + 0.19) == []
    assert len(sent(bench.tick(at=begin + 0.25))) == 1


def test_a_straggler_alone_does_not_make_its_device_slow_but_a_second_one_does():
    bench = Bench(ahead=0)
    bench.measured("eya", seconds=1)
    order = only(bench.submit(5))
    leases = []
    for seconds in (10, 10, 1):
        bench.accept(order)
        order = only(bench.answer(order, at=bench.now + seconds))
        leases.append(order.lease_s - 2)
    assert leases[0] <= 4 * 1.5
    assert leases[1] == 4 * 10


def test_a_result_that_was_lost_on_the_way_is_missed_when_the_next_one_comes():
    bench = Bench()
    bench.measured("eya", seconds=10)
    orders = sent(bench.submit(4))
    lost, other, _ = orders
    for order in orders:
        bench.accept(order)
        bench.now += 0.01
    later = only(bench.answer(other, at=bench.now + 20))
    bench.accept(later)
    bench.answer(orders[2], at=bench.now + 10)
    bench.answer(later, at=bench.now + 0.5)
    assert [one.tile for one in sent(bench.tick(at=bench.now + 1.1))] == [lost.tile]


def test_nothing_is_hedged_while_tiles_wait():
    bench = Bench(ahead=0)
    bench.measured("slow", seconds=1)
    bench.accept(only(bench.submit(3)))
    orders = sent(bench.join("manar", at=bench.now + 1.4))
    assert [(order.tile, order.attempt) for order in orders] == [(1, 1)]


def test_a_tile_is_never_with_more_than_two_devices_or_twice_with_one():
    bench = Bench()
    bench.measured("eya", seconds=1)
    order = only(bench.submit())
    bench.accept(order)
    copy = only(bench.join("manar", at=bench.now + 2))
    bench.accept(copy)
    assert bench.join("oumayma", at=bench.now + 0.9) == []
    assert bench.tick(at=bench.now + 0.6) == []


def test_a_copy_does_not_go_to_a_device_that_failed_the_tile():
    bench = Bench()
    bench.measured("eya", seconds=1)
    bench.measured("manar", seconds=1)
    bench.fail(only(bench.submit()))
    again = only(bench.tick(at=bench.now + 0.2))
    bench.accept(again)
    assert sent(bench.tick(at=bench.now + 3)) == []


def test_a_copy_does_not_go_to_a_device_that_cannot_do_it():
    bench = Bench()
    bench.measured("eya", "blur", seconds=1)
    bench.accept(only(bench.submit(1, "blur")))
    bench.join("manar")
    assert sent(bench.tick(at=bench.now + 3)) == []


def test_every_late_tile_of_a_frozen_device_is_hedged():
    bench = Bench(accept_s=60)
    bench.measured("frozen", seconds=0.1)
    assert len(sent(bench.submit(3))) == 3
    hedged = sent(bench.join("manar", workers=3, at=bench.now + 0.1))
    while len(hedged) < 3:
        hedged += sent(bench.tick(at=bench.scheduler.next_wakeup()))
    assert {order.tile for order in hedged} == {0, 1, 2}
    assert bench.now < 3


def test_speeds_of_too_many_kinds_of_work_are_forgotten_oldest_first():
    bench = Bench()
    bench.join("eya")
    for kind in range(300):
        order = only(bench.submit(job=f"job{kind}", kind=f"kind{kind}"))
        bench.answer(order, at=bench.now + 1)
    assert only(bench.submit(job="old", kind="kind0")).lease_s == 35
    assert sent(bench.submit(job="new", kind="kind299"))[0].lease_s < 35 + 30


SCENARIO = """
from tests.scheduling import Bench, sent
bench = Bench()
for name in "abcdefgh":
    bench.join(name, "gray", "blur", "canny", workers=2)
orders = sent(bench.submit(40, "gray", "blur")) + sent(bench.submit(40, "canny", job="other"))
print(orders)
for count, order in enumerate(orders):
    if count % 3:
        print(bench.accept(order, at=count / 100))
    if count % 5 == 0:
        print(bench.fail(order, at=count / 100))
    elif count % 7:
        print(bench.answer(order, at=count / 100))
print(bench.lose("c"), bench.lose("d"), bench.tick(at=9), bench.tick(at=99))
"""


def test_the_same_events_give_the_same_actions_whatever_the_hash_seed():
    outputs = set()
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": "."}
        command = [sys.executable, "-c", SCENARIO]
        outputs.add(subprocess.check_output(command, env=environment))
    assert len(outputs) == 1
    assert SendTile.__name__.encode() in outputs.pop()


def test_with_a_limit_tiles_that_can_be_halved_take_no_longer_than_it():
    pixels = (8 * PIXELS,) * 4
    bench = Bench(least_s=0.5)
    bench.measured("eya", seconds=1)
    bench.scheduler.limit_tiles(2.0)
    orders = bench.submit(pixels, halvings=(4,) * 4)
    assert {sizes(pixels, orders)[one.tile] for one in sent(orders)} == {2 * PIXELS}


def test_without_the_limit_tiles_are_as_large_as_before():
    pixels = (8 * PIXELS,) * 4
    bench = Bench(least_s=0.5)
    bench.measured("eya", seconds=1)
    bench.scheduler.limit_tiles(2.0)
    bench.scheduler.limit_tiles(math.inf)
    orders = bench.submit(pixels, halvings=(4,) * 4)
    assert max(sizes(pixels, orders)[one.tile] for one in sent(orders)) == 8 * PIXELS


def test_a_tile_that_cannot_be_halved_is_sent_whole_despite_the_limit():
    bench = Bench()
    bench.measured("eya", seconds=1)
    bench.scheduler.limit_tiles(0.1)
    assert len(sent(bench.submit((8 * PIXELS,)))) == 1


def test_a_limit_bounds_what_is_on_a_slow_link():
    bench = Bench()
    bench.scheduler.limit_tiles(0.5)
    bench.scheduler.learn_link(2_000_000)
    assert bench.scheduler._table.fleet.max_bytes_in_flight == 1_000_000
