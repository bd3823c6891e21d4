"""Tiles done on this machine: in worker processes, as on a device, so the gateway outlives them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from fogmqtt.errors import FogError
from fogmqtt.gateway.loop import Loop, now
from fogmqtt.wire.messages import Call, TileTask
from fogmqtt.workers.pool import Pool
from fogmqtt.workers.resources import cores, worker_memory_mb
from fogmqtt.workers.work import TileOutput, WorkCancelled, WorkFailed, WorkFinished

#: The gateway's own work goes first: cutting, encoding, merging feed the whole fleet.
NICE = 10
#: Seconds for starting: a slow board loads OpenCV from a memory card.
_START_S = 60.0

#: A tile at work is known by what waits for it.
_Ticket = Future[WorkFinished[Any]]


@dataclass(slots=True, eq=False)
class _Asked:
    """A tile that is being cut, waits for a worker, or is in one's hands."""

    then: Callable[[TileOutput, float], None]
    failed: Callable[[str, str], None]
    received_at: float
    lease_s: float
    task: TileTask | None = None
    #: Where a worker has it.
    ticket: _Ticket | None = None
    over: bool = False


class LocalWorkers:
    """The gateway's own workers. Owner thread only; no process runs before `warm` or `do`."""

    def __init__(self, loop: Loop) -> None:
        self.size = cores()
        self._loop = loop
        self._pool: Pool[_Ticket] | None = None
        self._queue: deque[_Asked] = deque()
        self._busy = 0

    def warm(self, ready: Callable[[], None]) -> None:
        """Start the processes; `ready` when all of them can take a tile at once.

        So nobody takes their start for the speed of their work.
        """
        left = self.size

        def one_more(*_: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                ready()

        for _ in range(self.size):
            # One that cannot be started fails its tiles, which is where people look.
            self.do(_nothing_to_do, _START_S, one_more, one_more)

    def do(
        self,
        cut: Callable[[], TileTask],
        lease_s: float,
        then: Callable[[TileOutput, float], None],
        failed: Callable[[str, str], None],
    ) -> Callable[[], None]:
        """Cut a tile in the loop's pool, and have a worker do it within `lease_s`.

        `then` hears what came out and the seconds of work; `failed` the reason and a traceback.
        Returns what cancels it: neither is called for a tile that was not done by then.
        """
        asked = _Asked(then, failed, now(), lease_s)

        def ready(task: TileTask) -> None:
            if not asked.over:
                asked.task = task
                self._queue.append(asked)
                self._work()

        self._loop.submit(cut, ready, lambda problem: failed(_reason(problem), ""))
        return lambda: self._cancel(asked)

    def close(self) -> None:
        """End the processes, whatever they do."""
        self._queue.clear()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _work(self) -> None:
        while self._queue and self._busy < self.size:
            asked = self._queue.popleft()
            if not asked.over:
                self._give(asked)

    def _give(self, asked: _Asked) -> None:
        if self._pool is None:
            self._pool = Pool(
                self.size, _hand_over, memory_mb=worker_memory_mb(self.size), nice=NICE
            )
        assert asked.task is not None  # noqa: S101  # only what is cut is queued
        asked.ticket = Future()
        self._busy += 1
        self._loop.watch(
            asked.ticket,
            lambda finished: self._finished(asked, finished),
            lambda problem: asked.failed(_reason(problem), ""),
        )
        received_at = asked.received_at
        self._pool.start(
            asked.ticket, asked.task, received_at=received_at, deadline=received_at + asked.lease_s
        )

    def _finished(self, asked: _Asked, finished: WorkFinished[_Ticket]) -> None:
        self._busy -= 1
        self._work()
        match finished.outcome:
            case TileOutput():
                asked.then(finished.outcome, finished.compute_s)
            case WorkFailed(reason, traceback):
                asked.failed(reason, traceback)
            case WorkCancelled():
                pass

    def _cancel(self, asked: _Asked) -> None:
        asked.over = True
        if asked.ticket is not None and self._pool is not None:
            self._pool.cancel(asked.ticket)


def _hand_over(finished: WorkFinished[_Ticket]) -> None:
    finished.key.set_result(finished)


def _nothing_to_do() -> TileTask:
    """A tile of one pixel."""
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


def _reason(problem: Exception) -> str:
    return str(problem) if isinstance(problem, FogError) else f"{type(problem).__name__}: {problem}"
