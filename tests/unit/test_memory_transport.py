"""The broker in memory, beyond the contract that it shares with Mosquitto."""

from __future__ import annotations

import pytest

from fogmqtt.errors import NotConnected
from fogmqtt.transport.base import (
    MAX_SMALL_BYTES,
    Connected,
    Disconnected,
    Received,
    Refused,
    Will,
)
from fogmqtt.transport.memory import MemoryBroker, MemoryTransport, matches


def client(broker: MemoryBroker, name: str, *filters: str) -> tuple[MemoryTransport, list[object]]:
    events: list[object] = []
    will = Will(f"status/{name}", b"offline")
    transport = MemoryTransport(broker, name, events.append, will=will)
    for topic_filter in filters:
        transport.subscribe(topic_filter)
    transport.start()
    return transport, events


@pytest.mark.parametrize(
    ("topic_filter", "topic", "taken"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("+/+", "a/b", True),
        ("a/+/c", "a/b/c", True),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("#", "a/b", True),
        ("#", "$SYS/uptime", False),
        ("+/uptime", "$SYS/uptime", False),
        ("$SYS/#", "$SYS/uptime", True),
        ("a", "A", False),
        ("+", "/a", False),
        ("/+", "/a", True),
    ],
)
def test_filters_match_topics_as_in_mqtt(topic_filter: str, topic: str, taken: bool) -> None:
    assert matches(topic_filter, topic) is taken


def test_a_killed_client_leaves_its_will_and_gets_no_more_events() -> None:
    broker = MemoryBroker()
    _, watcher_events = client(broker, "watcher", "status/#", "talk")
    killed, events = client(broker, "eya", "talk")
    killed.kill()
    assert watcher_events == [Connected(), Received("status/eya", b"offline")]
    broker.stop()
    broker.start()
    assert events == [Connected()]
    with pytest.raises(NotConnected):
        killed.publish("talk", b"too late")


def test_a_large_payload_arrives_as_a_view_and_a_small_one_as_bytes() -> None:
    small, large = bytes(MAX_SMALL_BYTES), bytes(MAX_SMALL_BYTES + 1)
    transport, events = client(MemoryBroker(), "eya", "#")
    transport.publish("a", small)
    transport.publish("a", large)
    payloads = [event.payload for event in events if isinstance(event, Received)]
    assert payloads == [small, large]
    assert [type(payload) for payload in payloads] == [bytes, memoryview]


def test_a_lost_connection_stays_down_until_reconnect() -> None:
    broker = MemoryBroker()
    eya, events = client(broker, "eya", "talk")
    broker.cut("eya")
    with pytest.raises(NotConnected):
        eya.publish("talk", b"x")
    broker.reconnect("eya")
    eya.publish("talk", b"y")
    assert events[1:] == [
        Disconnected("the connection broke"),
        Connected(),
        Received("talk", b"y"),
    ]


def test_a_client_whose_id_another_client_takes_is_disconnected_as_taken_over() -> None:
    broker = MemoryBroker()
    _, events = client(broker, "eya")
    client(broker, "eya")
    lost = events[-1]
    assert isinstance(lost, Disconnected)
    assert lost.taken_over


def test_a_stopped_broker_refuses_connections_and_drops_retained_messages() -> None:
    broker = MemoryBroker()
    eya, _ = client(broker, "eya")
    eya.publish("status/eya", b"online", retain=True)
    assert broker.retained() == {"status/eya": b"online"}
    broker.stop()
    _, events = client(broker, "late", "status/#")
    assert isinstance(events[0], Refused)
    broker.start()
    assert events[1:] == [Connected()]


def test_a_publisher_may_reuse_its_buffer() -> None:
    broker = MemoryBroker()
    eya, events = client(broker, "eya", "talk")
    buffer = bytearray(b"first")
    eya.publish("talk", buffer)
    buffer[:] = b"other"
    assert events[-1] == Received("talk", b"first")


def test_shared_subscribers_get_no_retained_messages() -> None:
    broker = MemoryBroker()
    eya, _ = client(broker, "eya")
    eya.publish("submit/1", b"x", retain=True)
    _, events = client(broker, "gateway", "$share/gateways/submit/#")
    assert events == [Connected()]
