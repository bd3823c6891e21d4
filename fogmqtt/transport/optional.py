"""Subscriptions that a client can do without, because some brokers do not grant them.

A broker may refuse such a filter in its SUBACK, leave it unanswered, or close the connection of a
client that subscribes to it (AWS IoT Core, EMQX with `deny_action = disconnect`, rumqttd). So the
client subscribes to it only when every other subscription is confirmed, one at a time. Then a lost
connection shows which filter the broker did not grant.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: Seconds that Connected waits for the SUBACK. A broker that closes the connection does so at
#: once, and nothing that could be lost is sent before.
ANSWER_S: Final = 1.0
#: Seconds without a SUBACK after which none is expected.
GIVE_UP_S: Final = 10.0
#: If the connection ends within this many seconds of the SUBACK, the subscription is the reason.
GRACE_S: Final = 1.0


class OptionalFilters:
    """The state of the optional filters of one connection. It is pure and not thread-safe."""

    def __init__(self, filters: Iterable[str]) -> None:
        self._waiting = list(filters)
        #: The filter of the newest SUBSCRIBE, its time, and its packet id until the SUBACK.
        self._current = ""
        self._sent_at = 0.0
        self._packet_id: int | None = None
        #: The time when the newest one was granted.
        self._granted_at: float | None = None

    def add(self, topic_filter: str) -> None:
        """Add a filter behind the others."""
        self._waiting.append(topic_filter)

    def next(self) -> str | None:
        """The filter to subscribe to now; None if there is none, or a SUBACK is awaited."""
        return self._waiting[0] if self._waiting and self._packet_id is None else None

    def sent(self, packet_id: int, now: float) -> None:
        """Note that SUBSCRIBE was sent for the next filter."""
        self._current = self._waiting.pop(0)
        self._sent_at, self._packet_id, self._granted_at = now, packet_id, None

    def answered(self, packet_id: int, granted_at: float | None) -> str | None:
        """Note a SUBACK; `granted_at` is None if it refuses the filter.

        Returns the filter, or None if the SUBACK belongs to another subscription.
        """
        if packet_id != self._packet_id:
            return None
        self._packet_id, self._granted_at = None, granted_at
        return self._current

    def delays_connected(self, now: float) -> bool:
        """Whether Connected should wait for a SUBACK."""
        if self._packet_id is None:
            return bool(self._waiting)
        return now - self._sent_at < ANSWER_S

    def overdue(self, now: float) -> str | None:
        """A filter whose SUBACK is not expected any more; returned once."""
        if self._packet_id is None or now - self._sent_at < GIVE_UP_S:
            return None
        self._packet_id = None
        return self._current

    def reason_for_loss(self, now: float) -> str | None:
        """The filter because of which the broker has just closed the connection, if any."""
        if self._packet_id is not None:
            return self._current
        if self._granted_at is not None and now - self._granted_at < GRACE_S:
            return self._current
        return None
