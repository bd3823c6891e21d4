"""What to raise in mosquitto.conf where the broker drops messages, and what it is now.

A broker does not tell its limits, so the figures are Mosquitto's own defaults and those of our
`broker/mosquitto.conf`. It keeps for each client what is in flight plus what is queued, by number
and by bytes, and drops what comes then (mosquitto.conf(5); measured in docs/reliability.md).
"""

from __future__ import annotations

from dataclasses import dataclass


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
