"""The spool's writer thread: does requested work in order, writes journal entries in batches."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from fogmqtt.errors import FogError
from fogmqtt.gateway.storage.journal_db import JournalEntry

log = logging.getLogger(__name__)

#: Seconds that a journal entry waits for others, to be written in one transaction.
GATHER_S = 0.03
#: Limit of the bytes in journal entries that wait for the disk. Further entries are dropped,
#: which costs only repeated work after a restart.
MAX_WAITING_BYTES = 64_000_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Work:
    function: Callable[[], Any]
    future: Future[Any]

    def run(self) -> None:
        try:
            result = self.function()
        except BaseException as problem:
            self.future.set_exception(problem)
            if not isinstance(problem, Exception):
                raise
        else:
            self.future.set_result(result)


class SpoolWriter:
    """One thread that makes all changes in the spool.

    No Exception of requested work or of `write_entries` ends the thread, MemoryError included.
    If anything else ends it, all waiting and later futures fail with FogError.
    """

    def __init__(self, write_entries: Callable[[Sequence[JournalEntry]], None]) -> None:
        self._write_entries = write_entries
        self._queue: SimpleQueue[_Work | JournalEntry | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._waiting_bytes = 0
        self._dropped = 0
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Call a function after everything requested before. Any thread.

        The future cannot be cancelled: what is requested is done.
        """
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if not self._ended:
                self._queue.put(_Work(function, future))
                return future
        future.set_exception(_ended())
        return future

    def append(self, entry: JournalEntry) -> None:
        """Write a journal entry soon, or drop it while the disk is too slow. Any thread."""
        with self._lock:
            fits = self._waiting_bytes + entry.size <= MAX_WAITING_BYTES
            self._waiting_bytes += entry.size if fits else 0
            self._dropped += not fits
            if fits:
                self._queue.put(entry)
            is_first = not fits and self._dropped == 1
        if is_first:
            log.warning("the spool's disk is too slow: a restart would repeat some tiles")

    def close(self) -> None:
        """Finish what was requested and end the thread. Blocking."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._work_until_closed()
        except BaseException:  # nothing above a thread's function handles it
            log.critical("the spool's writer thread has ended", exc_info=True)
        finally:
            self._fail_waiting()

    def _work_until_closed(self) -> None:
        entries: list[JournalEntry] = []
        due = 0.0
        while True:
            try:
                timeout = max(0.0, due - time.monotonic()) if entries else None
                item = self._queue.get(timeout=timeout)
            except Empty:
                self._flush(entries)
                continue
            if isinstance(item, _Work):
                self._flush(entries)
                item.run()
            elif item is None:
                self._flush(entries)
                return
            else:
                due = due if entries else time.monotonic() + GATHER_S
                entries.append(item)
                if time.monotonic() >= due:
                    self._flush(entries)

    def _flush(self, entries: list[JournalEntry]) -> None:
        if not entries:
            return
        try:
            self._write_entries(entries)
        except Exception:  # MemoryError included: only repeated work is lost
            with suppress(MemoryError):
                log.exception("journal entries are dropped: a restart would repeat some tiles")
        with self._lock:
            for entry in entries:
                self._waiting_bytes -= entry.size
        entries.clear()

    def _fail_waiting(self) -> None:
        with self._lock:
            self._ended = True
        with suppress(Empty):
            while True:
                item = self._queue.get_nowait()
                if isinstance(item, _Work):
                    item.future.set_exception(_ended())


def _ended() -> FogError:
    return FogError("the spool's writer has ended, so nothing is stored; restart the gateway")
