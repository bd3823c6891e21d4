"""Jobs that wait for their turn: each priority has slots of its own.

A job that is begun holds its image in memory until its end, so no more than a few are. A slot can
be held for hours, and no share of the fleet helps a job that is not begun: so nobody waits for a
slot that another priority holds.
"""

from __future__ import annotations

from collections import Counter, deque

from fogmqtt.gateway.jobs.model import JobRequest


class JobQueue:
    """Requests in the order in which they came, and how many of each priority are begun."""

    def __init__(self, slots: int) -> None:
        """`slots`: jobs of one priority that may be under way at once."""
        self._slots = slots
        #: By priority; none is empty.
        self._queues: dict[int, deque[JobRequest]] = {}
        self._begun: Counter[int] = Counter()

    @property
    def waiting(self) -> int:
        """Requests that were not taken yet."""
        return sum(map(len, self._queues.values()))

    def add(self, request: JobRequest) -> None:
        self._queues.setdefault(request.priority, deque()).append(request)

    def take(self) -> JobRequest | None:
        """The oldest request of the highest priority with a free slot, which it has until `ended`.

        None where there is no such request.
        """
        free = [one for one in self._queues if self._begun[one] < self._slots]
        if not free:
            return None
        priority = max(free)
        queue = self._queues[priority]
        request = queue.popleft()
        if not queue:
            del self._queues[priority]
        self._begun[priority] += 1
        return request

    def ended(self, request: JobRequest) -> None:
        """A request that was taken is over: its slot is free."""
        self._begun[request.priority] -= 1

    def clear(self) -> None:
        """Forget what waits."""
        self._queues.clear()
