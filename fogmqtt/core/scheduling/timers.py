"""One heap of timers. Nothing is ever cancelled in it: a stale entry finds nothing to do."""

from __future__ import annotations

import heapq
from typing import Generic, Protocol, TypeVar


class Timer(Protocol):
    """Whatever waits for a time; `wake_at` is None while it does not."""

    wake_at: float | None


S = TypeVar("S", bound=Timer)

#: Below this many entries it is not worth to throw the stale ones out.
_SMALL = 1024


class Timers(Generic[S]):
    """Sleepers by time; equal times ring in the order in which they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, S]] = []
        self._count = 0
        self._limit = _SMALL

    def set(self, timer: S, at: float) -> None:
        """Let it ring at `at`, instead of whenever it was to ring before."""
        if timer.wake_at == at:
            return
        timer.wake_at = at
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, timer))
        if len(self._heap) > self._limit:
            self._sweep()

    def due(self, now: float) -> S | None:
        """Take out the first sleeper whose time has come."""
        at = self.next()
        if at is None or at > now:
            return None
        timer = heapq.heappop(self._heap)[2]
        timer.wake_at = None
        return timer

    def next(self) -> float | None:
        """When the first one rings."""
        heap = self._heap
        while heap and heap[0][2].wake_at != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pending(self) -> list[S]:
        """Everyone who will ring; for checks."""
        return [timer for at, _, timer in self._heap if timer.wake_at == at]

    def _sweep(self) -> None:
        # At most every other entry was stale when the limit was set: amortised O(1).
        self._heap = [entry for entry in self._heap if entry[2].wake_at == entry[0]]
        heapq.heapify(self._heap)
        self._limit = max(_SMALL, 2 * len(self._heap))
