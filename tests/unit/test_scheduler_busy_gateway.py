"""A gateway that sends late and reads late: its own delays are not held against the devices."""

from __future__ import annotations

from fogmqtt.core.scheduling.actions import CancelTile, FinishJob
from fogmqtt.core.scheduling.events import JobCancelled, JobSubmitted
from tests.scheduling import Bench, devices, only, sent


def test_the_time_to_accept_starts_when_the_tile_is_on_the_wire():
    bench = Bench(sends_reported=True)
    bench.join("eya")
    order = only(bench.submit())
    assert bench.tick(at=20) == []
    bench.send(order, at=20)
    assert bench.tick(at=24.9) == []
    assert CancelTile("job", 0, 1, "eya") in bench.tick(at=25)


def test_a_tile_that_the_gateway_cannot_send_is_nobodys_silence():
    bench = Bench(sends_reported=True, quarantine_after=1)
    bench.join("eya")
    only(bench.submit())
    again = only(bench.tick(at=60))
    assert (again.device, again.attempt) == ("eya", 2)
    assert bench.scheduler.quarantined() == frozenset()


def test_a_tile_that_waits_to_be_sent_gets_no_copy():
    bench = Bench(sends_reported=True)
    bench.join("manar", "manar")
    bench.join("eya")
    first = only(bench.submit(1, job="first"))
    bench.send(first)
    bench.accept(first)
    bench.answer(first, at=1)
    order = only(bench.submit(at=10))
    bench.join("manar")
    assert sent(bench.tick(at=50)) == []
    bench.send(order, at=50)
    assert devices(bench.tick(at=52.1)) == [({"eya", "manar"} - {order.device}).pop()]


def test_a_service_time_counts_from_the_sending():
    bench = Bench(sends_reported=True)
    bench.join("eya")
    order = only(bench.submit())
    bench.send(order, at=10)
    bench.accept(order, at=10)
    bench.answer(order, at=12)
    again = only(bench.submit(job="next"))
    assert again.lease_s == 2 + 4 * 2


def test_an_accept_before_the_report_of_the_sending_counts():
    bench = Bench(sends_reported=True)
    bench.join("eya")
    order = only(bench.submit())
    bench.accept(order, at=3)
    bench.send(order, at=4)
    assert bench.scheduler.next_wakeup() == 3 + 30
    assert FinishJob("job", 5) in bench.answer(order, at=5)


def test_a_service_time_ends_with_the_arrival():
    bench = Bench()
    bench.join("eya")
    order = only(bench.submit())
    bench.accept(order, at=8, arrived=0)
    bench.answer(order, at=9, arrived=2)
    assert only(bench.submit(job="next")).lease_s == 2 + 4 * 2


def test_what_arrived_in_time_is_not_overdue_because_it_is_read_late():
    bench = Bench(quarantine_after=1)
    bench.join("eya")
    first, second, _ = sent(bench.submit(3))
    assert bench.accept(first, at=20, arrived=1) == []
    assert bench.accept(second, at=20, arrived=2) == []
    bench.tick(at=20)  # the third is late indeed
    assert bench.scheduler.progress("job").retries == 0
    assert bench.scheduler.next_wakeup() > 20


def test_an_arrival_in_the_future_counts_as_now():
    bench = Bench()
    bench.join("eya")
    order = only(bench.submit())
    bench.answer(order, at=2, arrived=99)
    assert only(bench.submit(job="next")).lease_s < 99


def test_an_order_is_wanted_while_its_lease_lasts():
    bench = Bench()
    bench.join("eya")
    order = only(bench.submit())
    assert bench.scheduler.holds("job", 0, 1, "eya")
    assert not bench.scheduler.holds("job", 0, 2, "eya")
    assert not bench.scheduler.holds("job", 0, 1, "manar")
    assert not bench.scheduler.holds("other", 0, 1, "eya")
    bench.feed(JobCancelled("job"))
    assert not bench.scheduler.holds(order.job, order.tile, order.attempt, order.device)


def test_a_slow_link_of_the_gateway_bounds_the_bytes_that_wait_in_its_queue() -> None:
    bench = Bench(sends_reported=True, seconds_in_flight=4.0, min_bytes_in_flight=1)
    for name in "abcdef":
        bench.join(name)
    bench.scheduler.learn_link(750.0)
    job = JobSubmitted("job", "blur", (1000,) * 20, pixel_bytes=1.0)
    assert len(sent(bench.feed(job))) == 3


def test_a_fast_link_allows_no_more_than_the_gateway_has_memory_for() -> None:
    bench = Bench(sends_reported=True, max_bytes_in_flight=3000)
    for name in "abcdef":
        bench.join(name)
    bench.scheduler.learn_link(1e9)
    job = JobSubmitted("job", "blur", (1000,) * 20, pixel_bytes=1.0)
    assert len(sent(bench.feed(job))) == 3
