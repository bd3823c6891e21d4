"""Which files of the inbox are complete, and when to look again. Blocking calls; one thread only.

A file is taken at once when the kernel reports that it was closed after writing or moved in. A
file without such a report (it was there at start, another machine wrote it, events were lost) is
taken when it has not changed for a while. Files are listed often, but opened one by one, each
when it would be taken next.
"""

from __future__ import annotations

import heapq
import logging
import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fogmqtt.gateway.server.folder_events import Change
from fogmqtt.gateway.server.inbox_tree import InboxTree, PathLog
from fogmqtt.gateway.storage.held_folder import is_own
from fogmqtt.images import no_image
from fogmqtt.images.endings import Ending, ending

#: Files that are remembered at a time; a later rescan finds the others.
MAX_CANDIDATES = 20_000
#: A rescan takes at most this share of the time, …
_RESCAN_SHARE = 0.02
#: … unless this many seconds have passed.
_LONGEST_RESCAN_S = 60.0


@dataclass(frozen=True, slots=True)
class InboxFile:
    """A complete file.

    Attributes
    ----------
    path : where it lies
    pipeline : the first subfolder of the inbox on the way to it, where that is named after a
        pipeline; empty for the default pipeline
    stamp : its size in bytes and its modification time in ns
    """

    path: Path
    pipeline: str
    stamp: tuple[int, int]


@dataclass(frozen=True, slots=True)
class InboxTiming:
    """Seconds.

    Attributes
    ----------
    quiet_s : that a file whose end is there must not change, if nobody reported it as closed
    unfinished_s : the same, if its end is missing or its format does not tell
    rescan_s : between two listings of all folders
    retry_s : until a file that cannot be read is tried again
    writing_s : until a file that stays open for writing is named in the log
    """

    quiet_s: float = 1.0
    unfinished_s: float = 15.0
    rescan_s: float = 2.0
    retry_s: float = 10.0
    writing_s: float = 60.0


#: Device, inode, size and modification time: equal for the same content under the same name.
_Identity = tuple[int, int, int, int]


@dataclass(slots=True)
class _Candidate:
    """A file that may be taken.

    Attributes
    ----------
    due : when to check it
    since : when it changed last, as far as known
    identity : what it was at `since`; None: it is whatever the next check finds
    closed : it was closed after writing, or moved in, and nobody wrote to it after that
    writing : some program of this machine has it open and wrote to it
    """

    due: float
    since: float
    identity: _Identity | None = None
    closed: bool = False
    writing: bool = False


