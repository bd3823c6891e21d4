"""A broker and its clients within one process, for tests of gateway and agent.

It has the features of Mosquitto that fogmqtt uses: wildcards, shared subscriptions, retained
messages, last wills, one connection per client id, a packet limit, stop and start. It has no clock:
no message expires, and a lost connection stays down until `reconnect` or `start`.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace

from fogmqtt.errors import NotConnected, TooLarge
from fogmqtt.transport.base import (
    MAX_SMALL_BYTES,
    NO_PROPERTIES,
    Connected,
    Deliver,
    Disconnected,
    MessageProperties,
    Payload,
    Pong,
    Published,
    Receipt,
    Received,
    Refused,
    Will,
    join_payload,
    packet_size,
)
from fogmqtt.transport.link import without_share

_SHARE = "$share/"


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether an MQTT filter matches a topic. `+` is one level, `#` all that follow."""
    pattern, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and pattern[0] in ("+", "#"):
        return False
    for index, level in enumerate(pattern):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(pattern) == len(levels)


@dataclass(frozen=True, slots=True)
class _Subscription:
    client_id: str
    #: The filter with the prefix `$share/<group>/` if it is shared.
    filter_with_share: str

    @property
    def group(self) -> str | None:
        return (
            self.filter_with_share.split("/")[1]
            if self.filter_with_share.startswith(_SHARE)
            else None
        )

    @property
    def topic_filter(self) -> str:
        return without_share(self.filter_with_share)


class MemoryBroker:
    """Runs from the start. It announces `max_packet_bytes` to clients, as MQTT 5 brokers do."""

    def __init__(self, *, max_packet_bytes: int | None = None) -> None:
        self.max_packet_bytes = max_packet_bytes
        self._lock = threading.RLock()
        self._running = True
        self._transports: list[MemoryTransport] = []
        self._connected: dict[str, MemoryTransport] = {}
        self._subscriptions: list[_Subscription] = []
        self._retained: dict[str, tuple[bytes, MessageProperties]] = {}
        self._next_member: dict[tuple[str, str], int] = {}

    def stop(self) -> None:
        """Break all connections and drop the retained messages. No last will is published."""
        with self._lock:
            self._running = False
            self._retained.clear()
            for transport in list(self._connected.values()):
                self._drop(transport)
                transport.deliver_loss("the broker stopped")

    def start(self) -> None:
        """Run again. All clients that were started and not closed connect again."""
        with self._lock:
            self._running = True
            for transport in list(self._transports):
                self._connect(transport)

    def cut(self, client_id: str) -> None:
        """Break one connection: publish its will and deliver Disconnected to its client."""
        with self._lock:
            transport = self._connected[client_id]
            self._drop(transport)
            transport.deliver_loss("the connection broke")
            self._publish_will(transport)

    def reconnect(self, client_id: str) -> None:
        """Connect a client again whose connection was cut or taken over."""
        with self._lock:
            for transport in self._transports:
                if transport.client_id == client_id and transport not in self._connected.values():
                    self._connect(transport)
                    return

    def retained(self) -> dict[str, bytes]:
        """Return the retained messages by topic."""
        with self._lock:
            return {topic: payload for topic, (payload, _) in self._retained.items()}

    # --- for MemoryTransport --------------------------------------------------------------

    def ping(self, transport: MemoryTransport) -> None:
        with self._lock:
            if self._connected.get(transport.client_id) is not transport:
                raise NotConnected("ping: no connection to the broker at this moment")

    def attach(self, transport: MemoryTransport) -> None:
        with self._lock:
            self._transports.append(transport)
            if self._running:
                self._connect(transport)
            else:
                transport.deliver(Refused("nothing listens in memory; start the MemoryBroker"))

    def detach(self, transport: MemoryTransport, *, clean: bool) -> None:
        with self._lock:
            if transport in self._transports:
                self._transports.remove(transport)
            if self._connected.get(transport.client_id) is not transport:
                return
            self._drop(transport)
            if not clean:
                self._publish_will(transport)

    def subscribe(self, transport: MemoryTransport, topic_filter: str) -> None:
        with self._lock:
            if self._connected.get(transport.client_id) is transport:
                self._subscribe(transport, topic_filter)

    def publish(
        self,
        transport: MemoryTransport,
        topic: str,
        payload: bytes,
        retain: bool,
        properties: MessageProperties = NO_PROPERTIES,
    ) -> None:
        with self._lock:
            if self._connected.get(transport.client_id) is not transport:
                raise NotConnected(f"{topic}: no connection to the broker at this moment")
            size = packet_size(topic, payload, properties)
            if self.max_packet_bytes is not None and size > self.max_packet_bytes:
                raise TooLarge(
                    f"{topic}: {size} bytes, but the broker accepts {self.max_packet_bytes}; "
                    "make tiles smaller (wire.max_message_bytes)"
                )
            self._publish(topic, payload, retain, properties)

    # --- internals, under the lock --------------------------------------------------------

    def _connect(self, transport: MemoryTransport) -> None:
        previous = self._connected.get(transport.client_id)
        if previous is transport:
            return
        if previous is not None:
            self._drop(previous)
            previous.deliver_loss("another client connected under this id", taken_over=True)
            self._publish_will(previous)
        self._connected[transport.client_id] = transport
        transport.deliver(Connected(self.max_packet_bytes))
        for topic_filter in transport.filters():
            self._subscribe(transport, topic_filter)

    def _drop(self, transport: MemoryTransport) -> None:
        del self._connected[transport.client_id]
        self._subscriptions = [
            subscription
            for subscription in self._subscriptions
            if subscription.client_id != transport.client_id
        ]

    def _publish_will(self, transport: MemoryTransport) -> None:
        if transport.will is not None:
            self._publish(transport.will.topic, transport.will.payload, retain=True)

    def _subscribe(self, transport: MemoryTransport, topic_filter: str) -> None:
        subscription = _Subscription(transport.client_id, topic_filter)
        if subscription not in self._subscriptions:
            self._subscriptions.append(subscription)
        if subscription.group is not None:
            return  # a shared subscription gets no retained messages
        for topic, (payload, properties) in self._retained.items():
            if matches(topic_filter, topic):
                transport.deliver(_received(topic, payload, properties, retained=True))

    def _publish(
        self,
        topic: str,
        payload: bytes,
        retain: bool,
        properties: MessageProperties = NO_PROPERTIES,
    ) -> None:
        if retain and payload:
            self._retained[topic] = payload, properties
        elif retain:
            self._retained.pop(topic, None)
        for client_id in self._receivers(topic):
            self._connected[client_id].deliver(_received(topic, payload, properties))

    def _receivers(self, topic: str) -> list[str]:
        """Return all subscribers, and one member of each group in turn."""
        receivers: list[str] = []
        groups: dict[tuple[str, str], list[str]] = {}
        for subscription in self._subscriptions:
            if not matches(subscription.topic_filter, topic):
                continue
            if subscription.group is None:
                receivers.append(subscription.client_id)
            else:
                key = subscription.group, subscription.topic_filter
                groups.setdefault(key, []).append(subscription.client_id)
        return receivers + [self._pick_member(key, members) for key, members in groups.items()]

    def _pick_member(self, key: tuple[str, str], members: list[str]) -> str:
        turn = self._next_member.get(key, 0)
        self._next_member[key] = turn + 1
        return members[turn % len(members)]


