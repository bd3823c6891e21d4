"""A heap of timers. Entries are never removed: a stale one is skipped."""

from __future__ import annotations

import heapq
from typing import Generic, Protocol, TypeVar


class Timer(Protocol):
    """An object with a timer; `wake_at` is None while the timer is off."""

    wake_at: float | None


S = TypeVar("S", bound=Timer)

#: A smaller heap is not worth sweeping.
_SMALL = 1024


class Timers(Generic[S]):
    """Timers by time; equal times fire in the order in which they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, S]] = []
        self._count = 0
        self._limit = _SMALL

    def set(self, timer: S, at: float) -> None:
        """Let a timer fire at `at`, and not at any earlier setting."""
        if timer.wake_at == at:
            return
        timer.wake_at = at
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, timer))
        if len(self._heap) > self._limit:
            self._sweep()

    def due(self, now: float) -> S | None:
        """Remove and return the first timer that is due."""
        at = self.next()
        if at is None or at > now:
            return None
        timer = heapq.heappop(self._heap)[2]
        timer.wake_at = None
        return timer

    def next(self) -> float | None:
        """When the first timer fires."""
        heap = self._heap
        while heap and heap[0][2].wake_at != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pending(self) -> list[S]:
        """All timers that are set; for checks."""
        return [timer for at, _, timer in self._heap if timer.wake_at == at]

    def _sweep(self) -> None:
        # At least half of the entries were added since the last sweep: amortised O(1).
        self._heap = [entry for entry in self._heap if entry[2].wake_at == entry[0]]
        heapq.heapify(self._heap)
        self._limit = max(_SMALL, 2 * len(self._heap))
