"""What the kernel reports about a tree of folders: files created, written, closed, moved in.

Linux has inotify for local file systems. Elsewhere, and for what other machines do on a network
file system, there are no events; whoever watches lists the folders from time to time as well.
"""

from __future__ import annotations

import sys
from collections.abc import Container
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any


class Change(Enum):
    """What happened to a path."""

    CREATED = auto()  #: A file was opened for the first time, or a link was made.
    WRITTEN = auto()  #: A program that has the file open for writing wrote to it.
    CLOSED = auto()  #: The file was closed after writing, or it was moved here.
    FOLDER = auto()  #: A folder was made, or it was moved here.
    LOST = auto()  #: The kernel dropped events; the path is empty.


@dataclass(frozen=True, slots=True)
class FolderEvent:
    path: str
    change: Change


class FolderEvents:
    """Watches folders, each without those below it. Not thread-safe. Raises OSError.

    `fileno` becomes readable when there are events.
    """

    def __init__(self) -> None:
        # Loaded here: the package is installed on Linux only.
        from inotify_simple import INotify, flags

        self._flags: Any = flags
        self._inotify: Any = INotify(nonblocking=True)
        self._folders: dict[int, str] = {}
        self._mask = (
            flags.CREATE
            | flags.MODIFY
            | flags.CLOSE_WRITE
            | flags.MOVED_TO
            | flags.ONLYDIR
            | flags.EXCL_UNLINK
        )

    def fileno(self) -> int:
        return int(self._inotify.fileno())

    def watch(self, folder: str) -> int:
        """Watch a folder, and return the watch: the same one if it only has another name now."""
        watch = int(self._inotify.add_watch(folder, self._mask))
        self._folders[watch] = folder
        return watch

    def keep_only(self, watches: Container[int]) -> None:
        """End all other watches: a folder that was moved away still sends events."""
        for watch in [one for one in self._folders if one not in watches]:
            del self._folders[watch]
            try:
                self._inotify.rm_watch(watch)
            except OSError:
                continue  # the kernel ended it when the folder was deleted

    def read(self) -> list[FolderEvent]:
        """The events since the last call. Does not wait."""
        found = (self._event(event) for event in self._inotify.read(timeout=0))
        return [event for event in found if event is not None]

    def close(self) -> None:
        self._inotify.close()

    def _event(self, event: Any) -> FolderEvent | None:
        flags = self._flags
        if event.mask & flags.Q_OVERFLOW:
            return FolderEvent("", Change.LOST)
        folder = self._folders.get(event.wd)
        if folder is None or not event.name:  # without a name, the watch itself has ended
            return None
        return FolderEvent(f"{folder}/{event.name}", self._change(event.mask))

    def _change(self, mask: int) -> Change:
        flags = self._flags
        if mask & flags.ISDIR:
            return Change.FOLDER
        if mask & (flags.CLOSE_WRITE | flags.MOVED_TO):
            return Change.CLOSED
        return Change.WRITTEN if mask & flags.MODIFY else Change.CREATED


def open_events() -> FolderEvents | None:
    """Events where this system has them. Raises OSError where it has no more to give."""
    return FolderEvents() if sys.platform == "linux" else None
