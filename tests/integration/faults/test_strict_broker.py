"""A broker that does not grant `$SYS` is used like any other, only without its drop counter."""

from __future__ import annotations

import json

import pytest

from fogmqtt.transport import connection, optional
from fogmqtt.transport.base import Connected, Disconnected, Received, Refused, Unavailable
from fogmqtt.transport.link import Link, Protocol
from fogmqtt.transport.paho import PahoTransport
from tests.fog import Inbox, RealBroker
from tests.processes import Fog, edges_of, photo, read, same, until
from tests.relay import scripted
from tests.strict import CUT, CUT_LATE, REFUSE, SILENT, WAYS, forgetful, strict

BOTH: tuple[Protocol, ...] = (5, "3.1.1")
#: An MQTT 5 CONNACK with Wildcard Subscription Available = 0.
NO_WILDCARDS = b"\x20\x05\x00\x00\x02\x28\x00"
COUNTER = "$SYS/broker/publish/messages/dropped"
UNKNOWN = "messages that the broker drops cannot be counted: "
#: What is delivered in the beginning for each way not to grant it, and the reason that is told.
BEGINNINGS: dict[str, tuple[list[type], str]] = {
    CUT: (
        [Unavailable, Connected],
        f"it closed the connection after the subscription to {COUNTER}",
    ),
    CUT_LATE: (
        [Connected, Unavailable, Disconnected, Connected],
        f"it closed the connection after the subscription to {COUNTER}",
    ),
    REFUSE: ([Unavailable, Connected], f"it refused the subscription to {COUNTER}"),
    SILENT: ([Connected, Unavailable], f"it did not answer the subscription to {COUNTER}"),
}


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("way", WAYS)
def test_an_optional_subscription_that_is_not_granted_costs_nothing_else(
    broker: RealBroker, monkeypatch: pytest.MonkeyPatch, way: str, protocol: Protocol
) -> None:
    monkeypatch.setattr(optional, "GIVE_UP_S", 2.0)
    inbox = Inbox()
    kinds, reason = BEGINNINGS[way]
    with strict(broker.port, way) as wire:
        transport = PahoTransport(Link(wire.url, "strict", protocol), inbox.put)
        transport.subscribe(COUNTER, optional=True)
        transport.subscribe("strict/#")
        transport.start()
        began = [inbox.take(object) for _ in kinds]
        assert [type(event) for event in began] == kinds
        (told,) = (event for event in began if isinstance(event, Unavailable))
        assert told.topic_filter == COUNTER
        assert told.reason.startswith(reason)
        wire.cut()
        inbox.take(Disconnected)
        assert inbox.take(object) == Connected(), "the counter is not asked for again"
        transport.publish("strict/1", b"x")
        assert inbox.take(object) == Received("strict/1", b"x")
        transport.close()
        assert wire.asked == 1


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("way", [CUT, CUT_LATE])
def test_an_optional_subscription_is_not_blamed_for_another_one(
    broker: RealBroker, way: str, protocol: Protocol
) -> None:
    inbox = Inbox()
    with strict(broker.port, way) as wire:
        transport = PahoTransport(Link(wire.url, "strict", protocol), inbox.put)
        for topic_filter in ("before", COUNTER, "after"):
            transport.subscribe(topic_filter, optional=True)
        transport.start()
        assert inbox.take(Unavailable, within=20).topic_filter == COUNTER
        inbox.take(Connected, within=20)
        for topic in ("before", "after"):
            transport.publish(topic, b"x")
            assert inbox.message(topic).payload == b"x"
        assert not any(isinstance(event, Unavailable) for event in inbox.all())
        transport.close()


