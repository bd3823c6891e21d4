"""Conformance reports of earlier runs, in the user's cache folder: one file for each identity."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

import msgspec

from fogmqtt.conformance.report import ConformanceReport

log = logging.getLogger(__name__)

#: The oldest files over this number are deleted.
MOST_FILES: Final = 16
_LARGEST_BYTES = 4_000_000
#: The end of the name of a file that is being written, and seconds that this may take.
_NEW: Final = ".new"
_UNFINISHED_S: Final = 600.0
#: Seconds between two attempts to take the lock.
_LOCK_POLL_S: Final = 0.05
#: Seconds between two calls of whoever waits for the lock.
_WAITING_S: Final = 1.0


def folder() -> Path:
    """Return the folder in which the user's programs keep what they can compute again."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # the XDG specification says to ignore a relative path
        try:
            base = Path("~/.cache").expanduser()
        except RuntimeError:  # the user has no home: return a path that cannot be written
            base = Path(os.devnull)
    return base / "fogmqtt"


def load(place: Path, identity: str) -> ConformanceReport | None:
    """Return the stored report, or None if there is none or its file is damaged.

    A damaged file is logged.
    """
    file = _file(place, identity)
    try:
        with file.open("rb") as opened:
            return msgspec.json.decode(opened.read(_LARGEST_BYTES), type=ConformanceReport)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, RecursionError, ValueError) as problem:
        log.warning("%s cannot be used, the operators are checked again: %s", file, problem)
        return None


def store(place: Path, identity: str, report: ConformanceReport) -> bool:
    """Write the report atomically. A folder that cannot be written is logged; returns False."""
    import tempfile

    file = _file(place, identity)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place, suffix=_NEW, delete=False) as opened:
            opened.write(msgspec.json.encode(report))
        Path(opened.name).replace(file)
        _delete_oldest(place)
    except OSError as problem:
        log.warning("%s: operators will be checked at every start: %s", file, problem)
        return False
    return True


@contextlib.contextmanager
def locked(
    place: Path, timeout_s: float, cancelled: threading.Event, waiting: Callable[[], None]
) -> Iterator[None]:
    """Keep other processes out of the block; enter without the lock if it cannot be had.

    The lock is waited for during `timeout_s` seconds, or until `cancelled` is set: a process that
    holds it may be stopped, and must not keep this one from working. Without the lock, several
    processes may do the same work, which is logged. `waiting` is called about once a second.
    """
    with contextlib.ExitStack() as opened:
        try:
            place.mkdir(parents=True, exist_ok=True)
            file = opened.enter_context((place / "conformance.lock").open("w"))
            if not _lock(file, timeout_s, cancelled, waiting) and not cancelled.is_set():
                log.warning(
                    "%s: another program has held the lock for %g s; checking the operators "
                    "without it",
                    file.name,
                    timeout_s,
                )
        except OSError as problem:
            log.warning("%s: other programs may check operators as well: %s", place, problem)
        yield


def _lock(
    file: IO[str], timeout_s: float, cancelled: threading.Event, waiting: Callable[[], None]
) -> bool:
    """Return whether the lock was taken in time. Closing the file releases it. Raises OSError."""
    try:
        import fcntl  # not on every system on which this package can be imported
    except ImportError:
        raise OSError(errno.ENOLCK, "this system has no locks on files") from None
    deadline = time.monotonic() + timeout_s
    called_at = time.monotonic()
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline or cancelled.wait(_LOCK_POLL_S):
                return False
            if time.monotonic() >= called_at + _WAITING_S:
                waiting()
                called_at = time.monotonic()
        else:
            return True


def _file(place: Path, identity: str) -> Path:
    return place / f"conformance-{identity}.json"


def _delete_oldest(place: Path) -> None:
    files = sorted(place.glob("conformance-*.json"), key=lambda file: file.stat().st_mtime)
    newest = files[-1].stat().st_mtime if files else 0.0
    # A program that was ended while it wrote has left an incomplete file.
    unfinished = [
        file for file in place.glob(f"*{_NEW}") if newest - _written_at(file) > _UNFINISHED_S
    ]
    for file in (*files[:-MOST_FILES], *unfinished):
        file.unlink(missing_ok=True)


def _written_at(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:  # another program has just finished it
        return float("inf")
