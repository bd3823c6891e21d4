"""The outbox: the folder of results."""

from __future__ import annotations

import threading
from pathlib import Path

from fogmqtt.config import GatewaySettings
from fogmqtt.errors import ImageError
from fogmqtt.gateway.storage.api import JobHistory, JobStore, SpoolEntry
from fogmqtt.gateway.storage.durable_files import DurableFiles, free_path, write
from fogmqtt.log import shown_name


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
    ) -> None:
        self._settings = settings
        self._store = store
        self._files = files
        #: Two threads must not choose the same free name.
        self._naming = threading.Lock()
        self._chosen = reserved

    def wants(self, entry: SpoolEntry) -> bool:
        """Whether the result of this image is written to the outbox."""
        deliver = self._settings.deliver
        wanted = deliver in ("outbox", "both") or (deliver == "auto" and bool(entry.inbox))
        return wanted and bool(self._settings.outbox)

    def put(
        self,
        entry: SpoolEntry,
        history: JobHistory,
        image: bytes,
        facts: bytes | None,
        *,
        suffix: str,
    ) -> Path:
        """Write the results so that they survive a power cut.

        `suffix` is that of the image's file, such as ".png". Returns the path of the facts, or else
        of the image. Blocking: call from a worker thread. Raises ImageError if the folder cannot be
        written.
        """
        try:
            image_file, facts_file = self._names(entry, history, suffix, facts is not None)
            self._write(image_file, image)
            if facts is not None and facts_file is not None:
                self._write(facts_file, facts)
            self._files.sync(image_file.parent)
        except OSError as problem:
            path = shown_name(str(problem.filename))
            raise ImageError(f"cannot write {path}: {problem.strerror}") from None
        if self._store is not None:
            self._store.record_filed(entry)
        return facts_file or image_file

    def _names(
        self, entry: SpoolEntry, history: JobHistory, suffix: str, with_facts: bool
    ) -> tuple[Path, Path | None]:
        if history.image_file:
            facts_file = Path(history.facts_file) if history.facts_file else None
            return Path(history.image_file), facts_file
        folder = Path(self._settings.outbox)
        folder.mkdir(parents=True, exist_ok=True)
        path = entry.inbox_path
        stem = path.stem if path is not None else f"{entry.reply}-{entry.job}"
        with self._naming:
            image_file = self._choose(folder / f"{stem}{suffix}")
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
        self._chosen.discard(str(path))  # from now on the file itself takes the name
