"""Calls in the order of virtual time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any


class EventQueue:
    """A heap of calls; calls at equal times keep their order of entry."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, at_s: float, call: Callable[..., None], *args: Any) -> None:
        """Schedule `call(*args)` at `at_s`, or now if that has passed; never at infinity."""
        if at_s == math.inf:
            return
        self._count += 1
        heapq.heappush(self._heap, (max(at_s, self.now), self._count, call, args))

    def next(self) -> float:
        """When the next call is due; infinity if there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def step(self) -> None:
        """Advance to the next call, and make it."""
        self.now, _, call, args = heapq.heappop(self._heap)
        call(*args)
