"""Workers for tiles: threads, each with a process. A process that misbehaves is replaced.

Each worker's thread owns the worker's process and waits for it. The process starts with its first
tile, or when the pool is warmed or prepared. It then stays for the next tiles.
With a rule (`trusted.py`), the thread runs those tiles itself that the rule allows. For that this
program must load OpenCV, which would delay the first tiles. So a worker whose process runs already
gives it all tiles, until this program has had time to load OpenCV between two tiles.

A thread cannot be ended. One whose tile does not return is left alone, and another worker takes its
place. The owner looks for such threads.
"""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final, Generic

import msgspec

from fogmqtt.wire.messages import TileTask
from fogmqtt.workers.child import WorkerProcess
from fogmqtt.workers.memory_limit import MemoryLimit
from fogmqtt.workers.process import (
    MAX_REASON_CHARS,
    Reply,
    WorkerDone,
    WorkerFailed,
    run_task,
)
from fogmqtt.workers.throttle import Throttle
from fogmqtt.workers.trusted import TileKind, TrustedTiles
from fogmqtt.workers.work import K, TileOutput, WorkCancelled, WorkFailed, WorkFinished

#: Seconds that a cancelled tile may still run. A new process costs about a third of that, and most
#: tiles are done by then.
CANCELLED_S: Final = 1.0
#: Seconds to wait for a process that even SIGKILL does not end.
_CLOSE_S = 5.0
#: Seconds beyond its lease that a tile in a thread has, counted from when the owner saw that it is
#: late: a program that was stopped for a while sees all of its tiles late.
_HANGS_AFTER_S: Final = 2.0
#: Seconds without a tile after which a worker loads OpenCV here, so that its thread can run tiles.
_LOAD_AFTER_S: Final = 2.0
#: Seconds after the first tile until a worker that never pauses does so between two tiles.
_LOAD_BY_S: Final = 10.0


@dataclass(slots=True, eq=False)
class _Job(Generic[K]):
    """A running tile. The pool's owner thread changes the last two fields and wakes the worker."""

    key: K
    task: TileTask
    received_at: float
    started_at: float
    deadline: float
    #: The end of its first lease. A tile that a thread was trusted with is done long before, so no
    #: later lease keeps a thread that hangs.
    first_deadline: float
    is_cancelled: bool = False

    @property
    def end_at(self) -> float:
        """When the worker is ended: at the end of the lease that came with the tile.

        The device's lease starts when the tile arrives, so it ends later than the gateway's. A
        slow device gains that time, and the traceback of a hanging operator still reaches the
        job's event log.
        """
        if not self.is_cancelled:
            return self.deadline
        return min(self.deadline, self.started_at + CANCELLED_S)


class _Warm:
    """A request to get ready for a tile that comes soon."""


class _Prepare:
    """A request to start the process without a tile."""


