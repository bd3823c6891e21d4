"""A client connects again at once after a loss, and less often the longer the broker is away."""

from __future__ import annotations

from fogmqtt.transport.retry_pause import RetryPause


def lost(at: float, *, connected_at: float = 0.0) -> RetryPause:
    retry = RetryPause(10.0)
    retry.connected(connected_at)
    assert retry.after_loss(at, taken_over=False) == 0.2
    return retry


def test_a_broker_that_is_back_within_20_seconds_is_found_within_one() -> None:
    retry, now = lost(100.0), 100.0
    while now < 120.0:
        now += retry.after_refusal(now, final=False)
    assert now <= 121.0


def test_the_pause_grows_to_five_seconds() -> None:
    retry = lost(100.0)
    assert retry.after_refusal(1000.0, final=False) == 5.0


def test_a_loss_after_a_stable_connection_begins_anew() -> None:
    retry = lost(100.0)
    retry.after_refusal(1000.0, final=False)
    retry.connected(1001.0)
    assert retry.after_loss(1100.0, taken_over=False) == 0.2


def test_who_loses_every_connection_does_not_hurry() -> None:
    retry, now = lost(100.0), 100.0
    pauses = []
    for _ in range(200):
        retry.connected(now)
        pauses.append(retry.after_loss(now + 0.5, taken_over=False))
        now += 0.5 + pauses[-1]
    assert pauses[-1] == 5.0


def test_who_was_taken_over_waits_a_second() -> None:
    retry = RetryPause(10.0)
    retry.connected(0.0)
    assert retry.after_loss(50.0, taken_over=True) == 1.0


def test_what_only_a_human_can_mend_is_tried_every_five_seconds() -> None:
    assert RetryPause(10.0).after_refusal(0.0, final=True) == 5.0


def test_the_first_attempts_are_short_and_later_ones_as_long_as_configured() -> None:
    retry = RetryPause(10.0)
    lengths = []
    for _ in range(8):
        lengths.append(retry.attempt_s)
        retry.after_refusal(0.0, final=False)
    assert lengths[0] == 2.0
    assert lengths == sorted(lengths)
    assert lengths[-1] == 10.0
    retry.connected(1.0)
    assert retry.attempt_s == 2.0
    assert RetryPause(1.5).attempt_s == 1.5
