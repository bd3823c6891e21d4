"""One contract of the broker in memory and of Mosquitto: MQTT 5 and 3.1.1, our client and paho."""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from fogmqtt.errors import NotConnected, TooLarge
from fogmqtt.transport.base import (
    NO_PROPERTIES,
    Connected,
    Disconnected,
    MessageProperties,
    Received,
    Refused,
    Transport,
    Will,
)
from fogmqtt.transport.link import Client as ClientKind
from fogmqtt.transport.link import Link, Protocol
from fogmqtt.transport.memory import MemoryBroker, MemoryTransport
from fogmqtt.transport.paho import PahoTransport
from tests.fog import Inbox, RealBroker, wait_for
from tests.relay import Relay

KINDS = ("memory", "5 fast", "3.1.1 fast", "5 plain", "3.1.1 plain")
#: The kinds with shared subscriptions and announced limits; MQTT 3.1.1 has neither.
ANNOUNCING_KINDS = ("memory", "5 fast", "5 plain")


@dataclass
class Client:
    transport: Transport
    inbox: Inbox
    #: Break its link the hard way.
    cut: Callable[[], None]

    def messages(self) -> list[Received]:
        return [event for event in self.inbox.all() if isinstance(event, Received)]


@dataclass
class World:
    """A broker and its clients, of one kind."""

    kind: str
    make: Callable[[str, Inbox, Will | None], Client]
    stop: Callable[[], None]
    start: Callable[[], None]
    clients: list[Client] = field(default_factory=list)

    def client(self, client_id: str, *filters: str, will: Will | None = None) -> Client:
        """A connected client."""
        one = self.idle(client_id, *filters, will=will)
        one.transport.start()
        one.inbox.take(Connected)
        return one

    def idle(self, client_id: str, *filters: str, will: Will | None = None) -> Client:
        one = self.make(client_id, Inbox(), will)
        for topic_filter in filters:
            one.transport.subscribe(topic_filter)
        self.clients.append(one)
        return one


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "memory":
        yield in_memory()
        return
    request.getfixturevalue("broker")  # skips or fails where Mosquitto is missing
    yield from on_mosquitto(request.param, tmp_path)


def in_memory() -> World:
    broker = MemoryBroker(max_packet_bytes=100_000)

    def make(client_id: str, inbox: Inbox, will: Will | None) -> Client:
        transport = MemoryTransport(broker, client_id, inbox.put, will=will)
        return Client(transport, inbox, functools.partial(broker.cut, client_id))

    return World("memory", make, broker.stop, broker.start)


def on_mosquitto(kind: str, folder: Path) -> Iterator[World]:
    broker = RealBroker(folder, more="max_packet_size 100000")
    broker.start()
    protocol: Protocol = 5 if kind.startswith("5") else "3.1.1"
    chosen: ClientKind = "fast" if kind.endswith("fast") else "plain"
    relays: list[Relay] = []

    def make(client_id: str, inbox: Inbox, will: Will | None) -> Client:
        wire = Relay(broker.port)
        relays.append(wire)
        transport = PahoTransport(
            Link(wire.url, client_id, protocol, client=chosen), inbox.put, will=will
        )
        return Client(transport, inbox, wire.cut)

    world = World(kind, make, broker.kill, broker.start)
    yield world
    for client in world.clients:
        client.transport.close()
    for wire in relays:
        wire.close()
    broker.kill()


def test_a_message_reaches_all_subscribers(world: World) -> None:
    one = world.client("one", "devices/+/status")
    all_of_it = world.client("all", "devices/#")
    sender = world.client("sender")
    sender.transport.publish("devices/eya/tiles", b"\x00\xff pixels")
    sender.transport.publish("devices/eya/status", b"online")
    assert one.inbox.take(Received) == Received("devices/eya/status", b"online")
    assert all_of_it.inbox.take(Received) == Received("devices/eya/tiles", b"\x00\xff pixels")
    assert all_of_it.inbox.take(Received) == Received("devices/eya/status", b"online")


