"""Jobs that wait for their turn: each priority has places of its own.

A job that has begun holds its image in memory until its end, so only a few are under way at once.
A job can keep its place for hours, so no job waits for a place of another priority.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class JobQueue:
    """Gives jobs their turn in the order in which they came. It belongs to the event loop."""

    def __init__(self, places: int) -> None:
        """`places`: jobs of one priority that may be under way at once."""
        self._places = places
        #: The waiting jobs by priority; no queue is empty.
        self._queues: dict[int, deque[asyncio.Future[None]]] = {}
        self._begun: Counter[int] = Counter()
        self._held = False

    @property
    def waiting(self) -> int:
        """Jobs whose turn has not come."""
        return sum(map(len, self._queues.values()))

    @asynccontextmanager
    async def turn(self, priority: int) -> AsyncIterator[None]:
        """Wait for a place of this priority, and keep it until the end of the block."""
        await self._enter(priority)
        try:
            yield
        finally:
            self._begun[priority] -= 1
            self._admit()

    def hold(self, held: bool) -> None:
        """Let no job begin while `held` is true."""
        self._held = held
        self._admit()

    async def _enter(self, priority: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(priority, deque()).append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            self._leave(priority, turn)
            raise

    def _leave(self, priority: int, turn: asyncio.Future[None]) -> None:
        """Forget a job that was cancelled while it waited, or give back its place if it had one."""
        if not turn.cancelled():  # its turn had come at the same moment
            self._begun[priority] -= 1
            self._admit()
            return
        queue = self._queues.get(priority)
        if queue is not None and turn in queue:
            queue.remove(turn)
            self._forget_empty(priority)

    def _admit(self) -> None:
        """Let the oldest jobs of every priority begin while there are places, the highest first."""
        if self._held:
            return
        for priority in sorted(self._queues, reverse=True):
            queue = self._queues[priority]
            while queue and self._begun[priority] < self._places:
                turn = queue.popleft()
                if not turn.cancelled():
                    self._begun[priority] += 1
                    turn.set_result(None)
            self._forget_empty(priority)

    def _forget_empty(self, priority: int) -> None:
        if not self._queues[priority]:
            del self._queues[priority]
