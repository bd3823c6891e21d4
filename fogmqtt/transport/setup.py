"""What a connection is given: its setup, its subscriptions, its messages."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from paho.mqtt.properties import Properties

from fogmqtt.transport.base import Deliver, Will
from fogmqtt.transport.link import Link


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """What is to be published."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Properties | None
    token: object = None


@dataclass(frozen=True, slots=True)
class Setup:
    """What every connection of one transport has in common."""

    link: Link
    deliver: Deliver
    will: Will | None
    tls: ssl.SSLContext | None

    @property
    def keeps_session(self) -> bool:
        """Whether the broker holds for us what we did not acknowledge."""
        return self.link.protocol == 5 and self.link.session_s > 0


@dataclass(frozen=True, slots=True)
class Filter:
    """A subscription; `hold` and `optional` as in Transport.subscribe."""

    qos: int
    hold: bool = False
    optional: bool = False
