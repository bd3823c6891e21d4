"""Blocking work beside the event loop, kept apart by how long it may take.

Short work on tiles has a small pool of its own, so that no long computation delays a tile. Work on
whole images runs in a few threads. Work that may hang, such as writing to a network disk, gets a
thread for itself: if it never returns, nothing else waits for it. An `IoThread` makes calls one
after another that may hang together, such as those on one network mount.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from msgspec import Struct

from fogmqtt.workers.resources import cores

#: Pixel work releases the interpreter lock. More threads than cores only wait for each other.
TILE_THREADS: Final = max(2, min(4, cores()))
#: Computations on large images at the same time; each takes several times its image's memory.
IMAGE_THREADS: Final = 2
#: Larger images are large.
SMALL_PIXELS: Final = 4_000_000

T = TypeVar("T")

_separate_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


class Threads:
    """The threads of one gateway. All methods belong to the event loop."""

    def __init__(self) -> None:
        self._tiles = ThreadPoolExecutor(TILE_THREADS, thread_name_prefix="tiles")
        self._large_images = asyncio.Semaphore(IMAGE_THREADS)
        self._turn = asyncio.Lock()

    def begin_tile(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Start short work on one tile: cut, encode, check or paste it."""
        return asyncio.get_running_loop().run_in_executor(self._tiles, work)

    async def tile(self, work: Callable[[], T], *, light: bool = False) -> T:
        """Do short work on one tile: in the event loop if it is light, otherwise in a thread."""
        if not light:
            return await self.begin_tile(work)
        async with self._turn:
            result = work()
            # One light tile in each pass of the event loop: messages and timers do not wait long.
            await asyncio.sleep(0)
        return result

    async def image(self, work: Callable[[], T], pixels: int) -> T:
        """Do work on a whole image of so many pixels. When it is cancelled, its result is dropped.

        Large images wait for each other; a small one, such as a camera's frame, waits for none.
        """
        if pixels <= SMALL_PIXELS:
            return await self.apart(work, "image")
        async with self._large_images:
            return await self.apart(work, "image")

    async def apart(self, work: Callable[[], T], name: str) -> T:
        """Do work that may hang in a thread of its own with this name."""
        return await _in_separate_thread(work, name)

    def close(self) -> None:
        """Drop work on tiles that has not begun, and wait for the rest of it.

        Threads of `image` and `apart` are not waited for; see `abandoned`.
        """
        self._tiles.shutdown(wait=True, cancel_futures=True)


def abandoned() -> list[str]:
    """Return the names of threads whose work is no longer wanted but has not returned yet.

    A program should leave by `os._exit` while there are any: Python cannot end them.
    """
    return [thread.name for thread in _separate_threads if thread.is_alive()]


def wait_for_abandoned(within_s: float) -> None:
    """Wait until the threads of `abandoned` have returned, for so many seconds at most.

    For a program that is not ours to end by `os._exit`. Without this, it would be aborted if OpenCV
    computes in one of them when Python ends.
    """
    until = time.monotonic() + within_s
    for thread in tuple(_separate_threads):
        thread.join(max(0.0, until - time.monotonic()))


async def _in_separate_thread(work: Callable[[], T], name: str) -> T:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except Exception as problem:  # noqa: BLE001  # the awaiting coroutine raises it
            _report(loop, _fail, future, problem)
        else:
            _report(loop, _finish, future, result)

    thread = threading.Thread(target=run, name=name, daemon=True)
    _separate_threads.add(thread)
    thread.start()
    return await future


def _report(loop: asyncio.AbstractEventLoop, settle: Callable[..., None], *values: Any) -> None:
    with suppress(RuntimeError):  # the loop is closed: no coroutine awaits this any more
        loop.call_soon_threadsafe(settle, *values)


def _finish(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], problem: Exception) -> None:
    if not future.done():
        future.set_exception(problem)


class _Call(Struct, frozen=True):
    work: Callable[[], Any]
    future: Future[Any]

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.work()
        except BaseException as problem:  # noqa: BLE001  # raised where the call is awaited
            self.future.set_exception(problem)
        else:
            self.future.set_result(result)


class IoThread:
    """Runs calls one after another, so that what they share needs no lock.

    It is a daemon thread, unlike those of ThreadPoolExecutor: a call that hangs in a dead
    network mount must not keep the process from ending.
    """

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run `work` after all calls before it; the future has its result or its exception."""
        future: Future[T] = Future()
        self._queue.put(_Call(work, future))
        return asyncio.wrap_future(future)

    def close(self) -> None:
        """End the thread after the calls that were made. Returns at once."""
        self._queue.put(None)

    def _run(self) -> None:
        while (call := self._queue.get()) is not None:
            call.run()
