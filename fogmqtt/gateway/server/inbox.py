"""The inbox folder for the event loop: complete files, one at a time, when the consumer asks.

All file system calls run in a thread of their own, so that a network mount that hangs stops the
inbox and nothing else. Nothing runs between two requests of the consumer: while it takes no file,
no file is opened and no folder is listed; the kernel keeps the events, and where it loses some,
the folders are listed again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from fogmqtt.errors import ConfigError
from fogmqtt.gateway.server.inbox_folder import InboxFile, InboxFolder, InboxTiming
from fogmqtt.gateway.threads import IoThread

log = logging.getLogger(__name__)

#: Seconds that events are collected: a file that is created, written and closed needs one call.
_COLLECT_S = 0.02
#: Seconds until a file system that does not answer is named in the log.
_HUNG_S = 10.0
#: Seconds between two tries where the whole inbox fails.
_RECOVER_S = 10.0
#: Seconds that starting and closing wait for the file system.
_PATIENCE_S = 5.0


class Inbox:
    """Watches a folder and its subfolders.

    Parameters
    ----------
    folder : the inbox; `start` makes it
    pipelines : names of subfolders that select a pipeline
    excluded : folders that are never looked into, if they lie in the inbox: outbox and spool
    """

    def __init__(
        self,
        folder: Path,
        pipelines: Collection[str],
        *,
        excluded: Collection[Path] = (),
        timing: InboxTiming | None = None,
    ) -> None:
        self.folder = folder
        self._thread = IoThread("inbox")
        #: Its methods run in the thread only.
        self._files = InboxFolder(folder, pipelines, excluded=excluded, timing=timing)
        #: Calls that the thread makes before it looks for the next file.
        self._notes: deque[Callable[[], None]] = deque()
        self._wake = asyncio.Event()
        self._closed = asyncio.Event()
        self._reader: int | None = None

    async def start(self) -> None:
        """Make the folder and watch it from now on. Raises ConfigError where it cannot be made."""
        starting = self._thread.call(self._files.start)
        try:
            await asyncio.wait_for(asyncio.shield(starting), _PATIENCE_S)
        except TimeoutError:
            log.warning("inbox %s: the file system does not answer", self.folder)
        except OSError as problem:
            raise ConfigError(
                f"gateway.inbox: cannot use {self.folder}: {problem.strerror}; name a folder, "
                'or set it to "" for none'
            ) from None

    async def files(self) -> AsyncIterator[InboxFile]:
        """Every complete file once, and again when it was replaced; ends after `close`.

        For one consumer. It moves the file away, or calls `retry`; a file that it finds gone was
        replaced meanwhile, or somebody removed it. It asks for the next file only when it has
        room: what was returned is in its hands.
        """
        while not self._closed.is_set():
            found = await self._next()
            if isinstance(found, InboxFile):
                self._notes.append(partial(self._files.handed, found))
                yield found
            elif found is not None:
                await self._rest(found)

    def retry(self, file: InboxFile, delay_s: float) -> None:
        """Return this file again after `delay_s`, if it is still there: it could not be taken."""
        self._notes.append(partial(self._files.retry, file, delay_s))
        self._wake.set()

    async def close(self) -> None:
        """End `files`, also where the file system hangs."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._wake.set()
        self._stop_reading()
        closing = self._thread.call(self._files.close)
        self._thread.close()
        await asyncio.wait({closing}, timeout=_PATIENCE_S)

    async def _next(self) -> InboxFile | float | None:
        """The next file, or the seconds until there may be one; None if the inbox is closed.

        If the caller is cancelled, the next call returns the same file.
        """
        polling = self._thread.call(self._poll)
        closing = asyncio.ensure_future(self._closed.wait())
        either: set[asyncio.Future[Any]] = {polling, closing}
        try:
            await asyncio.wait(either, timeout=_HUNG_S, return_when=asyncio.FIRST_COMPLETED)
            if not polling.done() and not closing.done():
                log.warning("inbox %s: the file system does not answer", self.folder)
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
        return None if self._closed.is_set() else await polling

    def _poll(self) -> InboxFile | float:
        while self._notes:
            self._notes.popleft()()
        try:
            return self._files.poll()
        except OSError as problem:
            log.warning("inbox %s: %s; trying again", self.folder, problem)
            return _RECOVER_S

    async def _rest(self, delay_s: float) -> None:
        """Wait until the kernel, `retry` or `close` reports something, at most `delay_s`."""
        self._start_reading()
        try:
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
                await asyncio.sleep(_COLLECT_S)
        except TimeoutError:
            pass
        finally:
            self._stop_reading()
            self._wake.clear()

    def _start_reading(self) -> None:
        descriptor = self._files.fileno
        if descriptor is not None and not self._closed.is_set():
            self._reader = descriptor
            asyncio.get_running_loop().add_reader(descriptor, self._readable)

    def _readable(self) -> None:
        self._stop_reading()  # the thread reads it; until then it stays readable
        self._wake.set()

    def _stop_reading(self) -> None:
        if self._reader is not None:
            asyncio.get_running_loop().remove_reader(self._reader)
            self._reader = None
