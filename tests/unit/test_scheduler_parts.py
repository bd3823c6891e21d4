"""The scheduler's parts that stand alone: its numbers, its event log, its timers."""

from __future__ import annotations

from fogmqtt.core.scheduling.event_log import EventLog, short
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.timers import Timers


def test_waits_that_double_end_somewhere_however_often():
    policy = Policy()
    assert policy.accept_after(10**9) == 60
    assert policy.quarantine_for(10**9) == 300
    assert policy.retry_after(10**9) == 5
    assert policy.pause_after(10**9) == 5


def test_a_limit_below_the_first_wait_does_not_shorten_it():
    assert Policy(accept_s=100).accept_after(0) == 100


def test_an_event_log_is_bounded_and_says_what_is_gone():
    event_log = EventLog(began=10)
    for second in range(100):
        event_log.add(10 + second, f"line {second}")
    lines = event_log.lines()
    assert len(lines) == 61
    assert lines[0] == "(40 earlier lines are gone)"
    assert lines[-1] == "+99.00 s line 99"


def test_what_a_device_writes_is_cut_to_one_short_line():
    assert short("Traceback\n  File  x") == "Traceback File x"
    assert len(short("x" * 10_000)) == 240


class AnyTimer:
    wake_at: float | None = None


def test_timers_ring_in_order_and_once():
    timers = Timers[AnyTimer]()
    late, early = AnyTimer(), AnyTimer()
    timers.set(late, 2)
    timers.set(early, 1)
    assert timers.next() == 1
    assert timers.due(0.5) is None
    assert [timers.due(5), timers.due(5), timers.due(5)] == [early, late, None]


def test_a_timer_that_was_set_anew_rings_at_the_new_time_only():
    timers = Timers[AnyTimer]()
    sleeper = AnyTimer()
    timers.set(sleeper, 1)
    timers.set(sleeper, 3)
    timers.set(sleeper, 3)
    assert timers.next() == 3
    assert timers.pending() == [sleeper]


def test_stale_timers_do_not_pile_up():
    timers = Timers[AnyTimer]()
    sleeper, keeper = AnyTimer(), AnyTimer()
    timers.set(keeper, 0)
    for moment in range(100_000):
        timers.set(sleeper, moment + 1)
    assert len(timers._heap) < 3000
    assert timers.pending() == [keeper, sleeper]
