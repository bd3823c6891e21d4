"""The seam to the broker: what happens arrives in an inbox, what we say goes through a few calls.

Nothing is ever called back. An implementation puts `Connected`, `Disconnected`, `Refused`,
`Unavailable`, `Received` and `Published` into the queue that it was given and does nothing else on
its own thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

#: Where a transport puts what happened. Called on the transport's thread; must only enqueue.
Deliver = Callable[[object], None]


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker took us, and every filter that we subscribed to is in force, optional ones aside.

    `max_packet_bytes` is the broker's limit for one packet where it told us (MQTT 5).
    """

    max_packet_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The link is down; the transport tries again by itself. `taken_over`: by our own id."""

    reason: str
    taken_over: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A try to connect failed; the transport goes on trying.

    `final`: trying again cannot help before a human acts (credentials, certificate).
    """

    reason: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the broker waits for: that we took a message for good."""

    #: Which connection it came on: on another one its number is another message's.
    connection: int
    mid: int
    #: The broker sends it not for the first time: an earlier connection took no end with it.
    again: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """A message. `retained`: it lay at the broker, it was not said just now.

    `receipt` is there where the filter was subscribed with `hold`: give it to `acknowledge`.
    """

    topic: str
    payload: bytes
    retained: bool = False
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """The broker has the message that was published with this token (QoS 0: the socket has).

    `refusal` says why the broker did not take it; empty if it did. MQTT 5 brokers tell.
    """

    token: object
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The broker does not grant an optional subscription; it is not asked for it again."""

    topic_filter: str
    reason: str


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says for us when we vanish; retained, QoS 1."""

    topic: str
    payload: bytes


class Transport(Protocol):
    """One client's link to one broker."""

    def start(self) -> None:
        """Connect in the background, and again whenever the link breaks."""

    def subscribe(
        self, topic_filter: str, *, qos: int = 1, hold: bool = False, optional: bool = False
    ) -> None:
        """Subscribe now and after every reconnect.

        An `optional` subscription never keeps us from being connected: Unavailable tells once
        that the broker does not grant it.

        With `hold` the broker is told of a QoS 1 message only by `acknowledge`. Until then it
        counts against what the broker has on its way to us (Mosquitto: 20 messages).
        """

    def acknowledge(self, receipt: Receipt) -> None:
        """Tell the broker that a message is safe; in vain where its connection is gone.

        In the order in which they came. Callable from any thread.
        """

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
        """Hand a message to the link; never blocks. Callable from any thread.

        With a `token`, Published tells when the broker has it; a link that breaks before says
        nothing but Disconnected. Raises NotConnected where there is no link (nothing is queued
        for later) and TooLarge where the message is over the broker's limit.
        """

    def close(self) -> None:
        """Say goodbye, after what was handed over has left where the link allows; idempotent."""
