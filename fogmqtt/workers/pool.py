"""Processes that work on tiles. One that misbehaves costs its tile, and a new process.

A thread for each owns its process and waits for it. The process starts with its first tile, or
when the pool is warmed, so an idle program is small; it stays, so the next tile finds it warm.
"""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import LifoQueue, SimpleQueue
from typing import Final, Generic

import msgspec

from fogmqtt.wire.messages import TileTask
from fogmqtt.workers.child import Child
from fogmqtt.workers.process import LONGEST_REASON, Broken, Done
from fogmqtt.workers.throttle import Throttle
from fogmqtt.workers.work import Dropped, Failed, Finished, K, Pixels

#: Seconds that a cancelled tile may run: a new process costs about a third of it, and most tiles
#: are done by then.
CANCELLED_S: Final = 1.0
#: Seconds until a process is given up that even SIGKILL does not end.
_CLOSE_S = 5.0
#: A word on a slot's bell.
_DING = b"!"


@dataclass(slots=True, eq=False)
class _Job(Generic[K]):
    """A tile at work. The pool's owner changes the last two and rings."""

    key: K
    task: TileTask
    received_at: float
    began: float
    until: float
    cancelled: bool = False

    @property
    def due(self) -> float:
        """When its worker is ended.

        At the end of the lease that came with the tile. That is later, by the time for
        accepting it, than the gateway gives the tile to another: so slow devices have a grace,
        and the traceback of a hanging operator reaches the job's story.
        """
        return min(self.until, self.began + CANCELLED_S) if self.cancelled else self.until


class _Warm:
    """Instead of a tile: start the process."""


class Pool(Generic[K]):
    """`size` workers; a tile is known by its key. For one owner thread.

    `finished` is called on a worker's thread, once for each tile given. `memory_mb` is what
    operators may take in each worker, 0 for what there is. `pace` makes every tile take at least
    so long, as on a slower device; None for as fast as can be. `nice` is how far the processes
    step back for others, 0 to 19.
    """

    def __init__(
        self,
        size: int,
        finished: Callable[[Finished[K]], None],
        *,
        memory_mb: int = 0,
        pace: Throttle | None = None,
        nice: int = 0,
    ) -> None:
        self.size = size
        self._finished = finished
        self._at: dict[K, _Slot[K]] = {}
        #: The last to finish is the first to be given a tile: it is warm.
        self._idle: LifoQueue[_Slot[K]] = LifoQueue()
        self._slots = [_Slot(number, self._done, memory_mb, pace, nice) for number in range(size)]
        for slot in reversed(self._slots):
            self._idle.put(slot)

    def warm(self) -> None:
        """Start the processes that are not there yet, in the background."""
        for slot in self._slots:
            slot.warm()

    def give(self, key: K, task: TileTask, *, received_at: float, until: float) -> None:
        """Have an idle worker do the tile, until this monotonic time. One must be idle."""
        slot = self._idle.get_nowait()
        self._at[key] = slot
        slot.give(_Job(key, task, received_at, time.monotonic(), until))

    def renew(self, key: K, until: float) -> None:
        """A tile at work is wanted until this time, even if it was cancelled before."""
        self._change(key, until=until, cancelled=False)

    def cancel(self, key: K) -> None:
        """A tile at work is not wanted; it finishes as Dropped, or as it would have at once."""
        self._change(key, cancelled=True)

    def close(self) -> None:
        """End all workers, whatever they do."""
        slots, self._slots = self._slots, []
        for slot in slots:
            slot.close()
        for slot in slots:
            slot.join()

    def _change(self, key: K, *, cancelled: bool, until: float | None = None) -> None:
        slot = self._at.get(key)
        if slot is not None:
            slot.change(key, cancelled=cancelled, until=until)

    def _done(self, slot: _Slot[K], finished: Finished[K]) -> None:
        self._at.pop(finished.key, None)
        self._idle.put(slot)  # first: whoever hears of it may give the next at once
        self._finished(finished)


