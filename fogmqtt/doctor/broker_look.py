"""A look at the broker as one more client: what it lets through, how fast, and who is there."""

from __future__ import annotations

import queue
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from fogmqtt.errors import NotConnected, TooLarge, WireError
from fogmqtt.transport.base import (
    Connected,
    Disconnected,
    Pong,
    Published,
    Received,
    Refused,
    Transport,
    Unavailable,
)
from fogmqtt.transport.link import Link, parse_url
from fogmqtt.transport.paho import PahoTransport
from fogmqtt.wire.messages import Decoder, DeviceInfo, GatewayInfo
from fogmqtt.wire.topics import ONLINE, Topics, is_id

T = TypeVar("T")

#: Mosquitto's counter of messages that it dropped.
DROPPED: Final = "$SYS/broker/publish/messages/dropped"
#: What Mosquitto always says, also while it has dropped nothing and is silent about that.
_VERSION: Final = "$SYS/broker/version"
#: Seconds in which a device checks in once (device.checkin_s is 5), and a little.
LISTEN_S: Final = 7.0
#: Seconds until a broker must have taken a message.
_PATIENCE_S: Final = 20.0
_PINGS: Final = 5
#: Seconds in which an examination begins again after the broker ended its connection. A broker
#: may do so for each subscription that it does not grant.
_STEADY_WITHIN_S: Final = 15.0
#: Marks the answer to the message of that size.
_LOAD: Final = object()
#: Bytes that are sent to measure the link.
_LOAD_BYTES: Final = 200_000


@dataclass(slots=True)
class Seen:
    """A device or gateway as its topics describe it."""

    online: bool = False
    #: The processes that spoke under this id.
    boots: set[str] = field(default_factory=set)
    #: The same, without what the broker had kept from before.
    live_boots: set[str] = field(default_factory=set)
    version: str = ""
    #: Whether its gateway can update it.
    updates: bool = False
    serves: bool = False
    #: How far its clock is ahead of this one, in seconds; None: it has not said it yet.
    clock_ahead_s: float | None = None


@dataclass(slots=True)
class BrokerFacts:
    """What was found. Times are seconds; None: it could not be measured."""

    #: The broker that was examined; the first one if none was reached.
    url: str
    #: Why brokers were not reached, in the order in which they were tried, by their address.
    refusals: dict[str, str] = field(default_factory=dict)
    reached: bool = False
    #: Why the broker ended the connection again and again; empty if it did not.
    unsteady: str = ""
    #: Another client came with the same client id, and the broker ended this connection.
    taken_over: bool = False
    max_packet_bytes: int | None = None
    #: Whether the counters of the broker may be read; None: it was not asked for.
    has_counters: bool | None = None
    dropped: int = 0
    #: Whether the group of gateways can share submissions; None: there is no group.
    has_shared: bool | None = None
    ping_s: float | None = None
    #: From a publish to its echo, where the broker sends two small packets in a row.
    echo_s: float | None = None
    bytes_per_s: float | None = None
    devices: dict[str, Seen] = field(default_factory=dict)
    gateways: dict[str, Seen] = field(default_factory=dict)


