"""The owner thread's loop: one inbox, one timer, a pool for whatever touches pixels or disks.

Only the thread inside `run` may touch the gateway's state. Everybody else calls `deliver`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

#: Pixel work releases the GIL; more threads than cores only wait for each other.
POOL_THREADS = max(2, min(4, os.cpu_count() or 2))

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Finished:
    """Work in a pool is done; the owner thread goes on with it."""

    future: Future[Any]
    then: Callable[[Any], None]
    failed: Callable[[Exception], None]


@dataclass(frozen=True, slots=True)
class Stop:
    """Leave the loop; from a signal handler or another thread."""


class Loop:
    """An inbox and what runs beside it."""

    def __init__(self) -> None:
        self._inbox: SimpleQueue[object] = SimpleQueue()
        self._pool = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="pixels")
        self._local: ThreadPoolExecutor | None = None
        #: What else ends with the loop, and is not to be waited for by what has begun.
        self.closers: list[Callable[[], None]] = []

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be handled."""
        return self._inbox.empty()

    def deliver(self, item: object) -> None:
        """Put something into the inbox. Any thread, signal handlers included."""
        self._inbox.put(item)

    def submit(
        self,
        work: Callable[[], T],
        then: Callable[[T], None],
        failed: Callable[[Exception], None],
        *,
        local: bool = False,
    ) -> None:
        """Run `work` in the pool, then one of the others on the owner thread.

        `local` is the work of a device done here: it has threads of its own, so that it holds
        up nobody's sending and merging.
        """
        self.watch(self.begin(work, local=local), then, failed)

    def begin(self, work: Callable[[], T], *, local: bool = False) -> Future[T]:
        """Run `work` as `submit` does, for somebody who watches it."""
        return (self._compute() if local else self._pool).submit(work)

    def watch(
        self, future: Future[T], then: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        """Run one of the two on the owner thread when somebody else's work is done."""
        future.add_done_callback(lambda done: self.deliver(_Finished(done, then, failed)))

    def run(
        self,
        handle: Callable[[object], None],
        tick: Callable[[], float | None],
        until: Callable[[], bool],
    ) -> None:
        """Handle what arrives until `until` holds or Stop arrives.

        `tick` does what is due and returns the monotonic time of what is due next.
        """
        while not until():
            due = tick()
            try:
                item = self._inbox.get(timeout=None if due is None else max(0.0, due - now()))
            except Empty:
                continue
            if isinstance(item, Stop):
                return
            if isinstance(item, _Finished):
                self._finish(item)
            else:
                handle(item)

    def close(self) -> None:
        """Drop what has not begun; wait for what has."""
        for close in self.closers:
            close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._local:
            self._local.shutdown(wait=True, cancel_futures=True)

    def _compute(self) -> ThreadPoolExecutor:
        if self._local is None:
            self._local = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="local")
        return self._local

    def _finish(self, item: _Finished) -> None:
        if item.future.cancelled():
            return
        problem = item.future.exception()
        if problem is None:
            item.then(item.future.result())
        elif isinstance(problem, Exception):
            item.failed(problem)
        else:
            raise problem


def now() -> float:
    """Seconds of the clock that never jumps."""
    return time.monotonic()