class _Slot(Generic[K]):
    """A worker: a thread, and its process while there is one."""

    def __init__(
        self,
        number: int,
        done: Callable[[_Slot[K], Finished[K]], None],
        memory_mb: int,
        pace: Throttle | None,
        nice: int,
    ) -> None:
        self._done = done
        self._memory_mb = memory_mb
        self._pace = pace
        self._nice = nice
        self._jobs: SimpleQueue[_Job[K] | _Warm | None] = SimpleQueue()
        self._job: _Job[K] | None = None
        self._closing = False
        self._child: Child | None = None
        #: The process has had a tile: it is not starting any more.
        self._has_served = False
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        # A daemon: not even a process that cannot be ended keeps ours alive.
        self._thread = threading.Thread(target=self._work, name=f"worker-{number}", daemon=True)
        self._thread.start()

    # On the owner's thread.

    def warm(self) -> None:
        self._jobs.put(_Warm())

    def give(self, job: _Job[K]) -> None:
        self._job = job
        self._jobs.put(job)

    def change(self, key: K, *, cancelled: bool, until: float | None) -> None:
        job = self._job
        if job is None or job.key != key:
            return
        job.cancelled = cancelled
        job.until = job.until if until is None else until
        self._ring()

    def close(self) -> None:
        self._closing = True
        self._jobs.put(None)
        self._ring()

    def join(self) -> None:
        """After `close`: wait until the process is gone."""
        self._thread.join(_CLOSE_S)
        if not self._thread.is_alive():
            self._bell.close()
            self._ringer.close()

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # it rings already
            self._ringer.send(_DING)

    # On the slot's own thread.

    def _work(self) -> None:
        try:
            while (job := self._jobs.get()) is not None and not self._closing:
                if isinstance(job, _Warm):
                    self._start()
                else:
                    self._done(self, self._finish(job))
        finally:
            self._end()

    def _start(self) -> None:
        with suppress(OSError):  # the first tile says so
            self._child = self._child or Child(self._memory_mb, self._nice)

    def _finish(self, job: _Job[K]) -> Finished[K]:
        began = time.monotonic()
        is_first, self._has_served = not self._has_served, True
        outcome, compute_s = self._do(job)
        start_s = time.monotonic() - began - compute_s if is_first else 0.0
        if self._pace is not None:
            job.began += start_s
            if not self._sleep(job, self._pace):
                outcome = Dropped()
            compute_s = time.monotonic() - job.began
        return Finished(job.key, outcome, max(0.0, began - job.received_at), compute_s, start_s)

    def _do(self, job: _Job[K]) -> tuple[Pixels | Failed | Dropped, float]:
        """What became of it, and the seconds of work that it took."""
        try:
            child = self._child = self._child or Child(self._memory_mb, self._nice)
            child.ask(job.task)
        except BrokenPipeError:
            return self._died(job), 0.0
        except OSError as problem:
            self._end()
            return Failed(f"no worker process for tile {job.task.tile}: {problem}", ""), 0.0
        if not self._answered(job, child):
            return self._overdue(job), 0.0
        return self._take(job, child)

    def _take(self, job: _Job[K], child: Child) -> tuple[Pixels | Failed | Dropped, float]:
        try:
            answer = child.answer()
        except (msgspec.MsgspecError, OSError, ValueError):
            answer = None  # an operator wrote where only its process may
        if answer is None:
            return self._died(job), 0.0
        reply, data = answer
        if reply.worn:
            self._end()
        match reply:
            case Done(shape, dtype, codec, compute_s):
                return Pixels(data, shape, dtype, codec), compute_s
            case Broken(reason, traceback):
                return Failed(reason, traceback), 0.0

    def _answered(self, job: _Job[K], child: Child) -> bool:
        """Wait for the child's answer or death; False where the time is over."""
        watch = select.poll()
        watch.register(child, select.POLLIN)
        watch.register(self._bell, select.POLLIN)
        while (left_s := self._left_s(job)) > 0:
            ready = [descriptor for descriptor, _ in watch.poll(math.ceil(left_s * 1000))]
            if child.fileno() in ready:
                return True
            self._silence()
        return False

    def _sleep(self, job: _Job[K], pace: Throttle) -> bool:
        """Until the tile may be done; False where it was cancelled, and its own time is over."""
        height, width = job.task.core[2:]
        while (left_s := pace.finish(job.began, height * width) - time.monotonic()) > 0:
            if self._closing or job.cancelled:
                left_s = min(left_s, self._left_s(job))
                if left_s <= 0:
                    return False
            # Not poll: it knows whole milliseconds only.
            select.select([self._bell], [], [], left_s)
            self._silence()
        return True

    def _left_s(self, job: _Job[K]) -> float:
        return 0.0 if self._closing else job.due - time.monotonic()

    def _silence(self) -> None:
        with suppress(BlockingIOError):
            self._bell.recv(64)

    def _overdue(self, job: _Job[K]) -> Failed | Dropped:
        if job.cancelled or self._closing:
            self._end()
            return Dropped()
        traceback = self._end(asking_why=True)[1]
        lease_s = job.until - job.received_at
        return Failed(
            f"{_where(job)} did not return within its lease of {lease_s:.3g} s; "
            "the worker was ended",
            traceback,
        )

    def _died(self, job: _Job[K]) -> Failed:
        how, traceback = self._end()
        return Failed(f"the worker process {how} at {_where(job)}", traceback)

    def _end(self, *, asking_why: bool = False) -> tuple[str, str]:
        """End the process; returns how it ended and its last words."""
        child, self._child, self._has_served = self._child, None, False
        if child is None:
            return "is gone", ""
        ending = child.end(asking_why=asking_why)
        return str(ending), ending.traceback


def _where(job: _Job[K]) -> str:
    names = " | ".join(call.name for call in job.task.stage)
    return f"tile {job.task.tile} in operators {names}"[: LONGEST_REASON // 2]
