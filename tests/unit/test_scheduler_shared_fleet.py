"""What the scheduler shares: devices with other gateways, and the way to them among its jobs."""

from __future__ import annotations

import pytest

from fogmqtt.core.scheduling.actions import CancelTile, SendTile
from fogmqtt.core.scheduling.events import DeviceReported, Event, JobSubmitted
from fogmqtt.simulate.fleet import DeviceSpec, FleetSpec
from fogmqtt.simulate.outcome import outcome_of
from fogmqtt.simulate.simulation import Simulation
from fogmqtt.simulate.work import even_job
from tests.scheduling import PIXELS, Bench, only, sent


def estimate(bench: Bench, tiles: int) -> float:
    job = JobSubmitted("maybe", "blur", (PIXELS,) * tiles)
    return bench.scheduler.estimate_s(job, bench.now) or 0


def test_a_device_that_holds_tiles_of_others_has_half_of_its_time():
    bench = Bench()
    bench.measured("eya", seconds=1)
    bench.feed(DeviceReported("eya", held=3))
    assert estimate(bench, 10) == pytest.approx(20, rel=0.01)
    bench.feed(DeviceReported("eya", held=0))
    assert estimate(bench, 10) == pytest.approx(10, rel=0.01)


def test_what_this_gateway_gave_it_is_not_the_others():
    bench = Bench()
    bench.measured("eya", seconds=1)
    for order in sent(bench.submit(3)):
        bench.accept(order)
    bench.feed(DeviceReported("eya", held=3))
    assert bench.scheduler._table.fleet.devices["eya"].held_for_others == 0


def test_waiting_for_the_others_tiles_is_no_slowness():
    bench = Bench(ahead=0)
    bench.measured("eya", seconds=1)
    order = only(bench.submit(9))
    bench.accept(order)
    bench.feed(DeviceReported("eya", held=9))
    bench.answer(order, at=bench.now + 3, compute_s=1.1)
    bench.feed(DeviceReported("eya", held=0))
    assert estimate(bench, 100) < 1.2 * 108


def test_a_report_just_after_a_cancellation_may_count_cancelled_tiles():
    bench = Bench()
    bench.measured("slow", seconds=100)
    bench.measured("fast", seconds=1)
    bench.drain("fast")
    bench.accept(only(bench.submit()))
    copy = only(bench.join("fast", boot="2", at=bench.now + 1))
    assert CancelTile("job", 0, 1, "slow") in bench.answer(copy, at=bench.now + 1)
    bench.feed(DeviceReported("slow", held=1))
    assert bench.scheduler._table.fleet.devices["slow"].held_for_others == 0


def test_two_gateways_do_not_take_each_others_tiles_for_slowness():
    fleet = FleetSpec(tuple(DeviceSpec(f"d{i}", 5e6, overhead_ms=1) for i in range(4)))
    jobs = [even_job(f"job{i}", 120, 800_000, halvings=3) for i in range(2)]
    simulation = Simulation(fleet, jobs, 1, gateways=2)
    simulation.run()
    outcome = outcome_of(simulation)
    assert outcome.done
    assert outcome.ratio < 1.05
    assert outcome.hedges + outcome.retries <= 8
    assert not [mark for mark in outcome.record.marks if mark.what == "quarantine"]


def job_of(name: str, tiles: int, pixels: int) -> Event:
    return JobSubmitted(name, "blur", (pixels,) * tiles, pixel_bytes=1.0)


def test_tiles_on_their_way_do_not_exceed_the_budget():
    bench = Bench(max_bytes_in_flight=3000)
    for name in "abcdef":
        bench.join(name)
    orders = sent(bench.feed(job_of("job", 20, 1000)))
    assert len(orders) == 3
    assert sent(bench.accept(orders[0])) != []


def test_a_tile_larger_than_the_budget_goes_alone():
    bench = Bench(max_bytes_in_flight=10)
    bench.join("a")
    bench.join("b")
    order = only(bench.feed(job_of("job", 2, 1000)))
    assert [one.tile for one in sent(bench.accept(order))] == [1]


def test_a_job_of_large_tiles_is_not_starved_by_one_of_small_tiles():
    bench = Bench(max_bytes_in_flight=3000)
    for name in "abcdef":
        bench.join(name, workers=4)
    pending = sent(bench.feed(job_of("small", 300, 100)))
    bench.feed(job_of("large", 3, 3000))
    for _ in range(100):
        order: SendTile = pending.pop(0)
        pending += sent(bench.accept(order))
        pending += sent(bench.answer(order, at=bench.now + 0.1, compute_s=0.1))
    assert bench.scheduler.progress("large").done > 0
