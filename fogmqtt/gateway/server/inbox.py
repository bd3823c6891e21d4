"""The inbox folder: finished files are taken, half-written ones are left until they are whole."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fogmqtt.errors import ConfigError

log = logging.getLogger(__name__)

#: Seconds between two looks.
LOOK_S = 0.5
#: Seconds that a file must keep its size and time before it is taken …
QUIET_S = 1.0
#: … and where its end is missing, so that a slow or interrupted copy gets its chance.
QUIET_UNFINISHED_S = 15.0

#: How a finished file ends, by how it begins.
_ENDS: dict[bytes, bytes] = {b"\x89PNG": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}
#: What programs call a file that they have not finished.
_UNFINISHED = frozenset({".part", ".partial", ".tmp", ".crdownload", ".filepart", ".swp"})


@dataclass(frozen=True, slots=True)
class InboxFile:
    """A file that is ready; `folder` is the subfolder it lay in, empty for the inbox itself."""

    path: Path
    folder: str


@dataclass(frozen=True, slots=True)
class _Seen:
    stamp: tuple[int, int]
    since: float


class Inbox:
    """Watches a folder, and the subfolders named after pipelines.

    Raises ConfigError where the folder cannot be made.
    """

    def __init__(self, folder: Path, pipelines: tuple[str, ...]) -> None:
        self.folder = folder
        self._pipelines = pipelines
        self._seen: dict[Path, _Seen] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise ConfigError(
                f"gateway.inbox: cannot use {folder}: {problem.strerror}; name a folder, "
                'or set it to "" for none'
            ) from None

    def look(self, now: float) -> list[InboxFile]:
        """The files that are ready to be taken."""
        here = dict(self._files())
        self._seen = {path: seen for path, seen in self._seen.items() if path in here}
        return [InboxFile(path, folder) for path, folder in here.items() if self._ready(path, now)]

    def _files(self) -> Iterator[tuple[Path, str]]:
        for name in ("", *self._pipelines):
            folder = self.folder / name
            try:
                entries = sorted(folder.iterdir()) if folder.is_dir() else []
            except OSError as problem:
                log.warning("inbox %s: %s", folder, problem.strerror)
                continue
            for path in entries:
                if path.is_file() and not _is_unfinished(path):
                    yield path, name

    def _ready(self, path: Path, now: float) -> bool:
        try:
            status = path.stat()
            stamp = (status.st_size, status.st_mtime_ns)
            seen = self._seen.get(path)
            if seen is None or seen.stamp != stamp:
                self._seen[path] = _Seen(stamp, now)
                return False
            quiet = QUIET_S if _has_its_end(path) else QUIET_UNFINISHED_S
            return now - seen.since >= quiet and not _is_being_written(path)
        except OSError:
            return False  # it went away between two looks


def _is_unfinished(path: Path) -> bool:
    return path.name.startswith(".") or path.suffix.lower() in _UNFINISHED


def _has_its_end(path: Path) -> bool:
    with path.open("rb") as file:
        begin = file.read(8)
        ending = next((end for start, end in _ENDS.items() if begin.startswith(start)), None)
        if ending is None:
            return bool(begin)
        file.seek(max(0, os.fstat(file.fileno()).st_size - 32))
        return ending in file.read()


def _is_being_written(path: Path) -> bool:
    """Whether some process has it open for writing: Linux grants no read lease then."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as problem:
        # Another error means that this file system grants leases to nobody.
        return problem.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False
