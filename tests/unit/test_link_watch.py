"""A connection is given up when nothing arrives, or when a broker acknowledges nothing."""

from __future__ import annotations

from fogmqtt.transport.link_watch import DEAD_S, PING_S, LinkWatch

KEEPALIVE_S = 60.0


def run(watch: LinkWatch, start: float, until: float, *, heard: bool = False) -> float | None:
    """Look once a second, ping when it is time; returns when the watch found a problem."""
    now = start
    while now <= until:
        watch.look(now, now if heard else start)
        if watch.problem(now):
            return now
        if watch.needs_ping(now):
            watch.pinged(now)
            if heard:
                watch.answered()
        now += 1.0
    return None


def test_a_silent_connection_is_dead_within_16_seconds() -> None:
    at = run(LinkWatch(0.0, KEEPALIVE_S), 0.0, 100.0)
    assert at is not None
    assert DEAD_S < at <= DEAD_S + 1


def test_a_connection_whose_pings_are_answered_lives() -> None:
    assert run(LinkWatch(0.0, KEEPALIVE_S), 0.0, 1000.0, heard=True) is None


def test_pings_come_often_enough_for_a_short_keep_alive() -> None:
    watch = LinkWatch(0.0, 4.0)
    assert not watch.needs_ping(1.9)
    assert watch.needs_ping(2.0)
    assert not LinkWatch(0.0, KEEPALIVE_S).needs_ping(PING_S - 0.1)


def test_silence_without_a_ping_proves_nothing() -> None:
    watch = LinkWatch(0.0, KEEPALIVE_S)
    for now in range(60):
        watch.look(float(now), 0.0)
    assert watch.problem(60.0) == ""


def test_a_large_message_behind_a_slow_proxy_gets_its_time() -> None:
    watch = LinkWatch(0.0, KEEPALIVE_S)
    watch.sent(1, 400_000, 0.0)  # 40 s at 10 kB/s
    at = run(watch, 0.0, 100.0)
    assert at is not None
    assert 50.0 < at < 60.0


def test_much_that_is_on_its_way_does_not_hold_up_the_end_for_ever() -> None:
    watch = LinkWatch(0.0, KEEPALIVE_S)
    watch.sent(1, 100_000_000, 0.0)
    at = run(watch, 0.0, 1000.0)
    assert at is not None
    assert at < 125.0


def test_a_broker_that_reads_and_acknowledges_nothing_is_given_up() -> None:
    watch = LinkWatch(0.0, KEEPALIVE_S)
    watch.sent(1, 100, 0.5)
    at = run(watch, 1.0, 100.0, heard=True)
    assert at is not None
    assert at <= DEAD_S + PING_S
    assert "acknowledged no message" in watch.problem(at)


def test_a_broker_that_acknowledges_slowly_is_kept() -> None:
    watch = LinkWatch(0.0, KEEPALIVE_S)
    for number in range(20):
        watch.sent(number, 100, 0.0)
    for number in range(20):
        assert run(watch, 10.0 * number, 10.0 * number + 9, heard=True) is None
        watch.acknowledged(number, 10.0 * number + 9)


def test_messages_that_the_broker_may_not_have_read_prove_nothing() -> None:
    watch = LinkWatch(0.0, KEEPALIVE_S)
    watch.sent(1, 100, 0.0)
    for now in range(40):
        watch.look(float(now), float(now))  # a large message arrives
        assert watch.problem(float(now)) == ""


def test_a_process_that_was_stopped_does_not_count_the_time() -> None:
    watch = LinkWatch(0.0, KEEPALIVE_S)
    run(watch, 0.0, 6.0, heard=True)
    watch.pinged(6.5)
    watch.look(7.0, 6.0)
    watch.look(31.0, 6.0)  # it was stopped for 24 s, and has not read yet
    assert watch.problem(31.0) == ""
    assert run(watch, 31.0, 60.0) is not None


def test_only_the_answer_to_a_ping_of_the_owner_is_told() -> None:
    watch = LinkWatch(0.0, KEEPALIVE_S)
    watch.pinged(5.0)
    watch.pinged(6.0, asked=True)
    assert watch.answered() is None
    assert watch.answered() == 6.0
    assert watch.answered() is None
