"""Subscriptions that a client can do without, since some brokers do not grant them.

A broker may refuse such a filter in its SUBACK, leave it unanswered, or close the connection of
whoever asks for it (AWS IoT Core, EMQX with `deny_action = disconnect`, rumqttd). So it is asked
for only when every other filter is in force, one at a time, and the one that costs the link is
known by that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: Seconds that Connected waits for the answer: a broker that closes the connection does so at
#: once, and until then nothing was sent that could be lost.
ANSWER_S: Final = 1.0
#: Seconds without an answer after which none is expected.
GIVE_UP_S: Final = 10.0
#: A link that ends so soon after the answer, in seconds, was closed because of the subscription.
GRACE_S: Final = 1.0


class OptionalFilters:
    """How far the optional filters of one connection are; pure, and not thread-safe."""

    def __init__(self, filters: Iterable[str]) -> None:
        self._waiting = list(filters)
        #: The one that was asked for last, and when.
        self._asked = ""
        self._asked_at = 0.0
        self._mid: int | None = None
        #: When the last one was granted.
        self._granted_at: float | None = None

    def add(self, topic_filter: str) -> None:
        self._waiting.append(topic_filter)

    def next(self) -> str | None:
        """The filter to ask for now."""
        return self._waiting[0] if self._waiting and self._mid is None else None

    def asked(self, mid: int, now: float) -> None:
        """The next one was asked for in the SUBSCRIBE with this number."""
        self._asked = self._waiting.pop(0)
        self._asked_at, self._mid, self._granted_at = now, mid, None

    def answered(self, mid: int, granted_at: float | None) -> str | None:
        """The filter that this SUBACK is about, granted or not; None: it is about another one."""
        if mid != self._mid:
            return None
        self._mid, self._granted_at = None, granted_at
        return self._asked

    def holds_up(self, now: float) -> bool:
        """Whether Connected should wait for an answer."""
        if self._mid is None:
            return bool(self._waiting)
        return now - self._asked_at < ANSWER_S

    def overdue(self, now: float) -> str | None:
        """A filter that no answer is expected for any more; told once."""
        if self._mid is None or now - self._asked_at < GIVE_UP_S:
            return None
        self._mid = None
        return self._asked

    def blamed(self, now: float) -> str | None:
        """The link is lost: the filter that it was closed for."""
        if self._mid is not None:
            return self._asked
        if self._granted_at is not None and now - self._granted_at < GRACE_S:
            return self._asked
        return None
