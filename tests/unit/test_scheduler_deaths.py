"""Tiles that devices die of: whom they are given to next, and when they fail their job."""

from __future__ import annotations

from fogmqtt.core.scheduling.actions import FailJob, FinishJob, SendTile
from fogmqtt.core.scheduling.events import DeviceJoined
from tests.scheduling import Bench, devices, only, sent


def test_a_tile_that_devices_die_of_fails_its_job():
    bench = Bench(max_losses=2, quarantine_after=99)
    for name in ("eya", "manar"):
        bench.join(name)
    order = only(bench.submit())
    for _ in range(2):
        bench.accept(order)
        last = order
        actions = bench.lose(order.device, at=bench.now + 1, reason="last will")
        order = sent(actions)[0] if sent(actions) else order
    assert isinstance(actions[0], FailJob)
    assert actions[0].reason.startswith(
        "tile 0 was with 2 devices that died: eya: last will; manar: last will"
    )
    assert last.device == "manar"


def test_one_device_that_dies_again_and_again_proves_little_where_another_can_try():
    bench = Bench(max_losses=2, quarantine_after=99)
    bench.join("flaky")
    bench.join("steady")
    bench.drain("steady")
    bench.accept(only(bench.submit()))
    bench.lose("flaky", at=1)
    bench.accept(only(bench.join("flaky", at=2)))
    bench.join("steady", boot="2")  # with room for the next try
    actions = bench.lose("flaky", at=3)
    assert devices(actions) == ["steady"]
    assert FinishJob("job", 4) in bench.answer(only(actions), at=4)


def test_a_suspect_goes_to_who_has_not_died_of_it():
    bench = Bench(max_losses=9, alone_after=0, quarantine_after=99)
    bench.join("flaky")
    order = only(bench.submit())
    bench.accept(order)
    bench.lose("flaky", at=1)
    bench.drain("flaky")
    bench.join("steady")
    bench.join("flaky", boot="2")
    assert bench.scheduler.progress("job").retries == 1
    assert FinishJob("job", 1) in bench.answer(SendTile("job", 0, 2, "steady", 0))


def test_a_death_before_acceptance_is_not_the_tiles():
    bench = Bench(max_losses=1, quarantine_after=99)
    bench.join("eya")
    bench.submit()
    assert bench.lose("eya", at=1) == []
    assert devices(bench.join("eya", at=2)) == ["eya"]


def test_a_tile_that_kills_its_device_costs_no_other_job():
    bench = Bench(max_losses=4, quarantine_s=1)
    bench.join("eya", workers=4)
    bench.submit(1, job="poison")
    bench.submit(6, job="innocent")
    ended: dict[str, object] = {}
    holds: dict[tuple[str, int], object] = {}
    boot = 1
    pending = sent(bench.join("eya", workers=4, boot="2"))
    while len(ended) < 2:
        for order in pending:
            bench.accept(order)
            holds[order.job, order.tile] = order
        if any(job == "poison" for job, _ in holds):
            boot += 1
            holds.clear()
            actions = bench.join("eya", workers=4, boot=f"boot{boot}")
        elif holds:
            actions = bench.answer(holds.popitem()[1], at=bench.now + 0.01)
        else:
            actions = bench.tick(at=bench.scheduler.next_wakeup())
        pending = sent(actions)
        ended |= {one.job: one for one in actions if isinstance(one, FailJob | FinishJob)}
    assert isinstance(ended["poison"], FailJob)
    assert isinstance(ended["innocent"], FinishJob)


def test_two_deaths_make_no_suspect_where_a_user_allows_many():
    bench = Bench(max_losses=12, quarantine_after=99)
    bench.join("eya", workers=2)
    orders = sent(bench.submit(2))
    for boot in ("2", "3"):
        for order in orders:
            bench.accept(order)
        bench.lose("eya")
        orders = sent(bench.join("eya", workers=2, boot=boot))
    assert [order.tile for order in orders] == [0, 1]  # and neither waits until the other is done


def drop_the_link(bench: Bench, device: str, at: float) -> list[SendTile]:
    """The device is lost, and a second later it is back with the same boot id."""
    gone = sent(bench.lose(device, at=at, reason="last will"))
    return gone + sent(bench.join(device, at=at + 1))


def test_a_flapping_link_under_a_long_tile_is_no_death():
    bench = Bench(max_losses=2)
    bench.join("eya")
    order = only(bench.submit())
    for drop in range(6):
        bench.accept(order)
        order = only(drop_the_link(bench, "eya", at=10 * drop + 5))
    assert bench.scheduler.quarantined() == frozenset()
    assert FinishJob("job", 57) in bench.answer(order, at=57)


def test_a_device_whose_link_dropped_keeps_its_tile():
    bench = Bench()
    bench.join("eya")
    orders = sent(bench.submit(2))
    for order in orders:
        bench.accept(order)
    again = drop_the_link(bench, "eya", at=5)
    assert [one.tile for one in again] == [0, 1]


def test_a_suspect_that_killed_nobody_is_an_ordinary_tile_again():
    bench = Bench(max_losses=9, alone_after=0)
    bench.join("eya")
    bench.accept(only(bench.submit(1, job="first")))
    bench.submit(5, job="second")
    again = drop_the_link(bench, "eya", at=5)
    assert {one.job for one in again} == {"first", "second"}


def test_halves_of_a_tile_that_killed_nobody_are_ordinary_tiles_again():
    bench = Bench(max_losses=9, alone_after=0, quarantine_after=99, probe_pixels=10_000)
    bench.join("eya")
    bench.accept(only(bench.submit((2000,), halvings=(1,))))
    bench.lose("eya", at=1)
    bench.feed(DeviceJoined("small", "1", 1, max_tile_pixels=1000))
    assert len(bench.scheduler._table.jobs["job"].suspects) == 1
    bench.join("eya", at=2)
    assert not bench.scheduler._table.jobs["job"].suspects


def test_a_device_that_restarted_did_die():
    bench = Bench(max_losses=9)
    bench.join("manar")
    crash_three_times(bench)
    assert bench.scheduler.quarantined() == {"eya"}


def test_the_only_device_goes_on_however_often_it_died():
    bench = Bench(max_losses=9)
    crash_three_times(bench)
    assert bench.scheduler.quarantined() == frozenset()


def crash_three_times(bench: Bench) -> None:
    """The only device that can do the work dies with the tile in its worker, again and again."""
    bench.submit(1, "blur")
    for boot in "123":
        bench.accept(only(bench.join("eya", "blur", boot=boot)))
        bench.lose("eya")
    bench.join("eya", "blur", boot="4")