class Pool(Generic[K]):
    """`size` workers. A key identifies each tile. One owner thread calls the methods.

    The pool calls `finished` once for each tile, on a worker's thread or within `look`.
    `memory_mb` limits the memory of the operators in each worker; 0 means no limit. `throttle`
    delays tiles as a slower device would; None means full speed. `nice` is the niceness of the
    processes, 0 to 19. `trusted` says which tiles run in this process; without it, none does.
    """

    def __init__(
        self,
        size: int,
        finished: Callable[[WorkFinished[K]], None],
        *,
        memory_mb: int = 0,
        throttle: Throttle | None = None,
        nice: int = 0,
        trusted: TrustedTiles | None = None,
    ) -> None:
        self.size = size
        self._trusted = trusted
        self._finished = finished
        self._running: dict[K, _Worker[K]] = {}
        #: Decides between a thread that returns late and the owner that gives it up.
        self._lock = threading.Lock()
        #: Workers whose threads did not return.
        self._given_up: list[_Worker[K]] = []
        #: The worker that finished last gets the next tile: its process runs already.
        self._idle: list[_Worker[K]] = []
        self._new_worker = partial(
            _Worker[K],
            done=self._done,
            memory_mb=memory_mb,
            throttle=throttle,
            nice=nice,
            trusted=trusted,
        )
        self._workers = [self._new_worker(number) for number in range(size)]
        for worker in reversed(self._workers):
            self._idle.append(worker)

    def learn(self, abilities: Collection[str], rates: Mapping[str, float]) -> None:
        """Trust these abilities, if the pool trusts any; see `TrustedTiles.learn`."""
        if self._trusted is not None:
            self._trusted.learn(abilities, rates)

    def warm(self) -> None:
        """Load the operators in the background, because a tile comes soon.

        They are loaded here for trusted tiles, else in all processes. Processes that run already
        are enough.
        """
        for worker in self._workers if self._trusted is None else self._workers[:1]:
            worker.request(_Warm())

    def prepare(self) -> None:
        """Start all processes in the background, so that the first tile waits for nothing."""
        for worker in self._workers:
            worker.request(_Prepare())

    def is_idle(self, number: int) -> bool:
        """Whether the worker of this number has no tile."""
        with self._lock:
            return any(worker.number == number for worker in self._idle)

    def start(
        self,
        key: K,
        task: TileTask,
        *,
        received_at: float,
        deadline: float,
        number: int | None = None,
    ) -> None:
        """Run the tile on an idle worker until the deadline. Times are monotonic seconds.

        `number` is the worker that must run it; None for any. Raises queue.Empty if none is idle.
        """
        worker = self._take_idle(number)
        self._running[key] = worker
        worker.start(_Job(key, task, received_at, time.monotonic(), deadline, deadline))

    def renew(self, key: K, deadline: float) -> None:
        """Set the deadline of a running tile, and undo its cancellation."""
        self._change(key, deadline=deadline, is_cancelled=False)

    def cancel(self, key: K) -> None:
        """Cancel a running tile. It finishes as WorkCancelled unless it is done within a second."""
        self._change(key, is_cancelled=True)

    @property
    def hanging(self) -> int:
        """The number of threads that did not return and still run."""
        return sum(worker.runs for worker in self._given_up)

    def look(self, now: float) -> float:
        """Give up threads whose tile does not return; returns when to look again.

        The tile fails, another worker takes the place of the thread, and tiles of its kind run in
        processes from then on. Times are monotonic seconds.
        """
        if self._trusted is None:
            return math.inf
        with self._lock:
            hanging = [
                (worker, job)
                for worker in self._running.values()
                if (job := worker.hanging_job(now)) is not None
            ]
            for worker, job in hanging:
                del self._running[job.key]
                worker.is_given_up = True
            look_at = min((one.look_at for one in self._running.values()), default=math.inf)
        for worker, job in hanging:
            self._replace(worker)
            self._finished(_never_returned(job, worker.number))
        return look_at

    def close(self) -> None:
        """End all workers at once, with their tiles."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.close()
        for worker in workers:
            worker.join()

    def _change(self, key: K, *, is_cancelled: bool, deadline: float | None = None) -> None:
        worker = self._running.get(key)
        if worker is not None:
            worker.change(key, is_cancelled=is_cancelled, deadline=deadline)

    def _take_idle(self, number: int | None) -> _Worker[K]:
        with self._lock:
            for worker in reversed(self._idle):
                if number is None or worker.number == number:
                    self._idle.remove(worker)
                    return worker
        raise Empty

    def _replace(self, worker: _Worker[K]) -> None:
        self._given_up = [*(one for one in self._given_up if one.runs), worker]
        successor = self._new_worker(worker.number)
        successor.take_process_of(worker)
        self._workers[self._workers.index(worker)] = successor
        with self._lock:
            self._idle.append(successor)

    def _done(self, worker: _Worker[K], finished: WorkFinished[K]) -> None:
        with self._lock:
            if worker.is_given_up:
                return
            self._running.pop(finished.key, None)
            # Before the callback: the owner may start the next tile at once.
            self._idle.append(worker)
        self._finished(finished)


class _Worker(Generic[K]):
    """A thread and its process, if one runs."""

    def __init__(
        self,
        number: int,
        *,
        done: Callable[[_Worker[K], WorkFinished[K]], None],
        memory_mb: int,
        throttle: Throttle | None,
        nice: int,
        trusted: TrustedTiles | None,
    ) -> None:
        self.number = number
        #: The owner does not wait for this thread any more.
        self.is_given_up = False
        self._done = done
        self._memory_mb = memory_mb
        self._throttle = throttle
        self._nice = nice
        self._trusted = trusted
        self._jobs: SimpleQueue[_Job[K] | _Warm | _Prepare | None] = SimpleQueue()
        self._job: _Job[K] | None = None
        self._is_closing = False
        self._process: WorkerProcess | None = None
        #: When the process received its first tile; later ones do not wait for its start.
        self._served_at: float | None = None
        #: The tile that this thread itself runs, its kind, and since when the owner sees it late.
        self._here: tuple[_Job[K], TileKind] | None = None
        self._late_since: float | None = None
        #: This thread has run a tile, so later tiles do not wait for OpenCV.
        self._has_loaded = False
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        # A daemon thread: a process that cannot be ended must not keep this program alive.
        self._thread = threading.Thread(target=self._run, name=f"worker-{number}", daemon=True)
        self._thread.start()

    # --- the owner's thread ---------------------------------------------------------------

    def request(self, request: _Warm | _Prepare) -> None:
        self._jobs.put(request)

    def start(self, job: _Job[K]) -> None:
        self._job = job
        self._jobs.put(job)

    def change(self, key: K, *, is_cancelled: bool, deadline: float | None) -> None:
        job = self._job
        if job is None or job.key != key:
            return
        job.is_cancelled = is_cancelled
        job.deadline = job.deadline if deadline is None else deadline
        self._wake()

    @property
    def runs(self) -> bool:
        """Whether the thread has not ended."""
        return self._thread.is_alive()

    @property
    def look_at(self) -> float:
        """When the tile that this thread itself runs may hang."""
        here = self._here
        if here is None:
            return math.inf
        return (
            here[0].first_deadline
            if self._late_since is None
            else self._late_since + _HANGS_AFTER_S
        )

    def hanging_job(self, now: float) -> _Job[K] | None:
        """The tile that this thread itself runs, if it does not return."""
        here = self._here
        if here is None or now < here[0].first_deadline:
            self._late_since = None
            return None
        job, kind = here
        if self._late_since is None:
            self._late_since = now
        if now < self._late_since + _HANGS_AFTER_S:
            return None
        if self._trusted is not None:
            self._trusted.refute(kind)
        return job

    def take_process_of(self, other: _Worker[K]) -> None:
        """Take the process of a worker that is given up, if it has one. It is idle."""
        self._process, other._process = other._process, None
        self._served_at, self._has_loaded = other._served_at, other._has_loaded

    def close(self) -> None:
        self._is_closing = True
        self._jobs.put(None)
        self._wake()

    def join(self) -> None:
        """Wait until the process has ended. Call it after `close`."""
        self._thread.join(_CLOSE_S)
        if not self._thread.is_alive():
            self._close_sockets()

    def _close_sockets(self) -> None:
        self._wake_receiver.close()
        self._wake_sender.close()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # the buffer is full, so the thread wakes anyway
            self._wake_sender.send(b"!")

    # --- the worker's thread --------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self.is_given_up and (job := self._next()) is not None:
                if self._is_closing:
                    return
                if isinstance(job, _Job):
                    self._done(self, self._finish(job))
                else:
                    self._get_ready(job)
        finally:
            self._end_process()
            if self.is_given_up:  # nobody joins it
                self._close_sockets()

    def _next(self) -> _Job[K] | _Warm | _Prepare | None:
        """Wait for the next request. After some time without one, load OpenCV for trusted tiles."""
        if self._trusted is None or self._trusted.is_loaded or self._served_at is None:
            return self._jobs.get()
        if time.monotonic() < self._served_at + _LOAD_BY_S:
            with suppress(Empty):
                return self._jobs.get(timeout=_LOAD_AFTER_S)
        with suppress(ImportError, MemoryError):  # the processes can do all tiles
            self._trusted.load()
        return self._jobs.get()

    def _get_ready(self, request: _Warm | _Prepare) -> None:
        if self._process is not None:
            return
        with suppress(OSError, ImportError, MemoryError):  # the first tile fails with the reason
            if self._trusted is not None and isinstance(request, _Warm):
                self._trusted.load()
            else:
                self._process = WorkerProcess(self._memory_mb, self._nice)

    def _finish(self, job: _Job[K]) -> WorkFinished[K]:
        started_at = time.monotonic()
        outcome: TileOutput | WorkFailed | WorkCancelled
        kind = self._trusted_kind(job.task)
        if self._trusted is not None and kind is not None:
            is_first, self._has_loaded = not self._has_loaded, True
            self._here = job, kind
            outcome, compute_s = _run_here(job.task, kind, self._trusted)
            self._here = None
        else:
            is_first = self._served_at is None
            self._served_at = started_at if self._served_at is None else self._served_at
            outcome, compute_s = self._run_in_process(job)
        start_s = time.monotonic() - started_at - compute_s if is_first else 0.0
        if self._throttle is not None:
            job.started_at += start_s
            if not self._wait_for_throttle(job, self._throttle):
                outcome = WorkCancelled()
            compute_s = time.monotonic() - job.started_at
        queue_s = max(0.0, started_at - job.received_at)
        return WorkFinished(job.key, outcome, queue_s, compute_s, start_s, self.number)

    def _trusted_kind(self, task: TileTask) -> TileKind | None:
        """The kind of a tile that this thread may run, unless a process could begin earlier."""
        if self._trusted is None or (self._process is not None and not self._trusted.is_loaded):
            return None
        return self._trusted.allow(task)

    def _run_in_process(
        self, job: _Job[K]
    ) -> tuple[TileOutput | WorkFailed | WorkCancelled, float]:
        """Return the outcome of the tile and the seconds that its operators took."""
        try:
            process = self._process or WorkerProcess(self._memory_mb, self._nice)
            self._process = process
            process.send_task(job.task)
        except BrokenPipeError:
            return self._crashed(job), 0.0
        except OSError as problem:
            self._end_process()
            return WorkFailed(f"no worker process for tile {job.task.tile}: {problem}", ""), 0.0
        if not self._wait_for_reply(job, process):
            return self._overdue(job), 0.0
        return self._receive(job, process)

    def _receive(
        self, job: _Job[K], process: WorkerProcess
    ) -> tuple[TileOutput | WorkFailed | WorkCancelled, float]:
        try:
            received = process.receive_reply()
        except (msgspec.MsgspecError, OSError, ValueError):
            received = None  # an operator wrote to the channel
        if received is None:
            return self._crashed(job), 0.0
        reply, data = received
        if reply.needs_replacement:
            self._end_process()
        return _outcome(reply, data)

    def _wait_for_reply(self, job: _Job[K], process: WorkerProcess) -> bool:
        """Wait until the process replies or ends; False if the time is over before."""
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.register(self._wake_receiver, select.POLLIN)
        while (left_s := self._left_s(job)) > 0:
            ready = [descriptor for descriptor, _ in poll.poll(math.ceil(left_s * 1000))]
            if process.fileno() in ready:
                return True
            self._clear_wakeups()
        return False

    def _wait_for_throttle(self, job: _Job[K], throttle: Throttle) -> bool:
        """Wait as long as the emulated device would work; False if the tile is cancelled."""
        height, width = job.task.core[2:]
        pixels = height * width
        while (left_s := throttle.finish_time(job.started_at, pixels) - time.monotonic()) > 0:
            if self._is_closing or job.is_cancelled:
                left_s = min(left_s, self._left_s(job))
                if left_s <= 0:
                    return False
            # Not poll, which counts whole milliseconds.
            select.select([self._wake_receiver], [], [], left_s)
            self._clear_wakeups()
        return True

    def _left_s(self, job: _Job[K]) -> float:
        return 0.0 if self._is_closing else job.end_at - time.monotonic()

    def _clear_wakeups(self) -> None:
        with suppress(BlockingIOError):
            self._wake_receiver.recv(64)

    def _overdue(self, job: _Job[K]) -> WorkFailed | WorkCancelled:
        if job.is_cancelled or self._is_closing:
            self._end_process()
            return WorkCancelled()
        _, traceback = self._end_process(dump_traceback=True)
        lease_s = job.deadline - job.received_at
        return WorkFailed(
            f"{_describe(job)} did not return within its lease of {lease_s:.3g} s; "
            "the worker was ended",
            traceback,
        )

    def _crashed(self, job: _Job[K]) -> WorkFailed:
        how, traceback = self._end_process()
        return WorkFailed(f"the worker process {how} at {_describe(job)}", traceback)

    def _end_process(self, *, dump_traceback: bool = False) -> tuple[str, str]:
        """End the process; returns how it ended, in words, and its traceback."""
        process, self._process, self._served_at = self._process, None, None
        if process is None:
            return "is gone", ""
        status = process.end(dump_traceback=dump_traceback)
        return str(status), status.traceback


def _run_here(
    task: TileTask, kind: TileKind, trusted: TrustedTiles
) -> tuple[TileOutput | WorkFailed, float]:
    """Run a trusted tile in this thread; returns the outcome and the seconds that it took."""
    cpu_s = time.thread_time()
    reply, data = run_task(task, MemoryLimit(0))
    cpu_s = time.thread_time() - cpu_s
    trusted.ran(kind, task.pixels.nbytes, cpu_s, is_sound=not reply.needs_replacement)
    return _outcome(reply, memoryview(data))


def _never_returned(job: _Job[K], worker: int) -> WorkFinished[K]:
    lease_s = job.first_deadline - job.received_at
    failure = WorkFailed(
        f"{_describe(job)} did not return within its lease of {lease_s:.3g} s; another worker "
        "takes the place of its thread, which cannot be ended",
        "",
    )
    outcome = WorkCancelled() if job.is_cancelled else failure
    queue_s = max(0.0, job.started_at - job.received_at)
    return WorkFinished(job.key, outcome, queue_s, 0.0, worker=worker)


def _outcome(reply: Reply, data: memoryview) -> tuple[TileOutput | WorkFailed, float]:
    match reply:
        case WorkerDone(shape, dtype, codec, compute_s, decode_s, encode_s):
            return TileOutput(data, shape, dtype, codec, decode_s, encode_s), compute_s
        case WorkerFailed(reason, traceback, have=have):
            return WorkFailed(reason, traceback, have), 0.0


def _describe(job: _Job[K]) -> str:
    names = " | ".join(call.name for call in job.task.stage)
    return f"tile {job.task.tile} in operators {names}"[: MAX_REASON_CHARS // 2]