def _received(
    topic: str, payload: bytes, properties: MessageProperties, *, retained: bool = False
) -> Received:
    view = memoryview(payload) if len(payload) > MAX_SMALL_BYTES else payload
    return Received(topic, view, retained, properties=properties)


class MemoryTransport:
    """A `Transport` to a MemoryBroker. It calls `deliver` on the thread that causes the event."""

    def __init__(
        self, broker: MemoryBroker, client_id: str, deliver: Deliver, *, will: Will | None = None
    ) -> None:
        self.client_id = client_id
        self.will = will
        self._broker = broker
        self._deliver = deliver
        self._filters: dict[str, int] = {}
        self._manual_ack_filters: list[str] = []
        self._receipt_count = 0
        #: The receipts that the owner acknowledged, in order.
        self.acknowledged: list[Receipt] = []
        self._closed = False

    def start(self) -> None:
        self._broker.attach(self)

    def subscribe(
        self, topic_filter: str, *, qos: int = 1, manual_ack: bool = False, optional: bool = False
    ) -> None:
        del optional  # this broker grants every filter
        self._filters[topic_filter] = qos
        if manual_ack:
            self._manual_ack_filters.append(topic_filter)
        self._broker.subscribe(self, topic_filter)

    def acknowledge(self, receipt: Receipt) -> None:
        self.acknowledged.append(receipt)

    def publish(
        self,
        topic: str,
        payload: Payload,
        *,
        qos: int = 1,
        retain: bool = False,
        expires_s: float | None = None,
        content_type: str | None = None,
        properties: MessageProperties = NO_PROPERTIES,
        token: object = None,
    ) -> None:
        del qos, expires_s  # no message is lost or expires here
        if content_type is not None:
            properties = replace(properties, content_type=content_type)
        self._broker.publish(self, topic, join_payload(payload), retain, properties)
        if token is not None:
            self.deliver(Published(token))

    def ping(self) -> None:
        self._broker.ping(self)
        self.deliver(Pong(time.monotonic()))

    def close(self) -> None:
        self._leave(clean=True)

    def kill(self) -> None:
        """End without a DISCONNECT: the broker publishes the will, and no event follows."""
        self._leave(clean=False)

    # --- for MemoryBroker -----------------------------------------------------------------

    def filters(self) -> tuple[str, ...]:
        return tuple(self._filters)

    def deliver(self, event: object) -> None:
        if not self._closed:
            self._deliver(self._with_receipt(event) if isinstance(event, Received) else event)

    def _with_receipt(self, message: Received) -> Received:
        filters = map(without_share, self._manual_ack_filters)
        if not any(matches(topic_filter, message.topic) for topic_filter in filters):
            return message
        self._receipt_count += 1
        return replace(message, receipt=Receipt(0, self._receipt_count))

    def deliver_loss(self, reason: str, *, taken_over: bool = False) -> None:
        self.deliver(Disconnected(reason, taken_over))

    def _leave(self, *, clean: bool) -> None:
        self._closed = True
        self._broker.detach(self, clean=clean)