@pytest.mark.parametrize("way", [REFUSE, CUT])
def test_a_broker_without_shared_subscriptions_gets_a_plain_one(
    broker: RealBroker, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox()
    with strict(broker.port, way, b"$share/") as wire:
        transport = PahoTransport(Link(wire.url, "plain"), inbox.put)
        transport.subscribe("$share/group/plain/#", manual_ack=True)
        transport.subscribe("other")
        transport.start()
        inbox.take(Connected, within=20)
        transport.publish("plain/1", b"x")
        received = inbox.take(Received)
        assert (received.topic, received.payload) == ("plain/1", b"x")
        assert received.receipt is not None
        transport.acknowledge(received.receipt)
        wire.cut()
        inbox.take(Connected, within=20)
        transport.close()
    assert caplog.text.count("has no shared subscriptions") == 1


@pytest.mark.parametrize("protocol", BOTH)
def test_a_broker_that_confirms_no_subscription_is_named(
    broker: RealBroker, monkeypatch: pytest.MonkeyPatch, protocol: Protocol
) -> None:
    monkeypatch.setattr(connection, "_SUBACK_TIMEOUT_S", 0.3)
    inbox = Inbox()
    with strict(broker.port, SILENT, b"mute/") as wire:
        link = Link(wire.url, "mute", protocol, connect_timeout_s=0.5)
        transport = PahoTransport(link, inbox.put)
        transport.subscribe("mute/1")
        transport.subscribe("mute/2")
        transport.start()
        refused = inbox.take(Refused)
        assert "accepted the connection and does not confirm the subscription" in refused.reason
        assert "'mute/1' (and 1 more)" in refused.reason
        assert not refused.final
        assert wire.asked >= 4, "it was asked again"
        transport.close()


def test_a_broker_that_leaves_shared_subscriptions_unanswered_gets_a_plain_one(
    broker: RealBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_SUBACK_TIMEOUT_S", 0.3)
    inbox = Inbox()
    with strict(broker.port, SILENT, b"$share/") as wire:
        link = Link(wire.url, "plain", connect_timeout_s=0.5)
        transport = PahoTransport(link, inbox.put)
        transport.subscribe("$share/group/plain/#")
        transport.start()
        inbox.take(Connected, within=20)
        transport.publish("plain/1", b"x")
        assert inbox.take(Received).topic == "plain/1"
        transport.close()


@pytest.mark.parametrize("protocol", BOTH)
def test_a_broker_that_grants_it_tells_the_counter(broker: RealBroker, protocol: Protocol) -> None:
    inbox = Inbox()
    transport = PahoTransport(Link(broker.url, "granted", protocol), inbox.put)
    transport.subscribe("granted")
    transport.start()
    inbox.take(Connected)
    # Added later, as before the start.
    transport.subscribe("$SYS/broker/version", optional=True)
    assert inbox.message("$SYS/broker/version").payload.startswith(b"mosquitto")
    transport.close()


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("way", WAYS)
def test_a_gateway_serves_there_and_says_once_that_drops_stay_unknown(
    lone_fog: Fog, way: str, protocol: Protocol
) -> None:
    lone_fog.settings |= {"BROKER__PROTOCOL": str(protocol), "GATEWAY__DELIVER": "reply"}
    image = lone_fog.save("in.png", photo(200, 300))
    with strict(lone_fog.broker.port, way) as wire:
        gateway = lone_fog.serve(BROKER__URL=wire.url)
        starts = 3 if way == CUT_LATE else 1
        until(lambda: gateway.said.count("mariem is online") == starts, "the lasting link")
        (eya,) = lone_fog.fleet("eya")
        with lone_fog.probe("fog/v1/replies/me/#", client_id="me") as me:
            me.publish("fog/v1/submit/edges/me", image.read_bytes())
            result = lone_fog.folder / "out.png"
            result.write_bytes(me.message("fog/v1/replies/me/image", within=60).payload)
            said = json.loads(me.message("fog/v1/replies/me/status", within=60).payload)
        gateway.says(UNKNOWN + BEGINNINGS[way][1], within=20)
        assert eya.stop() == 0
        gateway.says("eya takes no more tiles")
        # A topic was granted a moment before, so the second time shows which of both it was.
        assert wire.asked == (2 if way in (CUT, CUT_LATE) else 1)
        assert gateway.said.count(UNKNOWN) == 1
        assert gateway.said.count("lost the broker") == starts - 1
    assert same(read(result), edges_of(image))
    assert said["state"] == "done"


def test_a_job_that_begins_while_the_link_is_closed_is_done_and_blames_nobody(
    lone_fog: Fog,
) -> None:
    lone_fog.fleet("eya", "manar", speed=200_000)
    image = lone_fog.save("in.png", photo(400, 600))
    with strict(lone_fog.broker.port, CUT_LATE) as wire:
        ran = lone_fog.run(
            *(image, "-o", "out.png", "--pipeline", "gray | canny", "--tiles", "size 64x64"),
            BROKER__URL=wire.url,
        )
        assert wire.connections == 2
    assert same(read(lone_fog.folder / "out.png"), edges_of(image))
    assert set(ran.report["devices"]) == {"eya", "manar"}
    assert "quarantine" not in ran.err


def test_a_look_around_works_there(lone_fog: Fog) -> None:
    lone_fog.fleet("eya")
    with strict(lone_fog.broker.port, CUT) as wire:
        looked = lone_fog.command("devices", "--json", BROKER__URL=wire.url)
    assert looked.returncode == 0, looked.stderr
    assert json.loads(looked.stdout)["eya"]["online"]


def test_devices_are_found_where_wildcards_bring_no_retained_messages(lone_fog: Fog) -> None:
    lone_fog.fleet("eya", "manar")
    image = lone_fog.save("in.png", photo(200, 300))
    with forgetful(lone_fog.broker.port) as wire:
        looked = lone_fog.command("devices", "--json", BROKER__URL=wire.url)
        explained = lone_fog.command(
            "explain", str(image), "--pipeline", "gray", BROKER__URL=wire.url
        )
        ran = lone_fog.run(image, "-o", "out.png", BROKER__URL=wire.url)
    assert set(json.loads(looked.stdout)) == {"eya", "manar"}, looked.stderr
    assert "predicted with 2 device(s)" in explained.stdout
    assert same(read(lone_fog.folder / "out.png"), edges_of(image))
    assert set(ran.report["devices"]) <= {"eya", "manar"}


def test_a_broker_without_wildcards_is_refused_in_words_before_it_is_asked_for_one() -> None:
    inbox = Inbox()
    with scripted(NO_WILDCARDS) as port:
        transport = PahoTransport(Link(f"mqtt://127.0.0.1:{port}", "x"), inbox.put)
        transport.subscribe("fog/v1/devices/+/status")
        transport.start()
        refused = inbox.take(Refused)
        transport.close()
    assert refused.final
    assert (
        "has no subscriptions with wildcards, such as 'fog/v1/devices/+/status'" in refused.reason
    )
