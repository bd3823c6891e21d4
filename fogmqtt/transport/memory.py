"""A broker and its clients inside one process: what tests of gateway and agent talk through.

It behaves as Mosquitto does where our programs could tell: wildcards, shared subscriptions,
retained messages, last wills, one link per client id, a packet limit, stop and start. Time does
not pass in it: nothing expires, and a link that broke stays down until somebody acts.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from fogmqtt.errors import NotConnected, TooLarge
from fogmqtt.transport.base import (
    Connected,
    Deliver,
    Disconnected,
    Published,
    Receipt,
    Received,
    Refused,
    Will,
)
from fogmqtt.transport.link import unshared

#: As in the transport to a real broker: what a packet has beside topic and payload.
OVERHEAD_BYTES = 64
_SHARE = "$share/"


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a filter (`+` one level, `#` all that follow) takes a topic, as MQTT says."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at >= len(levels) or level not in ("+", levels[at]):
            return False
    return len(wanted) == len(levels)


@dataclass(frozen=True, slots=True)
class _Subscription:
    client_id: str
    #: As it was asked for; with `$share/<group>/` in front where it is shared.
    asked: str

    @property
    def group(self) -> str | None:
        return self.asked.split("/")[1] if self.asked.startswith(_SHARE) else None

    @property
    def topic_filter(self) -> str:
        return unshared(self.asked)


class MemoryBroker:
    """Starts running. `max_packet_bytes` is told to clients, as MQTT 5 brokers do."""

    def __init__(self, *, max_packet_bytes: int | None = None) -> None:
        self.max_packet_bytes = max_packet_bytes
        self._lock = threading.RLock()
        self._running = True
        self._known: list[MemoryTransport] = []
        self._links: dict[str, MemoryTransport] = {}
        self._subscriptions: list[_Subscription] = []
        self._retained: dict[str, bytes] = {}
        self._turns: dict[tuple[str, str], int] = {}

    def stop(self) -> None:
        """Break every link and forget what was retained; wills die with the broker."""
        with self._lock:
            self._running = False
            self._retained.clear()
            for transport in list(self._links.values()):
                self._drop(transport)
                transport.lose("the broker stopped")

    def start(self) -> None:
        """Run again; whoever was started and not closed connects again."""
        with self._lock:
            self._running = True
            for transport in list(self._known):
                self._connect(transport)

    def cut(self, client_id: str) -> None:
        """Break one link as a network does: its will is published, its owner told of the loss."""
        with self._lock:
            transport = self._links[client_id]
            self._drop(transport)
            transport.lose("the connection broke")
            self._publish_will(transport)

    def reconnect(self, client_id: str) -> None:
        """Let a client whose link was cut or taken over connect again, as it would by itself."""
        with self._lock:
            for transport in self._known:
                if transport.client_id == client_id and transport not in self._links.values():
                    self._connect(transport)
                    return

    def retained(self) -> dict[str, bytes]:
        """What lies retained, by topic."""
        with self._lock:
            return dict(self._retained)

    # --- for MemoryTransport --------------------------------------------------------------

    def attach(self, transport: MemoryTransport) -> None:
        with self._lock:
            self._known.append(transport)
            if self._running:
                self._connect(transport)
            else:
                transport.hear(Refused("nothing listens in memory; start the MemoryBroker"))

    def detach(self, transport: MemoryTransport, *, goodbye: bool) -> None:
        with self._lock:
            if transport in self._known:
                self._known.remove(transport)
            if self._links.get(transport.client_id) is not transport:
                return
            self._drop(transport)
            if not goodbye:
                self._publish_will(transport)

    def add(self, transport: MemoryTransport, topic_filter: str) -> None:
        with self._lock:
            if self._links.get(transport.client_id) is transport:
                self._subscribe(transport, topic_filter)

    def send(self, transport: MemoryTransport, topic: str, payload: bytes, retain: bool) -> None:
        with self._lock:
            if self._links.get(transport.client_id) is not transport:
                raise NotConnected(f"{topic}: no link to the broker at this moment")
            size = len(topic.encode()) + len(payload) + OVERHEAD_BYTES
            if self.max_packet_bytes is not None and size > self.max_packet_bytes:
                raise TooLarge(
                    f"{topic}: {size} bytes, but the broker takes {self.max_packet_bytes}; "
                    "make tiles smaller (wire.max_message_bytes)"
                )
            self._publish(topic, payload, retain)

    # --- inside, under the lock -----------------------------------------------------------

    def _connect(self, transport: MemoryTransport) -> None:
        before = self._links.get(transport.client_id)
        if before is transport:
            return
        if before is not None:
            self._drop(before)
            before.lose("another client connected under this id", taken_over=True)
            self._publish_will(before)
        self._links[transport.client_id] = transport
        transport.hear(Connected(self.max_packet_bytes))
        for topic_filter in transport.filters():
            self._subscribe(transport, topic_filter)

    def _drop(self, transport: MemoryTransport) -> None:
        del self._links[transport.client_id]
        self._subscriptions = [
            one for one in self._subscriptions if one.client_id != transport.client_id
        ]

    def _publish_will(self, transport: MemoryTransport) -> None:
        if transport.will is not None:
            self._publish(transport.will.topic, transport.will.payload, retain=True)

    def _subscribe(self, transport: MemoryTransport, topic_filter: str) -> None:
        subscription = _Subscription(transport.client_id, topic_filter)
        if subscription not in self._subscriptions:
            self._subscriptions.append(subscription)
        if subscription.group is not None:
            return  # a shared subscription gets nothing retained
        for topic, payload in self._retained.items():
            if matches(topic_filter, topic):
                transport.hear(Received(topic, payload, retained=True))

    def _publish(self, topic: str, payload: bytes, retain: bool) -> None:
        if retain and payload:
            self._retained[topic] = payload
        elif retain:
            self._retained.pop(topic, None)
        for client_id in self._receivers(topic):
            self._links[client_id].hear(Received(topic, payload))

    def _receivers(self, topic: str) -> list[str]:
        """Everybody who subscribed, and one of each sharing group, in turn."""
        found: list[str] = []
        groups: dict[tuple[str, str], list[str]] = {}
        for one in self._subscriptions:
            if not matches(one.topic_filter, topic):
                continue
            if one.group is None:
                found.append(one.client_id)
            else:
                groups.setdefault((one.group, one.topic_filter), []).append(one.client_id)
        return found + [self._next_of(key, members) for key, members in groups.items()]

    def _next_of(self, key: tuple[str, str], members: list[str]) -> str:
        turn = self._turns.get(key, 0)
        self._turns[key] = turn + 1
        return members[turn % len(members)]


class MemoryTransport:
    """`Transport` to a MemoryBroker; `deliver` is called on whichever thread acts."""

    def __init__(
        self, broker: MemoryBroker, client_id: str, deliver: Deliver, *, will: Will | None = None
    ) -> None:
        self.client_id = client_id
        self.will = will
        self._broker = broker
        self._deliver = deliver
        self._filters: dict[str, int] = {}
        self._held: list[str] = []
        self._count = 0
        #: What our owner took for good, in its order.
        self.acknowledged: list[Receipt] = []
        self._closed = False

    def start(self) -> None:
        self._broker.attach(self)

    def subscribe(
        self, topic_filter: str, *, qos: int = 1, hold: bool = False, optional: bool = False
    ) -> None:
        del optional  # every filter is granted here
        self._filters[topic_filter] = qos
        if hold:
            self._held.append(topic_filter)
        self._broker.add(self, topic_filter)

    def acknowledge(self, receipt: Receipt) -> None:
        self.acknowledged.append(receipt)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expires_s: float | None = None,
        content_type: str | None = None,
        token: object = None,
    ) -> None:
        del qos, expires_s, content_type  # nothing is lost here, and nothing grows old
        self._broker.send(self, topic, bytes(payload), retain)
        if token is not None:
            self.hear(Published(token))

    def close(self) -> None:
        self._leave(goodbye=True)

    def kill(self) -> None:
        """Die without a word: the broker publishes our will, and we hear nothing any more."""
        self._leave(goodbye=False)

    # --- for MemoryBroker -----------------------------------------------------------------

    def filters(self) -> tuple[str, ...]:
        return tuple(self._filters)

    def hear(self, event: object) -> None:
        if not self._closed:
            self._deliver(self._with_receipt(event) if isinstance(event, Received) else event)

    def _with_receipt(self, message: Received) -> Received:
        if not any(matches(unshared(one), message.topic) for one in self._held):
            return message
        self._count += 1
        return replace(message, receipt=Receipt(0, self._count))

    def lose(self, reason: str, *, taken_over: bool = False) -> None:
        self.hear(Disconnected(reason, taken_over))

    def _leave(self, *, goodbye: bool) -> None:
        self._closed = True
        self._broker.detach(self, goodbye=goodbye)