class InboxFolder:
    """The inbox with its subfolders; nothing happens before the first call. See `InboxTree`."""

    def __init__(
        self,
        folder: Path,
        pipelines: Collection[str],
        *,
        excluded: Collection[Path] = (),
        timing: InboxTiming | None = None,
    ) -> None:
        self._timing = timing or InboxTiming()
        self._path_log = PathLog()
        self._tree = InboxTree(folder, pipelines, excluded, self._path_log)
        self._rescan_at = float("-inf")
        self._candidates: dict[str, _Candidate] = {}
        #: When to check which candidate; entries whose time is not the candidate's are void.
        self._heap: list[tuple[float, str]] = []
        #: What was handed to the consumer and is still in the folder.
        self._handed: dict[str, _Identity] = {}

    def start(self) -> None:
        """Make the folder if it is missing, and watch it from now on. Raises OSError."""
        Path(self._tree.root).mkdir(parents=True, exist_ok=True)
        self._rescan()

    @property
    def fileno(self) -> int | None:
        """Becomes readable when `poll` has something to do; None where there are no events."""
        return self._tree.fileno

    def poll(self) -> InboxFile | float:
        """The next complete file, or the seconds until the next call is worthwhile.

        The same file is returned again until `handed` is called with it.
        """
        self._read_events()
        if time.monotonic() >= self._rescan_at:
            self._rescan()
        for path, candidate in self._due():
            file = self._check(path, candidate)
            if file is not None:
                return file
        next_at = min(self._rescan_at, *(due for due, _ in self._heap[:1]), float("inf"))
        return max(0.0, next_at - time.monotonic())

    def handed(self, file: InboxFile) -> None:
        """The consumer has this file: it is not returned again unless it changes."""
        path = str(file.path)
        candidate = self._candidates.pop(path, None)
        if candidate is not None and candidate.identity is not None:
            self._handed[path] = candidate.identity

    def retry(self, file: InboxFile, delay_s: float) -> None:
        """Return this file again after `delay_s`, if it is still there."""
        path = str(file.path)
        self._handed.pop(path, None)
        if path not in self._candidates:
            now = time.monotonic()
            self._candidates[path] = _Candidate(now, now, closed=True)
            self._postpone(path, now + delay_s)

    def close(self) -> None:
        """Give the watches back."""
        self._tree.close()

    # What the kernel reports.

    def _read_events(self) -> None:
        now = time.monotonic()
        for event in self._tree.events():
            if event.change is Change.LOST:
                self._distrust()
            elif event.change is Change.FOLDER:
                self._notice_all(self._tree.files_below(event.path))
            elif event.change is Change.CREATED:
                self._notice(event.path, is_new=True)
            else:
                self._hear(event.path, event.change, now)

    def _hear(self, path: str, change: Change, now: float) -> None:
        candidate = self._candidates.get(path)
        if candidate is None:
            if self._is_full():
                return
            candidate = self._candidates[path] = _Candidate(now, now)
        if change is Change.WRITTEN:
            if not candidate.writing:
                candidate.writing, candidate.closed = True, False
                self._postpone(path, now + self._timing.writing_s)
        elif not (candidate.closed and candidate.identity is None):
            # Otherwise it waits as closed already, and must keep its place: a file that is
            # replaced all the time would never come first.
            candidate.writing, candidate.closed = False, True
            candidate.identity, candidate.since = None, now
            self._postpone(path, now)

    def _distrust(self) -> None:
        """Events were lost: nobody knows which files are still open for writing."""
        now = self._rescan_at = time.monotonic()
        for path, candidate in self._candidates.items():
            if candidate.writing:
                candidate.writing, candidate.identity = False, None
                self._postpone(path, now)

    # What the folders list.

    def _rescan(self) -> None:
        began = time.monotonic()
        handed: dict[str, _Identity] = {}
        self._notice_all(self._keep_handed(self._tree.files(), handed))
        self._handed = handed
        took = time.monotonic() - began
        rescan_s = self._timing.rescan_s
        pause = min(max(rescan_s, took / _RESCAN_SHARE), max(rescan_s, _LONGEST_RESCAN_S))
        self._rescan_at = began + took + pause

    def _keep_handed(self, paths: Iterable[str], handed: dict[str, _Identity]) -> Iterator[str]:
        """Pass the paths on, and collect those that the consumer has."""
        for path in paths:
            if path in self._handed:
                handed[path] = self._handed[path]
            yield path

    def _notice_all(self, paths: Iterable[str]) -> None:
        new = (path for path in paths if path not in self._candidates)
        for path in sorted(new):
            self._notice(path)

    def _notice(self, path: str, *, is_new: bool = False) -> None:
        """Remember a file that nobody reported as closed; `is_new`: it was created just now."""
        if path in self._candidates or self._is_full():
            return
        try:
            identity = self._identify(path)
        except OSError as problem:
            self._path_log.note(path, f"cannot be read: {problem.strerror}")
            return
        if identity is None or self._handed.get(path) == identity:
            return
        # A new file that is empty was opened just now, and will be closed. One that is not
        # empty may be a link, which nobody closes.
        writing = is_new and _size(identity) == 0
        now = time.monotonic()
        self._candidates[path] = _Candidate(now, now, identity, writing=writing)
        wait = self._timing.writing_s if writing else self._timing.quiet_s
        self._postpone(path, now + wait)

    def _is_full(self) -> bool:
        return len(self._candidates) >= MAX_CANDIDATES

    # Whether a file is complete.

    def _due(self) -> Iterator[tuple[str, _Candidate]]:
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            due, path = self._heap[0]
            candidate = self._candidates.get(path)
            if candidate is None or candidate.due != due:
                heapq.heappop(self._heap)
                continue
            yield path, candidate

    def _check(self, path: str, candidate: _Candidate) -> InboxFile | None:
        """The file if it is complete; otherwise it is postponed or forgotten."""
        try:
            identity = self._identify(path)
            if identity is None or self._handed.get(path) == identity:
                del self._candidates[path]
                return None
            ready_at = self._ready_at(path, candidate, identity)
            what = _describe_no_image(path) if time.monotonic() >= ready_at else ""
        except FileNotFoundError:
            del self._candidates[path]
            return None
        except OSError as problem:
            self._path_log.note(path, f"cannot be read: {problem.strerror}")
            self._postpone(path, time.monotonic() + self._timing.retry_s)
            return None
        if time.monotonic() < ready_at:
            self._postpone(path, ready_at)
            return None
        if what:
            self._path_log.note(path, f"is left alone: no image, but {what}", logging.INFO)
            del self._candidates[path]
            self._handed[path] = identity
            return None
        return InboxFile(Path(path), self._tree.pipeline_of(path), identity[2:])

    def _ready_at(self, path: str, candidate: _Candidate, identity: _Identity) -> float:
        """When it may be taken, or checked again, if it does not change. Raises OSError."""
        now = time.monotonic()
        if candidate.writing:
            self._path_log.note(path, "is still open for writing", logging.INFO)
            return now + self._timing.writing_s
        if candidate.identity != identity:
            if candidate.identity is not None or not candidate.closed:
                # It changed and no event says why: its wait begins anew.
                candidate.closed, candidate.since = False, now
            candidate.identity = identity
        if _size(identity) == 0:
            return candidate.since + self._timing.unfinished_s
        return candidate.since + self._quiet_s(path, candidate, now)

    def _quiet_s(self, path: str, candidate: _Candidate, now: float) -> float:
        """Seconds that this file must have been unchanged. Raises OSError."""
        timing = self._timing
        if not candidate.closed and now < candidate.since + timing.quiet_s:
            return timing.quiet_s  # too early to open it
        with _open(path) as file:
            end = ending(file)
        if candidate.closed:
            # Some programs close a file and go on with it later.
            return timing.unfinished_s if end is Ending.MISSING else 0.0
        return timing.quiet_s if end is Ending.WHOLE else timing.unfinished_s

    def _identify(self, path: str) -> _Identity | None:
        """What the file is; None if it is gone, or no regular file. Raises OSError."""
        try:
            status = Path(path).lstat()
            if stat.S_ISLNK(status.st_mode):
                if not is_own(status):
                    self._path_log.note(path, "is a link of another user, which is not followed")
                    return None
                status = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            self._path_log.forget(path)
            return None
        if stat.S_ISREG(status.st_mode):
            return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        is_folder = stat.S_ISDIR(status.st_mode)
        what = "a link to a folder, which is not followed" if is_folder else "no regular file"
        self._path_log.note(path, f"is {what}")
        return None

    def _postpone(self, path: str, due: float) -> None:
        self._candidates[path].due = due
        heapq.heappush(self._heap, (due, path))


def _size(identity: _Identity) -> int:
    return identity[2]


def _describe_no_image(path: str) -> str:
    """What a file is that is clearly no image; empty if it may be one. Raises OSError."""
    if not no_image.may_be_no_image(path):
        return ""
    with _open(path) as file:
        return no_image.describe(file)


def _open(path: str) -> BinaryIO:
    """Open for reading; a pipe that has taken the file's place must not block."""
    return open(path, "rb", opener=_open_without_waiting)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
