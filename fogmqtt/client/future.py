"""A job that a program submitted, as a future."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from fogmqtt.client.report import JobReport
from fogmqtt.errors import FogError, JobFailed
from fogmqtt.gateway.jobs.model import JobRequest, Outcome
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.gateway.thread_door import ThreadDoor

OTHER_PROCESS = (
    "this fog belongs to another process, whose threads are not in this one; connect again here"
)


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is.

    Attributes
    ----------
    fraction : from 0 to 1; the stages of a pipeline count alike, whatever they take
    done, tiles : the tiles that are done and those that were cut so far
    """

    fraction: float
    done: int
    tiles: int

    def __str__(self) -> str:
        return f"{100 * self.fraction:.0f} %, {self.done} of {self.tiles} tiles"


class Settler:
    """A thread that completes futures, so that their callbacks run neither long nor in the gateway.

    `call` may be called in any thread.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="fog results", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], object]) -> None:
        """Call `work` after all calls before it."""
        self._calls.put(work)

    def close(self, *, wait: bool = True) -> None:
        """End the thread after the calls so far."""
        self._calls.put(None)
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while (work := self._calls.get()) is not None:
            work()
            del work  # it holds an image


class JobFuture(Future[Any]):
    """A job under way. Its result is an array, or a dict of facts if the pipeline measures.

    With `pages="all"` the result is a list with one of them for each page.

    It works with `concurrent.futures.wait` and `as_completed`, and can be awaited. `result` raises
    a FogError that says why a job failed, and CancelledError after `cancel`.
    """

    def __init__(
        self,
        fog: object,
        door: ThreadDoor,
        settler: Settler,
        request: JobRequest,
        finish: Callable[[Outcome], Any],
    ) -> None:
        super().__init__()
        #: The program may drop its fog, which ends when nobody needs it.
        self._fog = fog
        self._door = door
        self._finish = finish
        self._pid = os.getpid()
        self._cancelling = threading.Lock()
        self.job = request.job
        self.name = request.name
        self.pipeline = request.pipeline
        self._report = Report(request.job, request.name, request.pipeline)
        self._inner = door.submit(request)
        self._inner.add_done_callback(lambda inner: settler.call(lambda: self._settle(inner)))

    @property
    def progress(self) -> JobProgress:
        """How far the job is at this moment."""
        report = self._figures()
        return JobProgress(report.fraction, report.done, report.tiles)

    @property
    def report(self) -> JobReport:
        """The job's figures at this moment: devices, tiles, seconds, notes and so on."""
        return JobReport.of(self._figures())

    def running(self) -> bool:
        """Whether the job is under way, and not waiting for its turn."""
        return not self.done() and self._figures().stages > 0

    def cancel(self) -> bool:
        """End the job: its tiles are taken back from the devices. False if it has ended before."""
        self._check_process()
        with self._cancelling:
            if self.cancelled():
                return True
            if not super().cancel():
                return False
            self.set_running_or_notify_cancel()  # `wait` and `as_completed` learn of it
        self._inner.cancel()
        self._let_go()
        return True

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result, at most `timeout` seconds, and return it.

        Raises TimeoutError after `timeout`, which ends only the waiting.
        """
        self._check_process()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end of the job, and return why it failed; None if it has a result."""
        self._check_process()
        return super().exception(timeout)

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.wrap_future(self).__await__()

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled() else "done" if self.done() else "under way"
        return f"<JobFuture {self.name}: {self.pipeline}: {state}, {self.progress}>"

    def _figures(self) -> Report:
        if not self.done() and os.getpid() == self._pid:
            with suppress(FogError):  # the gateway has stopped
                self._report = self._door.report(self.job) or self._report
        return self._report

    def _settle(self, inner: Future[Outcome]) -> None:
        """Take the outcome of the job, in the thread of the settler."""
        with suppress(InvalidStateError):  # it was cancelled
            try:
                self.set_result(self._result_of(inner))
            except InvalidStateError:
                raise
            except Exception as problem:  # noqa: BLE001  # `result` raises it
                self.set_exception(problem)
        self._let_go()

    def _result_of(self, inner: Future[Outcome]) -> Any:
        if inner.cancelled():
            raise FogError("the gateway has stopped; connect again")
        outcome = inner.result()
        self._report = outcome.report
        if outcome.error is not None:
            raise outcome.cause or JobFailed(outcome.error)
        return self._finish(outcome)

    def _let_go(self) -> None:
        """Keep nothing that holds pixels, or the fog."""
        self._inner = Future()
        self._finish = _nothing
        self._fog = None

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise FogError(OTHER_PROCESS)


def _nothing(outcome: Outcome) -> None:
    """Return nothing: the job has ended."""
    del outcome
