"""A gateway for callers outside its event loop: scripts, benchmarks, other servers.

with GatewayThread(config, "mariem", connect) as gateway:
    outcome = gateway.run(JobRequest("photo", "gray | canny", path=Path("photo.png")))
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, nullcontext, suppress
from copy import deepcopy
from functools import partial
from types import TracebackType
from typing import Any, Final, TypeVar

from fogmqtt.config import GatewayConfig
from fogmqtt.core.scheduling.scheduler import Scheduler
from fogmqtt.errors import FogError
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.broker_link import Connect
from fogmqtt.gateway.devices.registry import DeviceView
from fogmqtt.gateway.events import GatewayEvent
from fogmqtt.gateway.jobs.model import JobRequest, Outcome
from fogmqtt.gateway.jobs.report import Report

T = TypeVar("T")

_STOPPED: Final = "the gateway has stopped; start another one"


class ThreadDoor:
    """The methods of a running gateway, for any other thread.

    They must not be called in the gateway's own event loop, which they would wait for.
    """

    def __init__(self, gateway: Gateway, loop: asyncio.AbstractEventLoop) -> None:
        self._gateway = gateway
        self._loop = loop

    def submit(self, request: JobRequest) -> Future[Outcome]:
        """Submit a job. The future gets its outcome, and `Future.cancel` ends the job."""

        async def outcome() -> Outcome:
            handle = self._gateway.submit(request)
            try:
                return await handle.outcome()
            except asyncio.CancelledError:
                handle.cancel()
                raise

        return self._start(outcome())

    def run(self, request: JobRequest) -> Outcome:
        """Run a job, and return its outcome."""
        return self.submit(request).result()

    def cancel(self, job: str, reason: str = "the job was cancelled") -> bool:
        """End a job without a result. False if there is no such job, or it has ended."""
        return self._call(lambda: self._gateway.cancel(job, reason))

    def report(self, job: str) -> Report | None:
        """Return a job's figures at this moment. None if there is no such job, or it has ended."""

        def copied() -> Report | None:
            handle = self._gateway.job(job)
            return None if handle is None else deepcopy(handle.report)

        return self._call(copied)

    def jobs(self) -> tuple[str, ...]:
        """Return the ids of the jobs that have not ended."""
        return self._call(lambda: tuple(handle.id for handle in self._gateway.jobs()))

    def devices(self) -> tuple[DeviceView, ...]:
        """Return the devices that have sent their info, in the order of their ids."""
        return self._call(self._gateway.devices)

    def online(self) -> tuple[str, ...]:
        """Return the ids of the devices that are online."""
        return self._call(self._gateway.online)

    def wait_until_settled(self, within_s: float | None = None) -> None:
        """Wait until the devices that are online are known, as far as there is a broker.

        Returns after `within_s` seconds in any case, unless that is None.
        """

        async def settled() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._gateway.settled()

        self._wait(settled())

    def wait_until_connected(self) -> None:
        """Wait until a broker has answered."""
        self._wait(self._gateway.link.up())

    def listen(self, name: str, handle: Callable[[GatewayEvent], object]) -> None:
        """As `Gateway.listen`: have `handle` called for each event, in a thread."""
        self._call(lambda: self._gateway.listen(name, handle))

    def _call(self, function: Callable[[], T]) -> T:
        """Call a function in the event loop, and return its result."""

        async def call() -> T:
            return function()

        return self._wait(call())

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            return self._start(coroutine).result()
        except CancelledError:
            raise FogError(_STOPPED) from None

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in the gateway's event loop. Raises FogError if that has ended."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise FogError(_STOPPED) from None


class GatewayThread:
    """Runs a gateway in an event loop of its own thread, while the `with` block lasts.

    Entering raises the error that prevents the start. If the gateway fails later, jobs end with
    errors, and leaving the block raises the error.

    `connect` may be a context manager that gives it. The thread enters it, so a broker process that
    it starts lives as long as the thread.
    """

    def __init__(
        self,
        config: GatewayConfig,
        gateway_id: str,
        connect: Connect | AbstractContextManager[Connect],
        *,
        broker_within_s: float | None = None,
        publishes_jobs: bool = True,
        scheduler: Scheduler | None = None,
    ) -> None:
        self._connect: AbstractContextManager[Connect] = (
            connect if isinstance(connect, AbstractContextManager) else nullcontext(connect)
        )
        self._make = partial(
            Gateway,
            config,
            gateway_id,
            broker_within_s=broker_within_s,
            publishes_jobs=publishes_jobs,
            scheduler=scheduler,
        )
        self._started: Future[ThreadDoor] = Future()
        self._stop: Callable[[], object] = _nothing_to_stop
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)

    @property
    def failure(self) -> Exception | None:
        """What ended the gateway by itself; None if nothing did."""
        return self._failure

    def stop(self) -> None:
        """Let the gateway end. Returns at once."""
        self._stop()

    def __enter__(self) -> ThreadDoor:
        self._thread.start()
        return self._started.result()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        self._thread.join()
        if self._failure is not None and problem is None:
            raise self._failure

    def _run(self) -> None:
        try:
            with self._connect as connect:
                asyncio.run(self._serve(connect))
        except Exception as problem:  # noqa: BLE001  # raised where the gateway was started
            self._failure = problem
            if not self._started.done():
                self._started.set_exception(problem)

    async def _serve(self, connect: Connect) -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            with suppress(RuntimeError):  # the gateway has failed, and its loop is closed
                loop.call_soon_threadsafe(stopped.set)

        async with self._make(connect) as gateway:
            self._stop = stop
            self._started.set_result(ThreadDoor(gateway, loop))
            await stopped.wait()


def _nothing_to_stop() -> None:
    """Do nothing: the gateway has not started."""
