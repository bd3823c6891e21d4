"""Announces this gateway, its devices and streams to Home Assistant, and removes what is gone.

The topic `announced` keeps which topics hold something of ours, those of the streams included. So
the next start removes what it does not announce itself, also if the feature is off by then, or has
another prefix, and what a stream retained that is not configured any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Final, Protocol

import msgspec

from fogmqtt.config import GatewayConfig
from fogmqtt.errors import NotConnected, PublishRefused, TooLarge
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.events import DeviceCame, DeviceLeft
from fogmqtt.gateway.home_assistant.payloads import (
    DeviceFacts,
    Discovery,
    RetainedMessage,
    StreamFacts,
)
from fogmqtt.gateway.streams.retained import is_retained_topic, retained_topics
from fogmqtt.gateway.streams.streams import event_grouping
from fogmqtt.transport.base import Received
from fogmqtt.wire.service_messages import DeviceCard, GatewayCard
from fogmqtt.wire.states import Announced, GatewayDeviceState, GatewayState
from fogmqtt.wire.topics import LOCAL, ONLINE

#: Seconds between two messages on one topic while no device comes or goes: Home Assistant keeps a
#: record of each.
EVERY_S: Final = 5.0
#: Seconds for which more changes are collected after a device came or went.
_COLLECT_S: Final = 0.5
#: Devices that are announced, at most: their ids come from the network.
MOST_DEVICES: Final = 500
#: Characters of a version that a device names.
_VERSION: Final = 40
#: The largest list of announced topics that is read, in bytes.
_MAX_BYTES: Final = 1_000_000


class Cards(Protocol):
    """Tells how the gateway and its devices do now."""

    def gateway_card(self) -> GatewayCard: ...

    def device_cards(self) -> list[DeviceCard]: ...


class Announcer:
    """Keeps what Home Assistant shows up to date. It belongs to the event loop.

    Make it before the gateway connects, since it adds topics to those that the gateway hears.
    """

    def __init__(self, config: GatewayConfig, gateway: Gateway, cards: Cards) -> None:
        settings = config.homeassistant
        self._on = settings.discovery == "auto"
        self._gateway = gateway
        self._cards = cards
        self._streams = [_stream_facts(name, config) for name in config.streams]
        #: What the streams themselves keep at the broker.
        self._kept = retained_topics(config, gateway.topics)
        self._discovery = Discovery(gateway.topics, gateway.id, settings.prefix)
        self._list_topic = gateway.topics.gateway(gateway.id, "announced")
        #: What was published in this connection, by topic.
        self._said: dict[str, bytes] = {}
        #: Topics that an earlier start or connection announced.
        self._earlier: set[str] = set()
        #: The list of topics as the broker has it.
        self._list = b""
        self._woken = asyncio.Event()
        gateway.hear(self._list_topic, self._remember)
        if self._on:
            gateway.hear(settings.status, self._home_assistant_said)

    async def run(self) -> None:
        """Announce until cancelled; if the feature is off, only remove what is left of it."""
        link, connection = self._gateway.link, 0
        while True:
            await link.up()
            with suppress(NotConnected):
                if connection != link.connections:
                    # After it, all that the broker retained is here: devices, earlier topics.
                    await link.confirm()
                    self._earlier |= self._said.keys()
                    self._said.clear()
                    connection = link.connections
                await self._publish_changes()
                if not self._on:
                    return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), EVERY_S)
                await asyncio.sleep(_COLLECT_S)
            self._woken.clear()

    async def follow_devices(self) -> None:
        """Have `run` publish soon when a device comes or goes."""
        with self._gateway.events("Home Assistant") as events:
            async for event in events:
                if isinstance(event, DeviceCame | DeviceLeft):
                    self._woken.set()

    # What comes in.

    def _remember(self, message: Received) -> None:
        """Take the list of an earlier start; later ones are our own."""
        if not message.retained or not message.payload or len(message.payload) > _MAX_BYTES:
            return
        try:
            earlier = msgspec.json.decode(message.payload, type=Announced)
        except (msgspec.MsgspecError, RecursionError, ValueError) as problem:
            self._gateway.warn("Home Assistant", f"{self._list_topic}: {problem}")
            return
        self._list = bytes(message.payload)
        self._earlier |= {topic for topic in earlier.topics if self._is_ours(topic)}

    def _is_ours(self, topic: str) -> bool:
        """Whether this gateway may clear a topic: anybody may have written the list."""
        return self._discovery.owns(topic) or is_retained_topic(topic, self._gateway.topics)

    def _home_assistant_said(self, message: Received) -> None:
        if message.payload == ONLINE:
            self._earlier |= self._said.keys()
            self._said.clear()
            self._woken.set()

    # What goes out.

    async def _publish_changes(self) -> None:
        """Publish what changed, and remove what is gone. Raises NotConnected."""
        wanted = {one.topic: one.payload for one in self._wanted()} if self._on else {}
        gone = (self._said.keys() | self._earlier) - wanted.keys() - self._kept
        # Whenever this program is killed, the list names all topics that hold something.
        await self._publish_list(wanted.keys() | gone | self._kept)
        for topic, payload in wanted.items():
            if self._said.get(topic) != payload:
                await self._publish(topic, payload)
                self._said[topic] = payload
        for topic in sorted(gone):
            await self._publish(topic, b"")
            self._said.pop(topic, None)
        self._earlier.clear()
        await self._publish_list(wanted.keys() | self._kept)

    def _wanted(self) -> Iterator[RetainedMessage]:
        """Yield all messages that are to be retained, states before what points to them."""
        topics, gateway = self._gateway.topics, self._gateway.id
        devices = self._devices()
        yield RetainedMessage(topics.gateway(gateway, "state"), _json(self._gateway_state()))
        yield self._discovery.of_gateway()
        for stream in self._streams:
            yield self._discovery.of_stream(stream)
        for card in devices:
            yield RetainedMessage(
                topics.gateway_device(gateway, card.id), _json(_device_state(card))
            )
            yield self._discovery.of_device(_facts(card))

    def _devices(self) -> list[DeviceCard]:
        cards = [card for card in self._cards.device_cards() if card.id != LOCAL]
        if len(cards) > MOST_DEVICES:
            self._gateway.warn(
                "Home Assistant",
                f"{len(cards)} devices are known; only {MOST_DEVICES} are announced",
            )
        return cards[:MOST_DEVICES]

    def _gateway_state(self) -> GatewayState:
        card = self._cards.gateway_card()
        return GatewayState(
            running=card.running,
            waiting=card.waiting,
            devices_online=len(self._gateway.online()),
            paused=bool(card.paused),
            reason=card.paused,
        )

    async def _publish_list(self, topics: Collection[str]) -> None:
        payload = _json(Announced(topics=sorted(topics))) if topics else b""
        if payload != self._list:
            await self._publish(self._list_topic, payload)
            self._list = payload

    async def _publish(self, topic: str, payload: bytes) -> None:
        """Publish a retained message. A broker that refuses it is named in the log."""
        try:
            await self._gateway.link.publish_confirmed(topic, payload, qos=1, retain=True)
        except (PublishRefused, TooLarge) as problem:
            self._gateway.warn("Home Assistant", f"{topic}: {problem}")


def _stream_facts(name: str, config: GatewayConfig) -> StreamFacts:
    settings = config.streams[name]
    kind, has_preview = event_grouping(config, settings), settings.preview.fps > 0
    return StreamFacts(name, has_preview, has_events=kind is not None, is_motion=kind == "all")


def _facts(card: DeviceCard) -> DeviceFacts:
    return DeviceFacts(
        id=card.id,
        version=card.versions.get("fogmqtt", "")[:_VERSION],
        workers=card.workers,
        has_temperature=card.temperature_c is not None,
    )


def _device_state(card: DeviceCard) -> GatewayDeviceState:
    present = card.activity not in ("offline", "silent")
    temperature = card.temperature_c if present else None
    return GatewayDeviceState(
        online=present,
        activity=card.activity,
        sentence=card.sentence,
        advice=card.advice,
        quarantined=card.activity == "quarantined",
        tiles_per_s=round(card.tiles_per_s, 1) if present else 0.0,
        temperature_c=None if temperature is None else round(temperature, 1),
    )


def _json(state: msgspec.Struct) -> bytes:
    return msgspec.json.encode(state)
