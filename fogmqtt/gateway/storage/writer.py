"""The one thread that writes to the spool: orders in their turn, lines of the ledger in batches."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

log = logging.getLogger(__name__)

#: Seconds that a line may wait for others to be written with it.
GATHER_S = 0.03
#: Bytes of lines that wait for the disk; beyond them lines are left out, which costs only work.
MAX_WAITING_BYTES = 64_000_000

T = TypeVar("T")


class JournalLine(Protocol):
    """Something for the ledger that nobody waits for."""

    @property
    def size(self) -> int:
        """Bytes of memory that it holds."""


@dataclass(frozen=True, slots=True)
class _Order:
    work: Callable[[], Any]
    future: Future[Any]


class SpoolWriter:
    """Starts with its first order or line. `write` puts lines down; it must not raise."""

    def __init__(self, write: Callable[[Sequence[Any]], None]) -> None:
        self._write = write
        self._queue: SimpleQueue[_Order | JournalLine | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._left_out = 0
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def order(self, work: Callable[[], T]) -> Future[T]:
        """Have something done after all that came before. Any thread."""
        future: Future[T] = Future()
        self._queue.put(_Order(work, future))
        return future

    def line(self, line: JournalLine) -> None:
        """Have a line written soon, or left out while the disk does not keep up. Any thread."""
        with self._lock:
            fits = self._waiting + line.size <= MAX_WAITING_BYTES
            self._waiting += line.size if fits else 0
            self._left_out += not fits
        if fits:
            self._queue.put(line)
        elif self._left_out == 1:
            log.warning("the spool's disk does not keep up: some tiles would be done again")

    def close(self) -> None:
        """Finish what was ordered. The thread ends."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        lines: list[JournalLine] = []
        due = 0.0
        while True:
            try:
                item = self._queue.get(timeout=max(0.0, due - time.monotonic()) if lines else None)
            except Empty:
                self._flush(lines)
                continue
            if isinstance(item, _Order):
                self._flush(lines)
                _carry_out(item)
            elif item is None:
                self._flush(lines)
                return
            else:
                due = due if lines else time.monotonic() + GATHER_S
                lines.append(item)
                if time.monotonic() >= due:
                    self._flush(lines)

    def _flush(self, lines: list[JournalLine]) -> None:
        if not lines:
            return
        self._write(lines)
        with self._lock:
            self._waiting -= sum(line.size for line in lines)
        lines.clear()


def _carry_out(order: _Order) -> None:
    try:
        order.future.set_result(order.work())
    except Exception as problem:  # noqa: BLE001  # whoever ordered it hears of it
        order.future.set_exception(problem)
