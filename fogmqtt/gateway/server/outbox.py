"""The outbox: the folder of results."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fogmqtt.config import GatewaySettings
from fogmqtt.errors import ImageError
from fogmqtt.gateway.storage.api import JobHistory, JobStore, SpoolEntry
from fogmqtt.gateway.storage.durable_files import DurableFiles, free_path, write
from fogmqtt.gateway.storage.written_files import WrittenFiles
from fogmqtt.images.file_names import is_refused, name_notes, plain_path
from fogmqtt.log import shown_name


@dataclass(frozen=True, slots=True)
class FiledResult:
    """The files of a result in the outbox, and notes for the user."""

    image: Path
    facts: Path | None
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> Path:
        """The facts if there are any, or else the image."""
        return self.facts or self.image


class Outbox:
    """Writes results. A job's files keep their names when the gateway is restarted.

    `reserved` are the paths that unfinished jobs of an earlier run have reserved.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        store: JobStore | None,
        files: DurableFiles,
        reserved: set[str],
        written: WrittenFiles | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._files = files
        self._written = written
        #: Two threads must not choose the same free name.
        self._naming = threading.Lock()
        self._chosen = reserved

    def put(
        self,
        entry: SpoolEntry,
        history: JobHistory,
        image: bytes,
        facts: bytes | None,
        *,
        suffix: str,
    ) -> FiledResult:
        """Write the results so that they survive a power cut.

        `suffix` is that of the image's file, such as ".png". Blocking: call from a worker
        thread. Raises ImageError if the folder cannot be written.
        """
        try:
            paths = self._names(entry, history, suffix, facts is not None)
            wanted = paths[0]
            try:
                self._write_all(paths, image, facts)
            except OSError as problem:
                if not is_refused(problem):
                    raise
                self._chosen -= {str(path) for path in paths}
                paths = self._reserve(entry, plain_path(wanted), facts is not None)
                self._write_all(paths, image, facts)
        except OSError as problem:
            path = shown_name(str(problem.filename))
            raise ImageError(f"cannot write {path}: {problem.strerror}") from None
        if self._store is not None:
            self._store.record_filed(entry)
        image_file, facts_file = paths
        if self._written is not None:
            self._written.record("outbox", filter(None, paths))
        return FiledResult(image_file, facts_file, name_notes(wanted, image_file))

    def _write_all(
        self, paths: tuple[Path, Path | None], image: bytes, facts: bytes | None
    ) -> None:
        image_file, facts_file = paths
        self._write(image_file, image)
        if facts is not None and facts_file is not None:
            self._write(facts_file, facts)
        self._files.sync(image_file.parent)

    def _names(
        self, entry: SpoolEntry, history: JobHistory, suffix: str, with_facts: bool
    ) -> tuple[Path, Path | None]:
        if history.image_file:
            facts_file = Path(history.facts_file) if history.facts_file else None
            return Path(history.image_file), facts_file
        folder = Path(self._settings.outbox)
        folder.mkdir(parents=True, exist_ok=True)
        path = entry.inbox_path
        sender = entry.reply or entry.source or "job"
        stem = path.stem if path is not None else f"{sender}-{entry.job}"
        return self._reserve(entry, folder / f"{stem}{suffix}", with_facts)

    def _reserve(self, entry: SpoolEntry, path: Path, with_facts: bool) -> tuple[Path, Path | None]:
        """Choose free names like this path for a job's results, and keep them over a restart."""
        with self._naming:
            image_file = self._choose(path)
            facts_file = self._choose(image_file.with_suffix(".json")) if with_facts else None
        if self._store is not None:
            self._store.reserve_paths(entry, image_file, facts_file).result()
        return image_file, facts_file

    def _choose(self, path: Path) -> Path:
        chosen = free_path(path, self._chosen)
        self._chosen.add(str(chosen))
        return chosen

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(self._files, path, data)
        _share_like(path.parent, path)
        self._chosen.discard(str(path))  # from now on the file itself takes the name


def _share_like(folder: Path, path: Path) -> None:
    """Let those read a result who may read its folder: the gateway's own files are private."""
    shared = stat.S_IMODE(folder.stat().st_mode) & 0o044
    with suppress(OSError):  # somebody took it already, or the file system has no rights
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o600 | shared)
        finally:
            os.close(descriptor)
