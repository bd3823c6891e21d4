"""A thread for file system calls that may hang, awaited from the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Call:
    work: Callable[[], Any]
    future: Future[Any]

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.work()
        except BaseException as problem:  # noqa: BLE001 - whoever awaits the call gets it
            self.future.set_exception(problem)
        else:
            self.future.set_result(result)


class IoThread:
    """Runs calls one after another, so that what they share needs no lock.

    It is a daemon thread, unlike those of ThreadPoolExecutor: a call that hangs in a dead
    network mount must not keep the process from ending.
    """

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run `work` after all calls before it; the future has its result or its exception."""
        future: Future[T] = Future()
        self._queue.put(_Call(work, future))
        return asyncio.wrap_future(future)

    def close(self) -> None:
        """End the thread after the calls that were made. Returns at once."""
        self._queue.put(None)

    def _run(self) -> None:
        while (call := self._queue.get()) is not None:
            call.run()
