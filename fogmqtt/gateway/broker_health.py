"""The broker's health: messages that it dropped, and which of its settings to raise.

A broker does not publish its limits, so the figures are Mosquitto's defaults and those of our
`broker/mosquitto.conf`. It limits the messages in flight and in the queue of each client, by number
and by bytes, and drops further ones (mosquitto.conf(5); measured in docs/reliability.md).
"""

from __future__ import annotations

import logging
from typing import Final

from msgspec import Struct

log = logging.getLogger(__name__)

#: Mosquitto's counter of messages dropped on their way to clients, published every `sys_interval`
#: (10 s): a job that is shorter may end before its drops are known.
DROPPED: Final = "$SYS/broker/publish/messages/dropped"


class BrokerLimit(Struct, frozen=True):
    """One setting of mosquitto.conf; messages beyond it are dropped and counted."""

    name: str
    #: The value if mosquitto.conf does not set it; None means no limit.
    default: int | None
    #: The value in our `broker/mosquitto.conf`; None if it is not set there.
    configured: int | None = None
    #: A warning about values, appended to the description.
    warning: str = ""

    def __str__(self) -> str:
        default = "no limit" if self.default is None else str(self.default)
        configured = ""
        if self.configured is not None:
            configured = f", {self.configured} in broker/mosquitto.conf"
        return f"{self.name} ({default} unless set{configured}{self.warning})"


#: In the order in which a slow client reaches them.
LIMITS = (
    # With 0, Debian's build disconnects clients whose publish is denied.
    BrokerLimit("max_queued_messages", 1000, 10_000, "; never 0"),
    BrokerLimit("max_queued_bytes", None, 268_435_456),
    # Messages in flight are counted beside the queued ones.
    BrokerLimit("max_inflight_messages", 20),
    BrokerLimit("max_inflight_bytes", None),
)
#: Limits that end connections. They are not in the counter; the broker logs them.
DISCONNECTING_LIMITS = ("max_packet_size", "memory_limit")

REMEDY = (
    f"raise {LIMITS[0]} or {LIMITS[1]} in mosquitto.conf: the first one that a slow client "
    f"reaches; {LIMITS[2]} and {LIMITS[3]} count beside them; "
    f"{' and '.join(DISCONNECTING_LIMITS)} disconnect clients instead, and the broker logs that"
)


class DropCounter:
    """Follows the broker's counter, which counts dropped messages of all its clients."""

    def __init__(self) -> None:
        self._broker = ""
        self._last: int | None = None

    def connected(self, broker: str) -> None:
        """Note which broker counts from now on. Another one began at another number."""
        if broker != self._broker:
            self._broker, self._last = broker, None

    def unavailable(self, reason: str) -> None:
        """Log that the broker does not publish the counter."""
        log.info("messages that the broker drops cannot be counted: %s", reason)

    def increase(self, payload: bytes) -> int:
        """Take the counter's newest value; return by how much it rose, and log that."""
        if not (payload.isdigit() and len(payload) <= 20):
            log.debug("%s: %r is not a count", DROPPED, payload[:40])
            return 0
        count = int(payload)
        dropped = 0 if self._last is None else count - self._last
        self._last = count
        if dropped <= 0:  # below 0 the broker was restarted
            return 0
        log.warning("the broker dropped %d messages to slow clients: %s", dropped, REMEDY)
        return dropped
