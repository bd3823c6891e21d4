"""Coroutines that run beside the one that started them.

`BackgroundTasks` runs small pieces of work, and logs those that fail. A `Supervisor` runs the
coroutines that a program needs: if one fails, the program ends. `race` takes the first of two
results.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


class BackgroundTasks:
    """Keeps tasks alive until they end, and logs their exceptions."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a coroutine. `name` is its name in the log if it fails."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def finish(self, within_s: float | None = None) -> None:
        """Wait until the tasks have ended, and cancel those that take longer."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=within_s)
        await self.close()

    async def close(self) -> None:
        """Cancel the tasks, and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=problem)


class Supervisor:
    """Runs coroutines beside the task that made it, and cancels that task if one of them fails.

    As a context manager it ends them with the block, and raises the exception of the one that
    failed.
    """

    def __init__(self) -> None:
        self._owner = asyncio.current_task()
        self._tasks: list[asyncio.Task[Any]] = []
        self._failure: BaseException | None = None
        self._closing = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        failure = await self.take_over()
        await self.close()
        if failure is not None:
            raise failure

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> None:
        """Run a coroutine until it ends, or until `close`."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.append(task)
        task.add_done_callback(self._ended)

    async def take_over(self) -> BaseException | None:
        """Return the first exception, if there is one, and stop cancelling the owner for it."""
        self._closing = True
        if self._failure is not None and self._owner is not None:
            self._owner.uncancel()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)  # takes a cancellation that has not reached the owner yet
        return self._failure

    async def close(self) -> None:
        """Cancel the coroutines, and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is None or self._closing:
            return
        if self._failure is None:
            self._failure = task.exception()
            if self._owner is not None:
                self._owner.cancel()


@dataclass(frozen=True, slots=True)
class Won(Generic[T]):
    """The first result of a race, and whether it came by tiles."""

    result: T
    by_tiles: bool


async def race(
    name: str,
    tiles: Coroutine[Any, Any, T] | None,
    whole: Coroutine[Any, Any, T] | None,
) -> Won[T]:
    """Run both coroutines, or the one that is given, and return the first result.

    Raises what `tiles` raises. If there is no `tiles`, raises what `whole` raises; otherwise an
    error of `whole` is logged under `name`, and `tiles` goes on.
    """
    by_tiles = _task(tiles)
    by_whole = _task(whole)
    tasks = [task for task in (by_tiles, by_whole) if task is not None]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if by_tiles is not None and (by_tiles.done() or by_whole is None):
            return Won(await by_tiles, by_tiles=True)
        assert by_whole is not None  # noqa: S101  # one of the two is given, and is done
        if by_tiles is not None and (problem := by_whole.exception()) is not None:
            log.warning("%s cannot be done whole, only by tiles: %s", name, problem)
            return Won(await by_tiles, by_tiles=True)
        return Won(await by_whole, by_tiles=False)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _task(coroutine: Coroutine[Any, Any, T] | None) -> asyncio.Task[T] | None:
    return None if coroutine is None else asyncio.get_running_loop().create_task(coroutine)
