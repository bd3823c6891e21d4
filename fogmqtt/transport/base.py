"""The seam to the broker: what happens arrives in an inbox, what we say goes through four calls.

Nothing is ever called back. An implementation puts `Connected`, `Disconnected`, `Refused` and
`Received` into the queue that it was given and does nothing else on its own thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

#: Where a transport puts what happened. Called on the transport's thread; must only enqueue.
Deliver = Callable[[object], None]


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker took us, and every filter that we subscribed to is in force.

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
class Received:
    """A message. `retained`: it lay at the broker, it was not said just now."""

    topic: str
    payload: bytes
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says for us when we vanish; retained, QoS 1."""

    topic: str
    payload: bytes


class Transport(Protocol):
    """One client's link to one broker."""

    def start(self) -> None:
        """Connect in the background, and again whenever the link breaks."""

    def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
        """Subscribe now and after every reconnect."""

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expires_s: float | None = None,
        content_type: str | None = None,
    ) -> None:
        """Hand a message to the link; never blocks. Callable from any thread.

        Raises NotConnected where there is no link (nothing is queued for later) and TooLarge
        where the message is over the broker's limit.
        """

    def close(self) -> None:
        """Say goodbye, after what was handed over has left where the link allows; idempotent."""
