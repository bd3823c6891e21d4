"""Subscriptions that a client can do without: their order, and what a lost connection means."""

from __future__ import annotations

import logging

import pytest

from fogmqtt.gateway.broker_health import DropCounter
from fogmqtt.transport.base import Unavailable
from fogmqtt.transport.link import Link
from fogmqtt.transport.optional import ANSWER_S, GIVE_UP_S, GRACE_S, OptionalFilters
from fogmqtt.transport.paho import PahoTransport

COUNTER = "$SYS/dropped"


def sent(*filters: str) -> OptionalFilters:
    """The first SUBSCRIBE was sent at 100 s, with packet id 7."""
    optional = OptionalFilters(filters or (COUNTER,))
    optional.sent(7, 100.0)
    return optional


def test_without_optional_filters_nothing_waits_and_no_loss_has_a_reason() -> None:
    optional = OptionalFilters(())
    assert optional.next(100.2) is None
    assert not optional.delays_connected(100.0)
    assert optional.suspects(100.0) == []


def test_the_client_subscribes_to_one_after_the_other() -> None:
    optional = OptionalFilters(("a", "b"))
    assert optional.next(100.2) == "a"
    optional.sent(7, 100.0)
    assert optional.next(100.2) is None
    assert optional.answered(7, 100.1) == "a"
    assert optional.next(100.2) == "b"


def test_a_suback_of_another_subscription_changes_nothing() -> None:
    optional = sent()
    assert optional.answered(6, 100.0) is None
    assert optional.delays_connected(100.0)


def test_connected_waits_for_the_suback_but_not_for_long() -> None:
    assert OptionalFilters([COUNTER]).delays_connected(0.0), "SUBSCRIBE was not sent yet"
    optional = sent()
    assert optional.delays_connected(100.0 + ANSWER_S - 0.01)
    assert not optional.delays_connected(100.0 + ANSWER_S)
    granted = sent()
    granted.answered(7, 100.1)
    assert not granted.delays_connected(100.1)


def test_a_loss_before_the_suback_or_right_after_it_is_because_of_the_filter() -> None:
    assert sent().suspects(100.0 + GIVE_UP_S - 0.01) == [COUNTER]
    granted = sent()
    granted.answered(7, 101.0)
    assert granted.suspects(101.0 + GRACE_S - 0.01) == [COUNTER]
    assert granted.suspects(101.0 + GRACE_S) == []


def test_a_loss_after_a_refusal_has_another_reason() -> None:
    optional = sent()
    assert optional.answered(7, None) == COUNTER
    assert optional.suspects(100.1) == []


def test_a_loss_soon_after_another_grant_has_two_suspects() -> None:
    optional = sent("a", "b")
    optional.answered(7, 100.1)
    optional.sent(8, 100.1)
    assert optional.suspects(100.2) == ["b", "a"]
    assert optional.suspects(100.1 + GRACE_S) == ["b"], "a is trusted by now"


def test_suspects_of_the_last_connection_are_asked_for_first_and_alone() -> None:
    optional = OptionalFilters(("a", "b", "c"), ("c", "b", "gone"))
    assert optional.next(100.0) == "c"
    optional.sent(7, 100.0)
    optional.answered(7, 100.1)
    assert optional.next(100.1 + GRACE_S - 0.01) is None
    assert not optional.delays_connected(100.2), "a trial takes long"
    assert optional.suspects(100.2) == ["c"]
    assert optional.next(100.1 + GRACE_S) == "b"
    optional.sent(8, 102.0)
    optional.answered(8, None)
    assert optional.next(102.1) == "a", "a refusal needs no trial"


def test_a_suback_that_does_not_come_is_given_up_once() -> None:
    optional = sent()
    assert optional.overdue(100.0 + GIVE_UP_S - 0.01) is None
    assert optional.overdue(100.0 + GIVE_UP_S) == COUNTER
    assert optional.overdue(100.0 + GIVE_UP_S) is None
    assert optional.suspects(100.0 + GIVE_UP_S) == []


def test_a_broker_that_is_known_to_have_no_counters_is_not_asked_for_them() -> None:
    delivered: list[object] = []
    link = Link("mqtt://127.0.0.1:1", "x", has_counters=False)
    transport = PahoTransport(link, delivered.append)
    transport.subscribe(COUNTER, optional=True)
    assert delivered == [Unavailable(COUNTER, "it has no counters")]


def test_the_gateway_logs_that_dropped_messages_stay_unknown_and_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        DropCounter().unavailable("it refused $SYS/dropped: Not authorized")
    assert "drops cannot be counted: it refused $SYS/dropped" in caplog.text
