"""The folders of the inbox: which files they have, and what the kernel reports. Blocking calls."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from fogmqtt.gateway.server.folder_events import Change, FolderEvent, FolderEvents, open_events
from fogmqtt.gateway.storage.job_store import DONE, FAILED
from fogmqtt.images.no_image import is_junk
from fogmqtt.log import shown_name

log = logging.getLogger(__name__)

#: Folders of file servers, operating systems and archive programs.
_JUNK_FOLDERS = frozenset(
    {"@eadir", "$recycle.bin", "system volume information", "lost+found", "__macosx"}
)
#: Paths whose problem is remembered.
_MAX_NOTED = 10_000


class PathLog:
    """Logs what is wrong with a path once, until that changes by more than its numbers."""

    def __init__(self) -> None:
        self._noted: dict[str, str] = {}

    def note(self, path: str, text: str, level: int = logging.WARNING) -> None:
        problem = "".join(letter for letter in text if not letter.isdigit())
        if self._noted.get(path) == problem:
            return
        if len(self._noted) >= _MAX_NOTED:
            self._noted.clear()
        self._noted[path] = problem
        log.log(level, "inbox: %s %s", shown_name(path), text)

    def forget(self, path: str) -> bool:
        """Whether something was logged about this path; from now on it is logged again."""
        return self._noted.pop(path, None) is not None


class InboxTree:
    """The inbox folder and all below it, except hidden folders, junk, `done` and `failed`.

    Parameters
    ----------
    folder : the inbox
    pipelines : names of subfolders that select a pipeline
    excluded : folders that are never looked into, if they lie in the inbox
    path_log : for what cannot be read
    """

    def __init__(
        self,
        folder: Path,
        pipelines: Collection[str],
        excluded: Collection[Path],
        path_log: PathLog,
    ) -> None:
        self.root = str(folder)
        self._pipelines = frozenset(pipelines)
        self._excluded = tuple(excluded)
        #: The excluded folders, named as the walk finds them.
        self._excluded_paths: frozenset[str] = frozenset()
        self._path_log = path_log
        #: Problems of watching: a folder that can be listed may have them too.
        self._watch_log = PathLog()
        self._events: FolderEvents | None = None

    @property
    def fileno(self) -> int | None:
        """Readable when there are events; None where the system has none."""
        return self._events.fileno() if self._events else None

    def events(self) -> Iterator[FolderEvent]:
        """What happened since the last call, to what is not skipped. Does not wait."""
        for event in self._events.read() if self._events else ():
            name = event.path.rpartition("/")[2]
            is_folder = event.change is Change.FOLDER
            if not (self._skips_folder(name, event.path) if is_folder else is_junk(name)):
                yield event

    def files(self) -> Iterator[str]:
        """Every file that is not skipped; all folders are watched before they are listed."""
        self._open_events()
        self._excluded_paths = frozenset(self._inside(self._excluded))
        watches: set[int] = set()
        yield from self._walk(self.root, watches)
        if self._events is not None:
            self._events.keep_only(watches)

    def files_below(self, folder: str) -> Iterator[str]:
        """The same for a folder that has just come."""
        return self._walk(folder, set())

    def pipeline_of(self, path: str) -> str:
        """The pipeline that a file's first subfolder is named after, or an empty string."""
        first, separator, _ = path[len(self.root) + 1 :].partition("/")
        return first if separator and first in self._pipelines else ""

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def _open_events(self) -> None:
        if self._events is not None:
            return
        try:
            self._events = open_events()
        except OSError as problem:
            self._watch_log.note(
                self.root,
                f"is listed every few seconds only: the kernel has no events: {problem.strerror}",
            )

    def _walk(self, top: str, watches: set[int]) -> Iterator[str]:
        folders = [top]
        while folders:
            folder = folders.pop()
            self._watch(folder, watches)
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if not entry.is_dir(follow_symlinks=False):
                            if not is_junk(entry.name):
                                yield entry.path
                        elif not self._skips_folder(entry.name, entry.path):
                            self._explain(folder, entry.path)
                            folders.append(entry.path)
            except OSError as problem:
                self._not_listed(folder, problem)
            else:
                if self._path_log.forget(folder) and folder == self.root:
                    log.info("inbox: %s can be listed again", shown_name(folder))

    def _watch(self, folder: str, watches: set[int]) -> None:
        if self._events is None:
            return
        try:
            watches.add(self._events.watch(folder))
        except (FileNotFoundError, PermissionError):
            return  # listing it says so
        except OSError as problem:
            self._watch_log.note(
                self.root, f"has folders that cannot be watched: {problem.strerror}"
            )

    def _not_listed(self, folder: str, problem: OSError) -> None:
        # A subfolder may go away; the inbox itself may not.
        if folder == self.root or not isinstance(problem, FileNotFoundError):
            self._path_log.note(folder, f"cannot be listed: {problem.strerror}")

    def _explain(self, parent: str, folder: str) -> None:
        if parent == self.root and not self.pipeline_of(f"{folder}/"):
            self._watch_log.note(
                folder,
                "is not named after a pipeline; its files go to the default pipeline",
                logging.INFO,
            )

    def _skips_folder(self, name: str, path: str) -> bool:
        return (
            name.startswith(".")
            or name in (DONE, FAILED)
            or name.lower() in _JUNK_FOLDERS
            or path in self._excluded_paths
        )

    def _inside(self, paths: Collection[Path]) -> Iterator[str]:
        """Those of the paths that lie in the inbox, named as the walk finds them."""
        root = Path(os.path.realpath(self.root))
        for path in paths:
            real = Path(os.path.realpath(path))  # unlike resolve, it takes a circle of links
            if real != root and real.is_relative_to(root):
                yield f"{self.root}/{real.relative_to(root)}"