def test_a_payload_in_pieces_arrives_as_one(world: World) -> None:
    pixels = memoryview(bytes(range(256)) * 200)
    client = world.client("one", "a")
    for qos in (0, 1, 2):
        client.transport.publish("a", (b"header", pixels[:3], pixels[3:]), qos=qos)
        assert client.inbox.message("a").payload == b"header" + pixels


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_properties_arrive_on_mqtt_5_and_are_dropped_on_3_1_1(world: World, qos: int) -> None:
    properties = MessageProperties(
        response_topic="replies/me/7",
        correlation=b"\x00\xff7",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    client = world.client("one", "a")
    client.transport.publish(
        "a", b"x", qos=qos, expires_s=60, content_type="image/png", properties=properties
    )
    expected = replace(properties, content_type="image/png")
    heard = client.inbox.message("a").properties
    assert heard == (NO_PROPERTIES if world.kind.startswith("3") else expected)


def test_a_retained_message_is_marked_and_comes_after_connected(world: World) -> None:
    sender = world.client("sender", "a/b")
    sender.transport.publish("a/b", b"kept", retain=True)
    assert sender.inbox.message("a/b") == Received("a/b", b"kept", retained=False)
    late = world.idle("late", "x/#", "a/#", "y/#")
    late.transport.start()
    assert late.inbox.take(Received) == Received("a/b", b"kept", retained=True)
    newcomer = world.client("newcomer", "a/#")
    assert newcomer.inbox.take(Received) == Received("a/b", b"kept", retained=True)


def test_an_empty_retained_message_removes_the_retained_one(world: World) -> None:
    sender = world.client("sender", "a")
    sender.transport.publish("a", b"kept", retain=True)
    sender.transport.publish("a", b"", retain=True)
    sender.transport.publish("end", b"")
    assert sender.inbox.message("a").payload == b"kept"
    assert sender.inbox.message("a").payload == b""
    late = world.client("late", "#")
    sender.transport.publish("b", b"live")
    assert late.inbox.take(Received).topic == "b"


def test_a_later_subscription_works(world: World) -> None:
    client = world.client("one")
    client.transport.subscribe("late/#")
    client.transport.publish("late/1", b"x")
    assert client.inbox.message("late/1").payload == b"x"


def test_a_lost_connection_publishes_the_will_and_a_clean_disconnect_does_not(world: World) -> None:
    watcher = world.client("watcher", "status/#")
    clean = world.client("clean", will=Will("status/clean", b"offline"))
    lost = world.client("lost", will=Will("status/lost", b"offline"))
    clean.transport.close()
    lost.cut()
    assert watcher.inbox.take(Received) == Received("status/lost", b"offline")
    assert lost.inbox.take(Disconnected).reason
    late = world.client("late", "status/#")
    assert late.inbox.take(Received) == Received("status/lost", b"offline", retained=True)


def test_publishing_without_a_connection_is_refused(world: World) -> None:
    client = world.idle("one")
    with pytest.raises(NotConnected, match="a/b"):
        client.transport.publish("a/b", b"x")


def test_after_close_publishing_is_refused_and_no_event_comes(world: World) -> None:
    client = world.client("one", "#")
    client.transport.close()
    client.transport.close()
    with pytest.raises(NotConnected):
        client.transport.publish("a", b"x")
    assert client.inbox.all() == []


def test_closing_an_unstarted_transport_does_nothing(world: World) -> None:
    world.idle("one").transport.close()


def test_close_sends_the_messages_that_were_handed_over(world: World) -> None:
    watcher = world.client("watcher", "#")
    client = world.client("one")
    for number in range(100):
        client.transport.publish(f"a/{number}", bytes(50_000), qos=number % 3)
    client.transport.close()
    seen = {watcher.inbox.take(Received).topic for _ in range(100)}
    assert len(seen) == 100


@pytest.mark.parametrize("world", ANNOUNCING_KINDS, indirect=True)
def test_a_message_over_the_brokers_limit_is_not_sent(world: World) -> None:
    client = world.client("one", "a/#")
    with pytest.raises(TooLarge, match="100000"):
        client.transport.publish("a/b", bytes(100_000))
    client.transport.publish("a/b", bytes(100_000 - 3 - 64))
    assert len(client.inbox.message("a/b").payload) == 100_000 - 3 - 64


def test_all_subscriptions_work_after_a_restart_of_the_broker(world: World) -> None:
    client = world.client("one", "a/#", "b/+")
    world.stop()
    client.inbox.take(Disconnected)
    with pytest.raises(NotConnected):
        client.transport.publish("a/stale", b"said while the link was down")
    world.start()
    events_until_connected(client)
    client.transport.publish("b/fresh", b"x")
    assert client.inbox.take(Received).topic == "b/fresh"


def events_until_connected(client: Client) -> None:
    """A loss is told once; until the link stands again there may only be refusals."""
    seen: list[object] = []
    while not seen or not isinstance(seen[-1], Connected):
        seen.append(client.inbox.take(object))
    assert all(isinstance(event, Refused) for event in seen[:-1])


@pytest.mark.parametrize("world", ANNOUNCING_KINDS, indirect=True)
def test_each_shared_message_goes_to_one_member_of_the_group(world: World) -> None:
    members = [world.client(f"m{n}", "$share/gateways/submit/#") for n in range(2)]
    sender = world.client("sender")
    for number in range(10):
        sender.transport.publish(f"submit/{number}", b"x")
    wait_for(lambda: sum(len(member.messages()) for member in members) >= 10)
    heard = [{message.topic for message in member.messages()} for member in members]
    assert all(heard), "one of them got nothing"
    assert heard[0].isdisjoint(heard[1])
    assert len(heard[0] | heard[1]) == 10


def test_a_second_client_with_the_same_id_disconnects_the_first(world: World) -> None:
    watcher = world.client("watcher", "status")
    first = world.client("twin", will=Will("status", b"offline"))
    second = world.client("twin", "a")
    first.inbox.take(Disconnected)
    first.transport.close()
    assert watcher.inbox.take(Received).payload == b"offline"
    second.transport.publish("a", b"still here")
    assert second.inbox.message("a").payload == b"still here"


def test_closing_does_not_wait_for_an_attempt_to_connect() -> None:
    """Whoever ends a program before a mute broker with TLS waits for no handshake."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"mqtts://127.0.0.1:{mute.getsockname()[1]}"
        transport = PahoTransport(Link(url, "hasty", connect_timeout_s=60.0), Inbox().put)
        transport.start()
        connection, _ = mute.accept()
        with connection:
            began = time.monotonic()
            transport.close()
            assert time.monotonic() - began < 5.0
