"""Runs tiles on this machine in worker processes, as a device does.

An operator that crashes or hangs ends its process, not the gateway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from fogmqtt.errors import FogError
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.threads import Threads
from fogmqtt.wire.messages import Call, TileTask
from fogmqtt.workers.pool import Pool
from fogmqtt.workers.resources import cores, worker_memory_mb
from fogmqtt.workers.work import TileOutput, WorkCancelled, WorkFailed, WorkFinished

#: The niceness of the processes: cutting, encoding and merging go first, as all devices need them.
NICE: Final = 10
#: Seconds for starting a process: a slow board loads OpenCV from a memory card.
_START_S: Final = 60.0

_Ticket = asyncio.Future[WorkFinished[Any]]


class LocalTileError(FogError):
    """A tile failed on this machine; `traceback` is the worker's, or empty."""

    def __init__(self, reason: str, traceback: str = "") -> None:
        super().__init__(reason)
        self.traceback = traceback


class LocalWorkers:
    """The gateway's own worker processes. It belongs to the event loop.

    No process runs before `warm` or `do`.
    """

    def __init__(self, threads: Threads) -> None:
        self.size = cores()
        self._threads = threads
        self._free = asyncio.Semaphore(self.size)
        self._pool: Pool[_Ticket] | None = None

    async def warm(self) -> None:
        """Start the processes, and return when each is ready for a tile.

        Then the time of their start does not count as time of their work.
        """
        starts = (self.do(_one_pixel, _START_S) for _ in range(self.size))
        # If a process cannot start, its later tiles fail with the reason.
        await asyncio.gather(*starts, return_exceptions=True)

    async def do(
        self, cut: Callable[[], TileTask], lease_s: float
    ) -> tuple[TileOutput, WorkFinished[Any]]:
        """Cut a tile in a thread and have a worker do it within `lease_s` seconds.

        Returns the pixels and what the worker needed; its `queue_s` counts from this call.
        Raises LocalTileError, and what `cut` raises.
        A cancelled tile may keep its worker for a moment, and its result is dropped.
        """
        received_at = now()
        task = await self._threads.tile(cut)
        await self._free.acquire()
        try:
            ticket = self._give(task, received_at, lease_s)
        except (OSError, RuntimeError) as problem:  # no file descriptor or no thread is left
            self._free.release()
            raise LocalTileError(f"no worker for tile {task.tile}: {problem}") from None
        try:
            finished = await asyncio.shield(ticket)
        except asyncio.CancelledError:
            if self._pool is not None:
                self._pool.cancel(ticket)
            raise
        match finished.outcome:
            case TileOutput():
                return finished.outcome, finished
            case WorkFailed(reason, traceback):
                raise LocalTileError(reason, traceback)
            case WorkCancelled():
                raise LocalTileError("the tile was dropped")

    def close(self) -> None:
        """End the processes at once."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _give(self, task: TileTask, received_at: float, lease_s: float) -> _Ticket:
        """Start a tile on a free process. The process is free again when the ticket is done."""
        if self._pool is None:
            self._pool = Pool(self.size, _settle, memory_mb=worker_memory_mb(self.size), nice=NICE)
        ticket: _Ticket = asyncio.get_running_loop().create_future()
        ticket.add_done_callback(lambda _: self._free.release())
        self._pool.start(ticket, task, received_at=received_at, deadline=received_at + lease_s)
        return ticket


def _settle(finished: WorkFinished[_Ticket]) -> None:
    """Set the result of a ticket, from a worker's thread."""
    ticket = finished.key
    try:
        ticket.get_loop().call_soon_threadsafe(ticket.set_result, finished)
    except RuntimeError:
        return  # the gateway has stopped


def _one_pixel() -> TileTask:
    return TileTask(
        job="warm",
        tile=0,
        attempt=1,
        gateway="local",
        stage=[Call("invert", {})],
        shape=(1, 1, 1),
        dtype="uint8",
        core=(0, 0, 1, 1),
        seams="",
        codec="raw",
        result_codec="raw",
        lease_s=_START_S,
        pixels=memoryview(b"\0"),
    )
