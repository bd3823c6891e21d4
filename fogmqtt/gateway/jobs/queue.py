"""Jobs that wait for their turn: each priority has places of its own.

A job that has begun holds its image in memory until its end, so only a few are under way at once.
A job can keep its place for hours, so no job waits for a place of another priority. Within a
priority the users take turns, so nobody waits for all the jobs of another.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class JobQueue:
    """Gives the jobs of each user their turn in the order in which they came.

    It belongs to the event loop.
    """

    def __init__(self, places: int) -> None:
        """`places`: jobs of one priority that may be under way at once."""
        self._places = places
        #: The waiting jobs by priority and user, whose turn comes first; no queue is empty.
        self._queues: dict[int, dict[str, deque[asyncio.Future[None]]]] = {}
        self._begun: Counter[int] = Counter()
        self._held = False

    @property
    def waiting(self) -> int:
        """Jobs whose turn has not come."""
        return sum(len(queue) for users in self._queues.values() for queue in users.values())

    @asynccontextmanager
    async def turn(self, priority: int, user: str = "") -> AsyncIterator[None]:
        """Wait for a place of this priority, and keep it until the end of the block."""
        await self._enter(priority, user)
        try:
            yield
        finally:
            self._begun[priority] -= 1
            self._admit()

    def hold(self, held: bool) -> None:
        """Let no job begin while `held` is true."""
        self._held = held
        self._admit()

    async def _enter(self, priority: int, user: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(priority, {}).setdefault(user, deque()).append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            self._leave(priority, user, turn)
            raise

    def _leave(self, priority: int, user: str, turn: asyncio.Future[None]) -> None:
        """Forget a job that was cancelled while it waited, or give back its place if it had one."""
        if not turn.cancelled():  # its turn had come at the same moment
            self._begun[priority] -= 1
            self._admit()
            return
        users = self._queues.get(priority, {})
        if turn in users.get(user, ()):
            users[user].remove(turn)
            self._forget_empty(priority, user)

    def _admit(self) -> None:
        """Let jobs of every priority begin while there are places, the highest first."""
        if self._held:
            return
        for priority in sorted(self._queues, reverse=True):
            users = self._queues[priority]
            while users and self._begun[priority] < self._places:
                user, queue = next(iter(users.items()))
                turn = queue.popleft()
                if not turn.cancelled():
                    self._begun[priority] += 1
                    turn.set_result(None)
                    users[user] = users.pop(user)  # the others come before its next job
                self._forget_empty(priority, user)

    def _forget_empty(self, priority: int, user: str) -> None:
        users = self._queues[priority]
        if not users[user]:
            del users[user]
        if not users:
            del self._queues[priority]
