"""What the broker tells of its health: messages that it dropped, and what to raise in its settings.

A broker does not tell its limits, so the figures are Mosquitto's own defaults and those of our
`broker/mosquitto.conf`. It keeps for each client what is in flight plus what is queued, by number
and by bytes, and drops what comes then (mosquitto.conf(5); measured in docs/reliability.md).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

log = logging.getLogger(__name__)

#: Mosquitto's counter of messages dropped on their way to clients, published every `sys_interval`
#: (10 s): a job that is shorter may end before its drops are known.
DROPPED: Final = "$SYS/broker/publish/messages/dropped"


@dataclass(frozen=True, slots=True)
class BrokerLimit:
    """One setting of mosquitto.conf whose excess is dropped and counted."""

    name: str
    #: Where mosquitto.conf says nothing of it; None: no limit.
    default: int | None
    #: In `broker/mosquitto.conf`; None: not said there.
    ours: int | None = None
    #: What to mind.
    mind: str = ""

    @property
    def told(self) -> str:
        """The setting with its value, as people read it."""
        usual = "no limit" if self.default is None else str(self.default)
        ours = "" if self.ours is None else f", {self.ours} in broker/mosquitto.conf"
        return f"{self.name} ({usual} unless set{ours}{self.mind})"


#: In the order in which they are met.
LIMITS = (
    # 0 cuts clients off whose publish is denied, on Debian's build.
    BrokerLimit("max_queued_messages", 1000, 10_000, "; never 0"),
    BrokerLimit("max_queued_bytes", None, 268_435_456),
    # These are on the way to a client beside what is queued for it.
    BrokerLimit("max_inflight_messages", 20),
    BrokerLimit("max_inflight_bytes", None),
)
#: These end connections instead, and are not in that counter: the broker's log tells of them.
CUTTING = ("max_packet_size", "memory_limit")

REMEDY = (
    f"raise {LIMITS[0].told} or {LIMITS[1].told} in mosquitto.conf, whichever a client that reads "
    f"slowly reaches first; {LIMITS[2].told} and {LIMITS[3].told} count beside them; "
    f"{' and '.join(CUTTING)} cut clients off instead, which its log tells"
)


class DropCounter:
    """Follows the broker's counter, which counts the messages of all of its clients."""

    def __init__(self) -> None:
        self._last: int | None = None

    def unavailable(self, reason: str) -> None:
        """The broker does not publish the counter."""
        log.info("messages that the broker drops stay unknown: %s", reason)

    def increase(self, payload: bytes) -> int:
        """Take the counter's newest value; return by how much it rose, and log that."""
        if not (payload.isdigit() and len(payload) <= 20):
            log.debug("%s: %r is no count", DROPPED, payload[:40])
            return 0
        count = int(payload)
        more = 0 if self._last is None else count - self._last
        self._last = count  # lower than before: the broker was started again
        if more <= 0:
            return 0
        log.warning("the broker dropped %d messages to slow clients: %s", more, REMEDY)
        return more
