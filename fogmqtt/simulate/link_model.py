"""One direction of a modelled link: when a message arrives, if it does, and how often."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fogmqtt.simulate.fleet import LinkSpec

#: An overtaken message arrives this many latencies later, at least this many seconds.
_LATE = 10.0
_LATE_S = 0.05


class LinkModel:
    """Messages leave one after the other at a rate; then each is in transit for a while."""

    def __init__(self, link: LinkSpec, chance: random.Random) -> None:
        self._bytes_per_s = link.rate_mbps * 1e6 / 8
        self._latency_s = link.latency_ms / 1e3
        self._jitter_s = link.jitter_ms / 1e3
        self._loss = link.loss
        self._duplicates = link.duplicates
        self._reordering = link.reordering
        self._perfect = not (link.jitter_ms or link.loss or link.duplicates or link.reordering)
        self._chance = chance
        self._free_at = 0.0
        self._newest_at = 0.0

    def carry(self, now: float, nbytes: float) -> Sequence[float]:
        """When a message that is sent now arrives: once, never, or twice."""
        self._free_at = max(now, self._free_at) + nbytes / self._bytes_per_s
        at = self._free_at + self._latency_s
        if self._perfect:
            return (at,)
        return self._disturbed(at)

    def sent_until(self) -> float:
        """When everything that was given to it so far has left."""
        return self._free_at

    def reset(self, now: float) -> None:
        """Drop the messages that wait to be sent."""
        self._free_at = now

    def _disturbed(self, at: float) -> Sequence[float]:
        draw = self._chance.random
        if draw() < self._loss:
            return ()
        if self._jitter_s:
            at += self._chance.expovariate(1 / self._jitter_s)
        if draw() < self._reordering:
            at += max(_LATE_S, _LATE * self._latency_s) * draw()
        else:
            # TCP keeps the order of messages.
            self._newest_at = at = max(at, self._newest_at)
        if draw() < self._duplicates:
            return at, at + max(_LATE_S, _LATE * self._latency_s) * draw()
        return (at,)
