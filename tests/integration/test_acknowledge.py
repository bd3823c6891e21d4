"""Messages that their owner acknowledges, and word of those that it published."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from fogmqtt.transport.base import Connected, Disconnected, Published, Received
from fogmqtt.transport.link import Link
from fogmqtt.transport.paho import PahoTransport
from tests.fog import Inbox, RealBroker, probe
from tests.relay import Relay, relay

TOPIC = "manual_ack/submit/me"
_numbers = count()


class Owner:
    """A client on a wire that can be cut, whose broker keeps its session."""

    def __init__(self, wire: Relay, name: str) -> None:
        self.wire = wire
        #: Its own: of a sharing group, whoever has a session gets its part, there or not.
        self.topic, self.other = f"{name}/submit/me", f"{name}/results/eya"
        self.inbox = Inbox()
        link = Link(wire.url, name, session_s=60)
        self.transport = PahoTransport(link, self.inbox.put)
        self.transport.subscribe(f"$share/owners/{name}/submit/+", manual_ack=True)
        self.transport.subscribe(f"{name}/results/+")
        self.transport.start()
        self.inbox.take(Connected)

    def reconnect(self) -> None:
        """Lose the link, after what was said until now is with the broker."""
        self.transport.publish("nobody/hears", b"", token=self)
        self.inbox.take(Published)
        self.wire.cut()
        self.inbox.take(Disconnected)
        self.inbox.take(Connected)


@pytest.fixture
def owner(broker: RealBroker) -> Iterator[Owner]:
    with relay(broker.port) as wire:
        made = Owner(wire, f"owner-{next(_numbers)}")
        yield made
        made.transport.close()


@pytest.fixture
def publish(broker: RealBroker) -> Iterator[Callable[..., None]]:
    with probe(broker.url, client_id="camera") as camera:
        yield camera.publish


def received(owner: Owner, payload: bytes) -> Received:
    message = owner.inbox.message(owner.topic)
    assert message.payload == payload
    return message


@pytest.mark.parametrize("qos", [1, 2])
def test_what_was_not_acknowledged_comes_again_and_says_so(
    owner: Owner, publish: Callable[..., None], qos: int
) -> None:
    publish(owner.topic, b"image", qos=qos)
    first = received(owner, b"image").receipt
    owner.reconnect()
    second = received(owner, b"image").receipt
    assert first is not None
    assert second is not None
    assert (first.is_repeated, second.is_repeated) == (False, True)
    assert first.packet_id == second.packet_id
    assert first.connection != second.connection


def test_what_was_acknowledged_does_not_come_again(
    owner: Owner, publish: Callable[..., None]
) -> None:
    publish(owner.topic, b"first")
    receipt = received(owner, b"first").receipt
    assert receipt is not None
    owner.transport.acknowledge(receipt)
    owner.reconnect()
    publish(owner.topic, b"second")
    received(owner, b"second")
    assert not [event for event in owner.inbox.all() if isinstance(event, Received)]


def test_an_acknowledgement_of_an_earlier_connection_ends_nothing_on_this_one(
    owner: Owner, publish: Callable[..., None]
) -> None:
    publish(owner.topic, b"image")
    stale = received(owner, b"image").receipt
    assert stale is not None
    owner.reconnect()
    received(owner, b"image")
    owner.transport.acknowledge(stale)
    owner.reconnect()
    assert received(owner, b"image").receipt is not None


def test_other_messages_need_no_acknowledgement_and_pass_held_ones(
    owner: Owner, publish: Callable[..., None]
) -> None:
    for number in range(15):  # Mosquitto has 20 on their way to a client
        publish(owner.topic, b"%d" % number)
    for number in range(100):
        publish(owner.other, b"%d" % number)
    for number in range(100):
        message = owner.inbox.message(owner.other)
        assert (message.payload, message.receipt) == (b"%d" % number, None)


def test_a_message_of_qos_0_has_nothing_to_acknowledge(
    owner: Owner, publish: Callable[..., None]
) -> None:
    publish(owner.topic, b"image", qos=0)
    assert received(owner, b"image").receipt is None


def test_without_a_session_nothing_comes_again(broker: RealBroker) -> None:
    with relay(broker.port) as wire, probe(broker.url, client_id="camera0") as camera:
        inbox = Inbox()
        transport = PahoTransport(Link(wire.url, "forgetful"), inbox.put)
        transport.subscribe(TOPIC, manual_ack=True)
        transport.start()
        inbox.take(Connected)
        camera.publish(TOPIC, b"image")
        inbox.message(TOPIC)
        wire.cut()
        inbox.take(Connected)
        camera.publish(TOPIC, b"newer")
        assert inbox.message(TOPIC).payload == b"newer"
        transport.close()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_whoever_asks_hears_that_the_broker_has_a_message(owner: Owner, qos: int) -> None:
    tokens = [f"message {number}" for number in range(50)]
    for token in tokens:
        owner.transport.publish("manual_ack/out", b"x" * 1000, qos=qos, token=token)
        owner.transport.publish("manual_ack/out", b"nobody asks", qos=qos)
    assert [owner.inbox.take(Published).token for _ in tokens] == tokens
    assert not [event for event in owner.inbox.all() if isinstance(event, Published)]


def test_a_lost_link_says_nothing_of_what_was_on_its_way(
    private_broker: Callable[..., RealBroker],
) -> None:
    broker, inbox = private_broker(), Inbox()
    with relay(broker.port) as wire:
        transport = PahoTransport(Link(wire.url, "sender"), inbox.put)
        transport.start()
        inbox.take(Connected)
        broker.freeze()
        transport.publish("manual_ack/out", bytes(100_000), token="lost")
        wire.cut()
        inbox.take(Disconnected)
        broker.thaw()
        inbox.take(Connected)
        transport.publish("manual_ack/out", b"x", token="next")
        assert inbox.take(Published).token == "next"
        transport.close()
