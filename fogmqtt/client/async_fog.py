"""`AsyncFog`: a `Fog` for coroutines. `fogmqtt.aconnect` makes one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sized
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, Unpack

from fogmqtt.client.fleet import Devices
from fogmqtt.client.fog import LOOK_S, Fog, OnError, check_stream, show
from fogmqtt.client.future import JobFuture
from fogmqtt.client.progress import open_bar
from fogmqtt.client.request import JobOptions, Plan
from fogmqtt.errors import FogError
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.base import Facts

_END = object()


class AsyncFog:
    """Processes images in coroutines; its methods are those of `Fog`.

    It is an asynchronous context manager. The gateway runs in a thread of its own, so nothing waits
    for the program's event loop. A cancelled coroutine cancels its job.
    """

    def __init__(self, connect: Callable[[], Fog]) -> None:
        """Use `fogmqtt.aconnect`."""
        self._connect = connect
        self._opened: Fog | None = None

    async def __aenter__(self) -> Self:
        opening = asyncio.ensure_future(asyncio.to_thread(self._connect))
        try:
            self._opened = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_late)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._fog.__exit__, kind, problem, trace)

    async def close(self) -> None:
        """Cancel the jobs under way, and leave the broker."""
        await asyncio.to_thread(self._fog.close)

    async def run(
        self,
        image: object,
        pipeline: str | None = None,
        *,
        progress: bool = False,
        **options: Unpack[JobOptions],
    ) -> Image:
        """Process an image, and return the resulting array, as `Fog.run`."""
        job = self._fog.start(self._fog.plan(pipeline, options, "image"), image)
        result: Image = await _finish(job, progress=progress)
        return result

    async def measure(
        self,
        image: object,
        pipeline: str,
        *,
        progress: bool = False,
        **options: Unpack[JobOptions],
    ) -> Facts:
        """Process an image with a pipeline that measures, and return its facts."""
        job = self._fog.start(self._fog.plan(pipeline, options, "facts"), image)
        facts: Facts = await _finish(job, progress=progress)
        return facts

    def submit(
        self, image: object, pipeline: str | None = None, **options: Unpack[JobOptions]
    ) -> JobFuture:
        """Start a job, and return its future, which can be awaited."""
        return self._fog.submit(image, pipeline, **options)

    def map(
        self,
        images: Iterable[object] | AsyncIterable[object],
        pipeline: str | None = None,
        *,
        ahead: int = 4,
        errors: OnError = "raise",
        progress: bool = False,
        **options: Unpack[JobOptions],
    ) -> AsyncIterator[Any]:
        """Process a stream of images, and yield their results in order, as `Fog.map`.

        An ordinary iterable is asked for its next image in a thread.
        """
        check_stream(ahead, errors)
        return self._stream(images, self._fog.plan(pipeline, options), ahead, errors, progress)

    async def devices(self) -> Devices:
        """Return the devices that have announced themselves, as `Fog.devices`."""
        return await asyncio.to_thread(self._fog.devices)

    @property
    def _fog(self) -> Fog:
        if self._opened is None:
            raise FogError("this fog is not connected; use it as: async with fogmqtt.aconnect()")
        return self._opened

    async def _stream(
        self,
        images: Iterable[object] | AsyncIterable[object],
        plan: Plan,
        ahead: int,
        errors: OnError,
        progress: bool,
    ) -> AsyncIterator[Any]:
        following, waiting = _next_of(images), deque[Future[Any]]()
        end: Exception | None = None
        is_over = False
        total = len(images) if isinstance(images, Sized) else None
        with open_bar("images", total, is_shown=progress) as bar:
            try:
                while True:
                    while not is_over and len(waiting) < ahead:
                        try:
                            image = await following()
                        except Exception as problem:  # noqa: BLE001  # raised in its turn
                            end, image = problem, _END
                        if image is _END:
                            is_over = True
                        else:
                            waiting.append(self._fog.start_or_fail(plan, image))
                        del image  # it is not needed while the program has its turn
                    if not waiting:
                        break
                    result = [await _result_or_error(waiting.popleft(), errors)]
                    bar.advance()
                    yield result.pop()  # so nothing here holds on to it
            finally:
                for job in waiting:
                    job.cancel()
        if end is not None:
            raise end


async def _finish(job: JobFuture, *, progress: bool) -> Any:
    if not progress:
        return await job
    waiting = asyncio.wrap_future(job)
    try:
        with open_bar(job.name, 100) as bar:
            while not (await asyncio.wait((waiting,), timeout=LOOK_S))[0]:
                show(job, bar)
            show(job, bar)
    except BaseException:
        job.cancel()
        raise
    return await waiting


async def _result_or_error(job: Future[Any], errors: OnError) -> Any:
    try:
        return await asyncio.wrap_future(job)
    except Exception as problem:
        if errors == "raise":
            raise
        return problem


def _next_of(images: Iterable[object] | AsyncIterable[object]) -> Callable[[], Any]:
    """Return a coroutine function that gives the next image, or _END after the last one."""
    if isinstance(images, AsyncIterable):
        source = aiter(images)

        async def following() -> object:
            return await anext(source, _END)

        return following
    plain = iter(images)

    async def following_in_thread() -> object:
        return await asyncio.to_thread(next, plain, _END)

    return following_in_thread


def _close_late(opening: asyncio.Future[Fog]) -> None:
    """Close a fog that was opened for a coroutine which was cancelled meanwhile."""
    if not opening.cancelled() and opening.exception() is None:
        with suppress(FogError):
            opening.result().close()
