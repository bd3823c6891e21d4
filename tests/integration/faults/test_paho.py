"""Properties of the real transport: lost connections, threads, delays, refusals."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from statistics import median

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from fogmqtt.errors import NotConnected
from fogmqtt.transport.base import Connected, Disconnected, Received, Refused
from fogmqtt.transport.link import Link, Protocol
from fogmqtt.transport.paho import PahoTransport
from tests.fog import Inbox, RealBroker, free_port, probe, wait_for
from tests.relay import relay, scripted

BOTH: tuple[Protocol, ...] = (5, "3.1.1")
# CONNACK packets: success in MQTT 5, and "protocol version refused" as a 3.1.1 broker says it.
CONNACK = b"\x20\x03\x00\x00\x00"
CONNACK_BAD_VERSION = b"\x20\x02\x00\x01"
CONNACK_BAD_VERSION_5 = b"\x20\x03\x00\x84\x00"
DISCONNECT_TAKEN_OVER = b"\xe0\x02\x8e\x00"


def started(
    url: str, inbox: Inbox, *, client_id: str = "x", protocol: Protocol = 5
) -> PahoTransport:
    transport = PahoTransport(Link(url, client_id, protocol), inbox.put)
    transport.start()
    return transport


@pytest.mark.parametrize("protocol", BOTH)
def test_the_refusal_of_a_closed_port_names_the_address(protocol: Protocol) -> None:
    port, inbox = free_port(), Inbox()
    transport = started(f"mqtt://127.0.0.1:{port}", inbox, protocol=protocol)
    refused = inbox.take(Refused)
    transport.close()
    assert f"nothing listens at 127.0.0.1:{port}" in refused.reason
    assert not refused.final


@pytest.mark.parametrize("answer", [CONNACK_BAD_VERSION, CONNACK_BAD_VERSION_5])
def test_the_refusal_of_an_mqtt_3_broker_names_the_key_to_set(answer: bytes) -> None:
    inbox = Inbox()
    with scripted(answer) as port:
        transport = started(f"mqtt://127.0.0.1:{port}", inbox)
        refused = inbox.take(Refused)
        transport.close()
    assert "set broker.protocol to 3.1.1" in refused.reason
    assert refused.final


def test_a_connection_that_closes_before_the_connack_is_a_refusal() -> None:
    inbox = Inbox()
    with scripted(b"") as port:
        transport = started(f"mqtt://127.0.0.1:{port}", inbox)
        assert "before it answered" in inbox.take(Refused).reason
        transport.close()
    assert not any(isinstance(event, Disconnected) for event in inbox.all())


def test_a_take_over_is_reported() -> None:
    inbox = Inbox()
    # The answer to the client's first PINGREQ is the news.
    with scripted(CONNACK, DISCONNECT_TAKEN_OVER) as port:
        transport = PahoTransport(Link(f"mqtt://127.0.0.1:{port}", "x", keepalive_s=1), inbox.put)
        transport.start()
        inbox.take(Connected)
        lost = inbox.take(Disconnected)
        transport.close()
    assert lost.taken_over
    assert "taken over" in lost.reason.lower()


def test_a_refused_subscription_is_a_final_refusal() -> None:
    inbox = Inbox()
    suback = b"\x90\x04\x00\x01\x00\x87"
    with scripted(CONNACK, suback) as port:
        transport = PahoTransport(Link(f"mqtt://127.0.0.1:{port}", "x"), inbox.put)
        transport.subscribe("secret/#")
        transport.start()
        refused = inbox.take(Refused)
        transport.close()
    assert "secret/#" in refused.reason
    assert refused.final
    assert not any(isinstance(event, Connected) for event in inbox.all())


def test_a_receiver_that_raises_causes_a_reconnect(
    broker: RealBroker, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox()

    def deliver(event: object) -> None:
        inbox.put(event)
        if isinstance(event, Received) and event.payload == b"poison":
            raise RuntimeError("a bug of the receiver")

    transport = PahoTransport(Link(broker.url, "raising"), deliver)
    transport.subscribe("raising/#")
    transport.start()
    inbox.take(Connected)
    with caplog.at_level(logging.CRITICAL):
        transport.publish("raising/1", b"poison", qos=0)
        inbox.take(Disconnected)
    inbox.take(Connected)
    transport.publish("raising/1", b"good")
    assert inbox.message("raising/1").payload == b"good"
    transport.close()


@pytest.mark.serial
@pytest.mark.parametrize("protocol", BOTH)
def test_small_round_trips_do_not_wait_for_delayed_acknowledgements(
    broker: RealBroker, protocol: Protocol
) -> None:
    with probe(broker.url, "echo/there", client_id=f"rtt{protocol}", protocol=protocol) as one:
        each = []
        for _ in range(100):
            begun = time.monotonic()
            one.publish("echo/there", b"x")
            one.message("echo/there")
            each.append(time.monotonic() - begun)
    # The kernel delays by 40 ms; a busy machine holds up some, not most.
    assert median(each) < 0.02, f"{1000 * median(each):.1f} ms each; is TCP_NODELAY set?"


@pytest.mark.parametrize("protocol", BOTH)
def test_messages_of_a_lost_connection_are_not_sent_after_the_reconnect(
    private_broker: Callable[..., RealBroker], protocol: Protocol
) -> None:
    broker, inbox = private_broker(), Inbox()
    with (
        relay(broker.port) as wire,
        probe(broker.url, "work/#", protocol=protocol, client_id="watcher") as watcher,
    ):
        transport = started(wire.url, inbox, protocol=protocol)
        inbox.take(Connected)
        broker.freeze()
        for number in range(40):
            transport.publish(f"work/stale/{number}", bytes(200_000))
        wire.cut()
        inbox.take(Disconnected)
        with pytest.raises(NotConnected):
            transport.publish("work/no", b"x")
        broker.thaw()
        inbox.take(Connected)
        transport.publish("work/fresh", b"x")
        watcher.message("work/fresh")
        transport.close()
        with probe(broker.url, protocol=protocol, client_id="end") as end:
            end.publish("work/end", b"")
        after = watcher.inbox.all()
    assert not [event for event in after if isinstance(event, Received) and "stale" in event.topic]


def test_several_threads_may_publish_at_the_same_time(broker: RealBroker) -> None:
    with probe(broker.url, "many/#", client_id="many") as one:
        begin = threading.Barrier(8)

        def talk(thread: int) -> None:
            begin.wait()
            for number in range(50):
                one.publish(f"many/{thread}/{number}", bytes([thread]) * 10_000)

        threads = [threading.Thread(target=talk, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_for(lambda: len(one.inbox.all()) >= 400)
        messages = [event for event in one.inbox.all() if isinstance(event, Received)]
    assert len({message.topic for message in messages}) == 400
    for message in messages:
        assert message.payload == bytes([int(message.topic.split("/")[1])]) * 10_000


def test_large_payloads_arrive_unchanged(broker: RealBroker) -> None:
    pixels = bytes(range(256)) * 3_600
    with probe(broker.url, "large", client_id="large") as one:
        for _ in range(30):
            one.publish("large", pixels)
        for _ in range(30):
            assert one.message("large").payload == pixels


def test_a_message_has_its_expiry_and_content_type(broker: RealBroker) -> None:
    seen: list[mqtt.MQTTMessage] = []
    ready = threading.Event()
    listener = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    listener.on_connect = lambda client, *_: client.subscribe("old/#")
    listener.on_subscribe = lambda *_: ready.set()
    listener.on_message = lambda _client, _data, message: seen.append(message)
    listener.connect("127.0.0.1", broker.port)
    listener.loop_start()
    assert ready.wait(5)
    with probe(broker.url, client_id="expiry") as one:
        one.publish("old/1", b"x", expires_s=0.2, content_type="application/msgpack")
        one.publish("old/2", b"x", expires_s=29.5)
        wait_for(lambda: len(seen) == 2)
    listener.disconnect()
    listener.loop_stop()
    first, second = (message.properties for message in seen)
    assert first is not None
    assert second is not None
    assert first.MessageExpiryInterval == 1
    assert first.ContentType == "application/msgpack"
    assert second.MessageExpiryInterval == 30


def test_a_subscription_made_while_connecting_is_confirmed_before_connected(
    broker: RealBroker,
) -> None:
    for number in range(20):
        inbox = Inbox()
        transport = started(broker.url, inbox, client_id="hasty")
        transport.subscribe(f"hasty/{number}")
        inbox.take(Connected)
        transport.publish(f"hasty/{number}", b"x")  # at once: Connected means that we may
        assert inbox.message(f"hasty/{number}").payload == b"x"
        transport.close()


def test_closing_without_a_broker_is_immediate() -> None:
    inbox = Inbox()
    transport = started(f"mqtt://127.0.0.1:{free_port()}", inbox)
    for _ in range(3):  # the pause before the next try is 4 s now
        inbox.take(Refused)
    begun = time.monotonic()
    transport.close()
    assert time.monotonic() - begun < 3


def test_closing_does_not_hang_on_a_frozen_broker(
    private_broker: Callable[..., RealBroker],
) -> None:
    broker, inbox = private_broker(), Inbox()
    transport = started(broker.url, inbox)
    inbox.take(Connected)
    broker.freeze()
    for _ in range(30):
        transport.publish("a", bytes(500_000))
    started_at = time.monotonic()
    transport.close()
    assert time.monotonic() - started_at < 5
    broker.thaw()
