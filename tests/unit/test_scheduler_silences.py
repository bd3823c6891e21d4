"""Devices that fall silent together are not to blame, and who comes back unchanged is forgiven."""

from __future__ import annotations

from fogmqtt.core.scheduling.actions import SendTile
from tests.scheduling import Bench, sent

FLEET = ("eya", "manar", "oumayma", "sarra")


def fleet() -> tuple[Bench, list[SendTile]]:
    """Four devices that hold tiles and checked in; one silence means quarantine."""
    bench = Bench(quarantine_after=1)
    for name in FLEET:
        bench.join(name)
    orders = sent(bench.submit(40))
    for name in FLEET:
        bench.check_in(name, at=1)
    return bench, orders


def expire(bench: Bench, until: float = 6) -> None:
    """Let all tiles run out that nobody accepted."""
    while bench.now < until:
        bench.tick(at=bench.now + 0.5)


def lose_eya(bench: Bench, orders: list[SendTile]) -> None:
    """Let all devices but eya accept their tiles and check in."""
    for order in orders:
        if order.device != "eya":
            bench.accept(order, at=4.5)
    expire(bench)
    for name in FLEET[1:]:
        bench.check_in(name)


def quarantined(bench: Bench) -> frozenset[str]:
    return bench.scheduler.quarantined()


def test_a_fleet_that_falls_silent_together_is_not_to_blame():
    bench, _ = fleet()
    expire(bench, 20)
    for name in FLEET:  # the switch is back
        bench.check_in(name, at=20)
    expire(bench, 22)
    assert quarantined(bench) == frozenset()


def test_one_silent_device_among_others_that_speak_is_to_blame():
    bench, orders = fleet()
    lose_eya(bench, orders)
    assert quarantined(bench) == {"eya"}


def test_who_checks_in_and_takes_no_tile_is_to_blame():
    bench, _ = fleet()
    expire(bench)
    bench.check_in("sarra", at=7)
    assert quarantined(bench) == {"sarra"}


def test_a_silence_is_judged_as_soon_as_most_others_speak():
    bench, _ = fleet()
    expire(bench)
    bench.check_in("manar", at=7)
    assert "eya" not in quarantined(bench)
    bench.check_in("oumayma", at=7.5)
    assert "eya" in quarantined(bench)


def test_the_gateways_own_cores_say_nothing_of_a_link():
    bench = Bench(quarantine_after=1)
    bench.join("eya")
    bench.join("local", is_local=True)
    orders = sent(bench.submit(9))
    for order in orders:
        if order.device == "local":
            bench.accept(order, at=4)
    expire(bench)
    assert quarantined(bench) == frozenset()


def test_who_comes_back_with_the_same_boot_is_forgiven_its_silences():
    bench, orders = fleet()
    lose_eya(bench, orders)
    assert quarantined(bench) == {"eya"}
    bench.lose("eya", at=7)
    bench.join("eya", at=8)
    assert quarantined(bench) == frozenset()
    assert "eya" in bench.scheduler.ready_devices()


def test_a_restart_forgives_nothing():
    bench, orders = fleet()
    lose_eya(bench, orders)
    bench.lose("eya", at=7)
    bench.join("eya", boot="2", at=8)
    assert quarantined(bench) == {"eya"}


def test_failures_are_not_forgiven_when_the_link_comes_back():
    bench = Bench(quarantine_after=1)
    bench.join("eya")
    bench.join("manar")
    first, second = sent(bench.submit(2, at=0))[:2]
    bench.accept(first, at=0)
    bench.accept(second, at=0)
    bench.fail(first, at=1)
    bench.answer(second, at=1)
    again = next(order for order in sent(bench.tick(at=1.5)) if order.tile == first.tile)
    bench.accept(again, at=1.5)
    bench.answer(again, at=2)
    assert quarantined(bench) == {first.device}
    bench.lose(first.device, at=3)
    bench.join(first.device, at=4)
    assert quarantined(bench) == {first.device}


def test_who_answers_after_all_is_not_to_blame():
    bench, orders = fleet()
    late = next(order for order in orders if order.device == "eya")
    for order in orders:
        if order.device != "eya":
            bench.accept(order, at=4.5)
    expire(bench)
    bench.check_in("manar", at=6.1)  # one of three
    bench.lose("sarra", at=6.2)  # one of two
    bench.answer(late, at=6.3)
    assert quarantined(bench) == frozenset()
