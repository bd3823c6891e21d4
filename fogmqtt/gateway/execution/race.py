"""Two ways to one result, at the same time: the first that has it wins, the other is cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Won(Generic[T]):
    """What came first. `by_tiles` says which of the two ways it took."""

    result: T
    by_tiles: bool


async def race(
    name: str,
    tiles: Coroutine[Any, Any, T] | None,
    whole: Coroutine[Any, Any, T] | None,
) -> Won[T]:
    """Run both, or the one that is there; return the result that comes first.

    Raises what `tiles` raises. An error of `whole` is logged under `name` while tiles are on their
    way, and raised otherwise.
    """
    by_tiles = _task(tiles)
    by_whole = _task(whole)
    tasks = [task for task in (by_tiles, by_whole) if task is not None]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if by_tiles is not None and (by_tiles.done() or by_whole is None):
            return Won(await by_tiles, by_tiles=True)
        assert by_whole is not None  # noqa: S101  # one of the two is there, and is done
        if by_tiles is not None and (problem := by_whole.exception()) is not None:
            log.warning("%s cannot be done whole, only by tiles: %s", name, problem)
            return Won(await by_tiles, by_tiles=True)
        return Won(await by_whole, by_tiles=False)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _task(way: Coroutine[Any, Any, T] | None) -> asyncio.Task[T] | None:
    return None if way is None else asyncio.get_running_loop().create_task(way)
