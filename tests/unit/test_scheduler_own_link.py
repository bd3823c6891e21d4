"""A gateway whose own link is down, or that was stopped, judges no device before it has heard."""

from __future__ import annotations

from fogmqtt.core.scheduling.actions import CancelTile, ConfirmLink, KeepResult
from tests.scheduling import Bench, devices, only, sent


def bench() -> Bench:
    return Bench(confirms_link=True, quarantine_after=1)


def test_a_tile_that_is_not_accepted_is_taken_back_only_when_the_link_works():
    fog = bench()
    fog.join("eya")
    only(fog.submit())
    assert fog.tick(at=5) == [ConfirmLink()]
    assert fog.tick(at=8) == []
    assert CancelTile("job", 0, 1, "eya") in fog.confirm(at=8.1)


def test_an_accept_that_waited_in_a_stopped_gateway_counts():
    fog = bench()
    fog.join("eya")
    order = only(fog.submit())
    assert fog.tick(at=30) == [ConfirmLink()]
    assert fog.accept(order, at=30) == []
    assert fog.confirm(at=30.1) == []
    assert fog.scheduler.quarantined() == frozenset()


def test_a_result_that_waited_in_a_stopped_gateway_counts():
    fog = bench()
    fog.join("eya")
    order = only(fog.submit())
    fog.accept(order, at=0.1)
    assert fog.tick(at=60) == [ConfirmLink()]
    kept = fog.answer(order, at=60)
    assert KeepResult("job", 0, 1, "eya") in kept


def test_a_confirmation_of_an_earlier_time_proves_nothing():
    fog = bench()
    fog.join("eya")
    only(fog.submit())
    fog.tick(at=5)
    assert fog.confirm(at=6, until=4.9) == [ConfirmLink()]
    assert CancelTile("job", 0, 1, "eya") in fog.confirm(at=7)


def test_a_link_that_breaks_meanwhile_judges_nobody():
    fog = bench()
    fog.join("eya")
    only(fog.submit())
    fog.tick(at=5)
    fog.lose_the_broker(at=15)
    assert fog.confirm(at=15) == []
    fog.join("eya", at=16)
    assert fog.scheduler.quarantined() == frozenset()


def test_without_any_answer_a_lease_ends_in_the_end():
    fog = bench()
    fog.join("eya")
    only(fog.submit())
    fog.tick(at=5)
    assert CancelTile("job", 0, 1, "eya") in fog.tick(at=35)


def test_a_late_tile_gets_its_copy_only_when_the_link_works():
    fog = Bench(confirms_link=True)
    fog.measured("eya", seconds=1)
    fog.measured("manar", seconds=1)
    order = only(fog.submit(at=10))
    fog.accept(order, at=10)
    asked = fog.tick(at=13)
    assert sent(asked) == []
    assert asked == [ConfirmLink()]
    assert devices(fog.confirm(at=13)) == [({"eya", "manar"} - {order.device}).pop()]
