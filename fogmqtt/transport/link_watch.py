"""When a connection is dead although nobody closed it, and when a broker acknowledges no more.

TCP does not tell that the other machine is gone, or that an address changed. So the broker is
pinged every few seconds, and a connection on which nothing arrives for long is given up. Pure
logic without a clock; times are seconds of the monotonic clock.
"""

from __future__ import annotations

from collections import deque
from typing import Final

#: Seconds between two pings.
PING_S: Final = 5.0
#: A connection is dead after so many seconds in which nothing arrived, …
DEAD_S: Final = 15.0
#: … and later if bytes are on their way: a proxy may hold them, and the ping behind them, while a
#: slow link passes so many bytes per second on.
_SLOWEST_BYTES_PER_S: Final = 10_000.0
#: It is not later by more than this.
_LONGEST_WAIT_S: Final = 105.0
#: Whoever looks less often was stopped meanwhile, and must read what arrived before it judges.
_STOPPED_S: Final = 3.0


class LinkWatch:
    """Watches one connection from its CONNACK on. `look` is called every second or more often."""

    def __init__(self, now: float, keepalive_s: float) -> None:
        """`keepalive_s`: the broker disconnects a client that sends nothing for so long."""
        self._ping_s = min(PING_S, keepalive_s / 2)
        self._looked_at = self._heard_at = self._acknowledged_at = now
        self._pinged_at = now
        #: Pings that the broker has not answered: when they were sent, and whether the owner asked.
        self._pings: deque[tuple[float, bool]] = deque()
        #: The broker has read what was sent before this time.
        self._read_until = float("-inf")
        #: Messages that the broker has not acknowledged: their bytes, and when they were sent.
        self._waiting: dict[int, tuple[int, float]] = {}
        self._waiting_bytes = 0

    def look(self, now: float, heard_at: float) -> None:
        """Note the present time, and when the last bytes arrived."""
        stopped_s = now - self._looked_at
        if stopped_s > _STOPPED_S:
            self._heard_at += stopped_s
            self._acknowledged_at += stopped_s
        self._looked_at = now
        self._heard_at = max(self._heard_at, heard_at)

    def needs_ping(self, now: float) -> bool:
        """Whether it is time for the next ping."""
        return now - self._pinged_at >= self._ping_s

    def pinged(self, now: float, *, asked: bool = False) -> None:
        """Note that a ping is sent. `asked`: the owner wants to know of its answer."""
        self._pinged_at = now
        self._pings.append((now, asked))

    def answered(self) -> float | None:
        """Note the answer to the oldest ping.

        Returns when that ping was sent if the owner asked for it.
        """
        if not self._pings:
            return None
        sent_at, asked = self._pings.popleft()
        self._read_until = sent_at
        return sent_at if asked else None

    def sent(self, packet_id: int, nbytes: int, now: float) -> None:
        """Note a message that the broker must acknowledge."""
        self._waiting[packet_id] = nbytes, now
        self._waiting_bytes += nbytes

    def acknowledged(self, packet_id: int, now: float) -> None:
        """Note that the broker took or refused a message."""
        self._acknowledged_at = now
        self._waiting_bytes -= self._waiting.pop(packet_id, (0, 0.0))[0]

    def silent_s(self, now: float) -> float:
        """Seconds since the last bytes arrived."""
        return now - self._heard_at

    def problem(self, now: float) -> str:
        """Return why the connection must be given up; empty if it need not."""
        wait_s = DEAD_S + min(self._waiting_bytes / _SLOWEST_BYTES_PER_S, _LONGEST_WAIT_S)
        if self._pings and self.silent_s(now) > wait_s:
            return (
                f"nothing came from it for {self.silent_s(now):.0f} s, not even the answer to a "
                "ping: its machine, the broker or the network between is down"
            )
        if self._is_deaf(now):
            return (
                f"it answers pings, but has acknowledged no message for {DEAD_S:g} s: it may lack "
                "memory or disk space, or a message is over one of its limits; see its log"
            )
        return ""

    def _is_deaf(self, now: float) -> bool:
        """Whether the broker has read messages long ago that it does not acknowledge."""
        if not self._waiting:
            return False
        oldest_at = next(iter(self._waiting.values()))[1]
        since = max(oldest_at, self._acknowledged_at)
        return now - since > DEAD_S and self._read_until > since
