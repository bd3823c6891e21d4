"""The interface between the program and its connection to a broker.

A transport calls no code of its owner. It puts the events `Connected`, `Disconnected`, `Refused`,
`Unavailable`, `Received`, `Published` and `Pong` into the queue of the owner and does nothing else
on its own thread. The owner publishes and subscribes through the methods of `Transport`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from msgspec import Struct

#: Puts an event into the owner's queue. The transport calls it on its thread, so it must not do
#: anything else.
Deliver = Callable[[object], None]

#: A payload: bytes, or pieces that are sent one after the other without being joined. The owner
#: must not change the memory of a piece before the broker has the message.
Payload = bytes | tuple[bytes | memoryview, ...]

#: The largest payload that always arrives as bytes; a larger one may arrive as a memoryview.
MAX_SMALL_BYTES: Final = 8192

#: The bytes of a PUBLISH packet beside topic and payload, at most: the fixed header, the packet id,
#: the expiry and the content type. `MessageProperties` come on top.
PACKET_OVERHEAD_BYTES = 64


@dataclass(frozen=True, slots=True)
class MessageProperties:
    """Properties of a message; they exist on MQTT 5 only.

    `response_topic` and `correlation` are for answers, `traceparent` is the trace that the message
    belongs to (a user property, as W3C Trace Context has it). `user` are other user properties.
    """

    response_topic: str = ""
    correlation: bytes = b""
    traceparent: str = ""
    content_type: str = ""
    user: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int:
        """The bytes in the packet, at most; without the content type."""
        if self is NO_PROPERTIES or self == NO_PROPERTIES:
            return 0
        texts = len(self.response_topic.encode()) + len(self.traceparent)
        texts += sum(5 + len(name.encode()) + len(value.encode()) for name, value in self.user)
        return texts + len(self.correlation) + 32


NO_PROPERTIES: Final = MessageProperties()


#: The user property with what vendors add to a trace (W3C Trace Context).
TRACESTATE: Final = "tracestate"


def with_trace(traceparent: str, tracestate: str = "") -> MessageProperties:
    """Return the properties of a message that belongs to a trace; an empty text is none."""
    if not traceparent:
        return NO_PROPERTIES
    return MessageProperties(traceparent=traceparent, user=trace_state(tracestate))


def trace_state(tracestate: str) -> tuple[tuple[str, str], ...]:
    """Return the user properties that carry what vendors add to a trace."""
    return ((TRACESTATE, tracestate),) if tracestate else ()


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker accepted the connection and confirmed all subscriptions but the optional ones.

    `max_packet_bytes` is the broker's limit for one packet, if the broker announced it (MQTT 5) or
    lost connections taught it. `url` is where the broker is; empty for the configured one.
    """

    max_packet_bytes: int | None = None
    url: str = field(default="", compare=False)


class Disconnected(Struct, frozen=True):
    """The connection was lost. The transport connects again by itself.

    `taken_over` means that another client connected with the same client id.
    """

    reason: str
    taken_over: bool = False


class Refused(Struct, frozen=True):
    """An attempt to connect failed. The transport tries again by itself.

    `final` means that only a human can remove the cause (credentials, certificate). `revoked` means
    that no later attempt can succeed with this certificate. `unknown` means that nobody knows the
    name of the broker's machine: of several brokers, those that are known decide.
    """

    reason: str
    final: bool = False
    revoked: bool = False
    unknown: bool = False


class Receipt(Struct, frozen=True):
    """Identifies a message that the owner must acknowledge."""

    #: The number of the connection. On another connection, the same packet id means another
    #: message.
    connection: int
    packet_id: int
    #: The broker sent the message before, on this connection or an earlier one (the DUP flag).
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """A message. `retained` means that the broker had stored it before the subscription.

    `receipt` is set if the subscription has `manual_ack`; pass it to `Transport.acknowledge`. `at`
    is when it arrived, in seconds of the monotonic clock; the owner may handle it later.
    """

    topic: str
    #: A payload over MAX_SMALL_BYTES may be a read-only view of the packet that it came in.
    payload: bytes | memoryview
    retained: bool = False
    receipt: Receipt | None = None
    at: float = field(default_factory=time.monotonic, compare=False)
    properties: MessageProperties = field(default=NO_PROPERTIES, compare=False)


@dataclass(frozen=True, slots=True)
class Published:
    """The broker has the message with this token. With QoS 0: the socket has it.

    `refusal` is the reason if the broker did not accept the message; MQTT 5 brokers send one. `at`
    is when its answer arrived, in seconds of the monotonic clock.
    """

    token: object
    refusal: str = ""
    at: float = field(default_factory=time.monotonic, compare=False)


class Pong(Struct, frozen=True):
    """The broker answered a ping that was sent at `at`, in seconds of the monotonic clock.

    What it sent to this client before that time was delivered before this event.
    """

    at: float


class Unavailable(Struct, frozen=True):
    """The broker does not grant an optional subscription. It is not asked for it again."""

    topic_filter: str
    reason: str


class Will(Struct, frozen=True):
    """The message that the broker publishes if the connection is lost; retained, QoS 1."""

    topic: str
    payload: bytes


def payload_pieces(payload: Payload) -> tuple[bytes | memoryview, ...]:
    """Return the pieces of a payload; bytes are one piece."""
    return payload if isinstance(payload, tuple) else (payload,)


def payload_size(payload: Payload) -> int:
    """Return the number of bytes of a payload. The items of its pieces must be bytes."""
    return sum(map(len, payload_pieces(payload)))


def packet_size(topic: str, payload: Payload, properties: MessageProperties = NO_PROPERTIES) -> int:
    """Return the bytes of a PUBLISH packet, at most."""
    beside = PACKET_OVERHEAD_BYTES + properties.size
    return len(topic.encode()) + payload_size(payload) + beside


def join_payload(payload: Payload) -> bytes:
    """Return a payload as bytes, joined if it is in pieces."""
    return b"".join(payload) if isinstance(payload, tuple) else bytes(payload)


class Transport(Protocol):
    """The connection of one client to one broker."""

    def start(self) -> None:
        """Connect in the background, and again after each loss."""

    def subscribe(
        self, topic_filter: str, *, qos: int = 1, manual_ack: bool = False, optional: bool = False
    ) -> None:
        """Subscribe now and after each reconnect.

        A broker that does not grant an `optional` subscription does not prevent the connection:
        Unavailable is delivered once for each broker.

        With `manual_ack`, the transport acknowledges a QoS 1 message to the broker only when the
        owner calls `acknowledge`. The broker limits the number of unacknowledged messages to one
        client (Mosquitto: 20).
        """

    def acknowledge(self, receipt: Receipt) -> None:
        """Acknowledge a message to the broker. Does nothing if its connection is gone.

        Call it in the order in which the messages arrived. Any thread may call it.
        """

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
        """Hand a message to the connection. Never blocks. Any thread may call it.

        `properties`, `content_type` and `expires_s` are dropped on MQTT 3.1.1.
        The memory of a payload in pieces is read until the broker has the message.

        With a `token`, Published follows when the broker has the message. If the connection is
        lost before, only Disconnected follows. Raises NotConnected if there is no connection
        (nothing is queued for later), and TooLarge if the message exceeds the broker's limit.
        """

    def ping(self) -> None:
        """Ask the broker for an answer; Pong follows, or Disconnected. Any thread may call it.

        Raises NotConnected if there is no connection.
        """

    def close(self) -> None:
        """Send the messages that were handed over, if possible, and disconnect; idempotent."""