class Look:
    """One connection. `own` is a topic that this client may write and read."""

    def __init__(
        self,
        link: Link,
        topics: Topics,
        own: str,
        *,
        counters: bool,
        group: str = "",
        connect: Callable[[Link, Callable[[object], None]], Transport] = PahoTransport,
    ) -> None:
        self.facts = BrokerFacts(str(link.address))
        self._topics, self._own = topics, own
        self._brokers = [str(one.address) for one in link.each()]
        self._events: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._devices = Decoder(DeviceInfo)
        self._gateways = Decoder(GatewayInfo)
        self._transport = connect(link, self._events.put)
        self._transport.subscribe(own, optional=True)
        self._shared = f"$share/{group}/{own}" if group else ""
        if group:
            self.facts.has_shared = True
            self._transport.subscribe(self._shared, optional=True)
        for kind in (topics.device, topics.gateway):
            for leaf in ("status", "info"):
                self._transport.subscribe(kind("+", leaf), optional=True)
        if counters:
            self.facts.has_counters = False if link.has_counters else None
            for topic in (DROPPED, _VERSION):
                self._transport.subscribe(topic, optional=True)

    def take(self, within_s: float, listen_s: float = LISTEN_S) -> BrokerFacts:
        """Connect, measure and listen; returns what was found."""
        self._transport.start()
        try:
            if self._is_reached(within_s):
                self._examine(within_s)
            if self.facts.reached:
                self._wait(lambda _: self.facts.taken_over, listen_s)
        finally:
            self._transport.close()
        return self.facts

    def _is_reached(self, within_s: float) -> bool:
        """Wait until one of the brokers lets this client in, or none does."""
        facts = self.facts
        for address in self._brokers:
            event = self._wait(lambda event: isinstance(event, Connected | Refused), within_s)
            match event:
                case Connected(max_packet_bytes, url):
                    facts.url = str(parse_url(url)) if url else address
                    facts.max_packet_bytes, facts.reached = max_packet_bytes, True
                    return True
                case Refused(reason):
                    facts.refusals[address] = reason
                case _:
                    facts.refusals[address] = f"{address} does not answer within {within_s:g} s"
        return False

    def _examine(self, within_s: float) -> None:
        """Measure. A broker may end the connection, such as for a subscription to $SYS."""
        until = time.monotonic() + _STEADY_WITHIN_S
        while time.monotonic() < until:
            try:
                self._measure()
            except NotConnected as problem:
                self.facts.unsteady = str(problem)
            if not self.facts.unsteady or self.facts.taken_over:
                return
            self._wait(lambda event: isinstance(event, Connected), within_s)

    def _measure(self) -> None:
        facts = self.facts
        facts.unsteady = ""
        pings = [self._ping() for _ in range(_PINGS)]
        facts.ping_s = statistics.median(pings) if all(pings) else None
        echoes = [self._echo(number) for number in range(_PINGS)]
        facts.echo_s = statistics.median(echoes) if all(echoes) else None
        facts.bytes_per_s = self._rate()

    def _ping(self) -> float:
        """Return the seconds of a ping, 0 if none came."""
        began = time.monotonic()
        self._transport.ping()
        event = self._answer(lambda event: isinstance(event, Pong), _PATIENCE_S)
        return time.monotonic() - began if event is not None else 0.0

    def _echo(self, number: int) -> float:
        began = time.monotonic()
        payload = f"doctor {number}".encode()
        self._transport.publish(self._own, payload, qos=1)

        def is_echo(event: object) -> bool:
            return isinstance(event, Received) and bytes(event.payload) == payload

        event = self._answer(is_echo, 2.0)
        return time.monotonic() - began if event is not None else 0.0

    def _rate(self) -> float | None:
        """Return the bytes per second to the broker; it need not pass them on."""
        limit = self.facts.max_packet_bytes
        size = min(_LOAD_BYTES, (limit or _LOAD_BYTES) - 1000)
        if size < 1000:
            return None
        began = time.monotonic()
        try:
            self._transport.publish(f"{self._own}/load", bytes(size), qos=1, token=_LOAD)
        except TooLarge:
            return None  # the broker's limit was learnt meanwhile
        event = self._answer(
            lambda event: isinstance(event, Published) and event.token is _LOAD, _PATIENCE_S
        )
        took = time.monotonic() - began - (self.facts.ping_s or 0.0)
        return None if event is None else size / max(took, 1e-3)

    def _answer(self, wanted: Callable[[object], bool], within_s: float) -> Any:
        """Wait for an event on this connection. Raises NotConnected if the connection ends."""
        event = self._wait(lambda event: isinstance(event, Disconnected) or wanted(event), within_s)
        if isinstance(event, Disconnected):
            raise NotConnected(event.reason)
        return event

    def _wait(self, wanted: Callable[[object], bool], within_s: float) -> Any:
        """Note all events until one is wanted; returns it, or None after a while."""
        deadline = time.monotonic() + within_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                event = self._events.get(timeout=left)
            except queue.Empty:
                return None
            self._note(event)
            if wanted(event):
                return event
        return None

    def _note(self, event: object) -> None:
        match event:
            case Received():
                self._received(event)
            case Unavailable(topic_filter=topic_filter) if topic_filter == self._shared:
                self.facts.has_shared = False
            case Disconnected(taken_over=True):
                self.facts.taken_over = True
            case _:
                pass

    def _received(self, message: Received) -> None:
        if message.topic.startswith("$SYS/"):
            self.facts.has_counters = True
            text = bytes(message.payload)[:20]
            if message.topic == DROPPED and text.isdigit():
                self.facts.dropped = int(text)
            return
        try:
            match self._topics.levels(message.topic):
                case ("devices", name, leaf) if is_id(name):
                    seen = self.facts.devices.setdefault(name, Seen())
                    self._describe(seen, leaf, message, self._devices)
                case ("gateways", name, leaf) if is_id(name):
                    seen = self.facts.gateways.setdefault(name, Seen())
                    self._describe(seen, leaf, message, self._gateways)
                case _:
                    pass
        except WireError:
            return  # a gateway says so in its log

    def _describe(self, seen: Seen, leaf: str, message: Received, decoder: Decoder[Any]) -> None:
        if leaf == "status":
            seen.online = bytes(message.payload) == ONLINE
        elif leaf == "info" and message.payload:
            info = decoder.decode(message.payload)
            seen.boots.add(info.boot)
            if not message.retained:
                seen.live_boots.add(info.boot)
                if info.clock is not None:
                    seen.clock_ahead_s = info.clock - time.time()
            seen.version = info.versions.get("fogmqtt", "")
            seen.updates = bool(getattr(info, "updates", False))
            seen.serves = bool(getattr(info, "pipelines", ()))
