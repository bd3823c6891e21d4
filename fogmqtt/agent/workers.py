"""Threads that work on tiles; OpenCV lets the others run while it computes."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from queue import SimpleQueue

from fogmqtt.agent.held import Failed, Finished, Held, Pixels
from fogmqtt.errors import FogError

#: Characters; the wire takes 20 000 of each.
_LONGEST_REASON = 2_000
_LONGEST_TRACEBACK = 20_000


class Pool:
    """`size` workers. Give it a tile only while one is idle, so that nothing queues in here.

    `finished` is called on a worker's thread. `speed` in core pixels per second makes every
    tile take at least that long, as on a slower device; None for as fast as can be.
    """

    def __init__(
        self, size: int, finished: Callable[[Finished], None], speed: float | None = None
    ) -> None:
        self.size = size
        self._finished = finished
        self._speed = speed
        self._tiles: SimpleQueue[Held | None] = SimpleQueue()
        self._threads = [
            # Daemons: an operator that never returns must not keep the process alive.
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True)
            for number in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def give(self, held: Held) -> None:
        """Have an idle worker do the tile."""
        self._tiles.put(held)

    def close(self) -> None:
        """Let idle workers end; a busy one ends after its tile."""
        for _ in self._threads:
            self._tiles.put(None)

    def _work(self) -> None:
        while (held := self._tiles.get()) is not None:
            self._finished(self._do(held))

    def _do(self, held: Held) -> Finished:
        began = time.monotonic()
        outcome = attempt(held)
        if self._speed:
            height, width = held.task.core[2:]
            time.sleep(max(0.0, began + height * width / self._speed - time.monotonic()))
        return Finished(held, outcome, began - held.received_at, time.monotonic() - began)


def attempt(held: Held) -> Pixels | Failed:
    """The tile's result, or what went wrong; never raises."""
    try:
        from fogmqtt.agent.compute import compute  # OpenCV: not before there is work

        return compute(held.task)
    except BaseException as problem:  # noqa: BLE001  # an operator may raise anything
        return _failed(problem)


def _failed(problem: BaseException) -> Failed:
    if isinstance(problem, FogError):
        reason = str(problem)
    else:  # also where str(problem) itself fails
        reason = "".join(traceback.format_exception_only(problem)).strip()
    trace = "".join(traceback.format_exception(problem))
    return Failed(_clean(reason)[:_LONGEST_REASON], _clean(trace)[-_LONGEST_TRACEBACK:])


def _clean(text: str) -> str:
    """Text that can be encoded: what an operator says may hold half a surrogate pair."""
    return text.encode("utf-8", "replace").decode()
