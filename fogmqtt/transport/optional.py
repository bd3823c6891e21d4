"""Subscriptions that a client can do without, because some brokers do not grant them.

A broker may refuse such a filter in its SUBACK, leave it unanswered, or close the connection of a
client that subscribes to it (AWS IoT Core, EMQX with `deny_action = disconnect`, rumqttd). So the
client subscribes to it only when every other subscription is confirmed, one at a time. Then a lost
connection shows which filter the broker did not grant.

A broker may close the connection after its SUBACK, too. If several filters were granted or asked
for shortly before the loss, each is a suspect. The next connection subscribes to the suspects
first, the newest one first, and waits `GRACE_S` after each. So a second loss has one suspect only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

#: Seconds that Connected waits for the SUBACK. A broker that closes the connection does so at
#: once, and nothing that could be lost is sent before.
ANSWER_S: Final = 1.0
#: Seconds without a SUBACK after which none is expected.
GIVE_UP_S: Final = 10.0
#: If the connection ends within this many seconds of a SUBACK, the filter may be the reason.
GRACE_S: Final = 1.0


class OptionalFilters:
    """The state of the optional filters of one connection. It is pure and not thread-safe."""

    def __init__(self, filters: Iterable[str], suspects: Sequence[str] = ()) -> None:
        """`suspects`: those that the last connection left, see `suspects`."""
        names = list(filters)
        #: The filters after which no other SUBSCRIBE is sent for a while.
        self._alone = [name for name in suspects if name in names]
        self._waiting = [*self._alone, *(name for name in names if name not in self._alone)]
        #: The filter of the newest SUBSCRIBE, its time, and its packet id until the SUBACK.
        self._current = ""
        self._sent_at = 0.0
        self._packet_id: int | None = None
        #: When each filter was granted.
        self._granted_at: dict[str, float] = {}

    def add(self, topic_filter: str) -> None:
        """Add a filter behind the others."""
        self._waiting.append(topic_filter)

    def next(self, now: float) -> str | None:
        """The filter to subscribe to now; None if there is none, or another one is on trial."""
        if not self._waiting or self._packet_id is not None:
            return None
        return None if self._is_on_trial(now) else self._waiting[0]

    def sent(self, packet_id: int, now: float) -> None:
        """Note that SUBSCRIBE was sent for the next filter."""
        self._current = self._waiting.pop(0)
        self._sent_at, self._packet_id = now, packet_id

    def answered(self, packet_id: int, granted_at: float | None) -> str | None:
        """Note a SUBACK; `granted_at` is None if it refuses the filter.

        Returns the filter, or None if the SUBACK belongs to another subscription.
        """
        if packet_id != self._packet_id:
            return None
        self._packet_id = None
        if granted_at is not None:
            self._granted_at[self._current] = granted_at
        return self._current

    def delays_connected(self, now: float) -> bool:
        """Whether Connected should wait for a SUBACK. It waits for no trial: that takes long."""
        if self._packet_id is None:
            return bool(self._waiting) and not self._is_on_trial(now)
        return now - self._sent_at < ANSWER_S

    def overdue(self, now: float) -> str | None:
        """A filter whose SUBACK is not expected any more; returned once."""
        if self._packet_id is None or now - self._sent_at < GIVE_UP_S:
            return None
        self._packet_id = None
        return self._current

    def suspects(self, now: float) -> list[str]:
        """The filters because of which the broker may have just closed the connection.

        The newest one is first. If there is one only, it is the reason.
        """
        asked = [self._current] if self._packet_id is not None else []
        return asked + self._recent(now)

    def _is_on_trial(self, now: float) -> bool:
        return self._current in self._alone and self._current in self._recent(now)

    def _recent(self, now: float) -> list[str]:
        """The filters that were granted a moment ago, the newest one first."""
        return [name for name, at in reversed(self._granted_at.items()) if now - at < GRACE_S]
