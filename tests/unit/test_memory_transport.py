"""What the broker in memory promises beyond the contract that it shares with Mosquitto."""

from __future__ import annotations

import pytest

from fogmqtt.errors import NotConnected
from fogmqtt.transport.base import Connected, Disconnected, Received, Refused, Will
from fogmqtt.transport.memory import MemoryBroker, MemoryTransport, matches


def client(broker: MemoryBroker, name: str, *filters: str) -> tuple[MemoryTransport, list[object]]:
    heard: list[object] = []
    will = Will(f"status/{name}", b"offline")
    transport = MemoryTransport(broker, name, heard.append, will=will)
    for topic_filter in filters:
        transport.subscribe(topic_filter)
    transport.start()
    return transport, heard


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
def test_filters_take_topics_as_mqtt_says(topic_filter: str, topic: str, taken: bool) -> None:
    assert matches(topic_filter, topic) is taken


def test_a_killed_client_leaves_its_will_and_never_hears_again() -> None:
    broker = MemoryBroker()
    _, watched = client(broker, "watcher", "status/#", "talk")
    dead, heard = client(broker, "eya", "talk")
    dead.kill()
    assert watched == [Connected(), Received("status/eya", b"offline")]
    broker.stop()
    broker.start()
    assert heard == [Connected()]
    with pytest.raises(NotConnected):
        dead.publish("talk", b"from the grave")


def test_a_broken_link_stays_down_until_it_is_asked_to_reconnect() -> None:
    broker = MemoryBroker()
    eya, heard = client(broker, "eya", "talk")
    broker.cut("eya")
    with pytest.raises(NotConnected):
        eya.publish("talk", b"x")
    broker.reconnect("eya")
    eya.publish("talk", b"y")
    assert heard[1:] == [
        Disconnected("the connection broke"),
        Connected(),
        Received("talk", b"y"),
    ]


def test_whoever_loses_its_id_to_another_is_told_so() -> None:
    broker = MemoryBroker()
    _, heard = client(broker, "eya")
    client(broker, "eya")
    lost = heard[-1]
    assert isinstance(lost, Disconnected)
    assert lost.taken_over


def test_a_stopped_broker_refuses_and_forgets_what_was_retained() -> None:
    broker = MemoryBroker()
    eya, _ = client(broker, "eya")
    eya.publish("status/eya", b"online", retain=True)
    assert broker.retained() == {"status/eya": b"online"}
    broker.stop()
    _, heard = client(broker, "late", "status/#")
    assert isinstance(heard[0], Refused)
    broker.start()
    assert heard[1:] == [Connected()]


def test_the_sender_keeps_its_buffer() -> None:
    broker = MemoryBroker()
    eya, heard = client(broker, "eya", "talk")
    buffer = bytearray(b"first")
    eya.publish("talk", buffer)
    buffer[:] = b"other"
    assert heard[-1] == Received("talk", b"first")


def test_shared_subscribers_get_nothing_retained() -> None:
    broker = MemoryBroker()
    eya, _ = client(broker, "eya")
    eya.publish("submit/1", b"x", retain=True)
    _, heard = client(broker, "gateway", "$share/gateways/submit/#")
    assert heard == [Connected()]
