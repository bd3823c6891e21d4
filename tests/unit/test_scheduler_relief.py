"""A device that slows down in mid-job: what becomes of the tiles that it holds."""

from __future__ import annotations

from fogmqtt.core.scheduling.actions import CancelTile, SendTile
from tests.scheduling import Bench, devices, sent


def of(orders: list[SendTile], device: str) -> list[SendTile]:
    return [order for order in orders if order.device == device]


def slowed_down(tiles: int = 10) -> tuple[Bench, list[SendTile]]:
    """Two equal devices with full windows; `slow` should have answered a second ago."""
    bench = Bench()
    bench.measured("slow", seconds=1)
    bench.measured("other", seconds=1)
    orders = sent(bench.submit(tiles))
    for order in orders:
        bench.accept(order)
    bench.now += 1
    return bench, orders


def test_what_it_has_not_begun_is_taken_back_and_then_what_it_is_stuck_with():
    bench, orders = slowed_down()
    began, _, youngest = of(orders, "slow")
    taken = []
    for order in of(orders, "other"):
        bench.now += 0.9
        actions = bench.answer(order)
        taken += [one for one in actions if isinstance(one, CancelTile) and one.device == "slow"]
        for given in sent(actions):
            bench.accept(given)
    assert [one.tile for one in taken] == [youngest.tile, began.tile]


def test_a_worker_that_is_stuck_begins_anew_where_everybody_is_busy():
    bench = Bench(ahead=0)
    bench.measured("stuck", seconds=1)
    bench.measured("other", seconds=8)
    orders = sent(bench.submit(30))
    first = of(orders, "stuck")[0]
    for order in orders:
        bench.accept(order)
    while bench.scheduler.progress("job").retries == 0:
        actions = bench.tick(bench.scheduler.next_wakeup() or 0)
    assert CancelTile("job", first.tile, 1, "stuck") in actions
    assert [(one.tile, one.device) for one in sent(actions)] == [(first.tile, "stuck")]


def test_a_device_that_is_slow_for_good_is_not_taken_for_stuck():
    bench = Bench(ahead=0)
    bench.measured("slow", seconds=1)
    bench.measured("other", seconds=8)
    orders = sent(bench.submit(30))
    for order in orders:
        bench.accept(order)
    restarts = 0
    while (at := bench.scheduler.next_wakeup()) is not None and at < 60:
        actions = bench.tick(at)
        cancelled = [one for one in actions if isinstance(one, CancelTile) and not one.expired]
        restarts += sum(one.device == "slow" for one in cancelled)
        for order in sent(actions):
            bench.accept(order)
    assert restarts <= 2


def test_what_it_has_in_its_hands_is_copied_though_others_wait():
    bench, orders = slowed_down(7)
    for order in sent(bench.join("third")):
        bench.accept(order)
    began = of(orders, "slow")[0]
    copies = []
    for order in of(orders, "other"):
        bench.now += 0.9
        actions = sent(bench.answer(order))
        copies += [one for one in actions if one.tile == began.tile]
        for given in actions:
            bench.accept(given)
    assert devices(copies) == ["third"]


def test_a_tile_that_was_taken_back_once_stays_where_it_is_given_again():
    bench, _ = slowed_down()
    taken: list[int] = []
    while bench.now < 60 and (at := bench.scheduler.next_wakeup()) is not None:
        actions = bench.tick(at)
        taken += [
            one.tile
            for one in actions
            if isinstance(one, CancelTile) and one.device == "slow" and not one.expired
        ]
        for given in sent(actions):
            bench.accept(given)
    assert len(taken) == len(set(taken))


def test_a_lone_device_keeps_what_it_has_however_slow():
    bench = Bench()
    bench.measured("slow", seconds=1)
    for order in sent(bench.submit(5)):
        bench.accept(order)
    actions = bench.tick(bench.now + 3)
    assert not [one for one in actions if isinstance(one, CancelTile)]
