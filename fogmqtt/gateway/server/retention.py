"""Deletes old results and finished originals, by age and for free disk, if the user wants it.

Only files that the gateway put there and that nobody has changed since are deleted.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fogmqtt.config import GatewaySettings
from fogmqtt.gateway.storage.written_files import Kind, WrittenFile, WrittenFiles
from fogmqtt.gateway.threads import IoThread
from fogmqtt.log import shown_name

log = logging.getLogger(__name__)

#: Seconds between two looks.
LOOK_S: Final = 60.0
#: Files between two looks at the disk.
_BATCH: Final = 100


@dataclass(slots=True)
class Deleted:
    """What a look deleted in one folder."""

    files: int = 0
    bytes: int = 0


class Retention:
    """Looks after the outbox and the folders done/. It belongs to the event loop."""

    def __init__(self, settings: GatewaySettings, written: WrittenFiles) -> None:
        self._settings = settings
        self._written = written

    async def run(self) -> None:
        """Look every minute until cancelled; without a key that deletes anything, never."""
        settings = self._settings
        if not (settings.outbox_keep_s or settings.done_keep_s or settings.min_free_bytes):
            return
        # A folder on a network mount may hang.
        thread = IoThread("retention")
        try:
            while True:
                await thread.call(self.look)
                await asyncio.sleep(LOOK_S)
        finally:
            thread.close()

    def look(self) -> dict[Kind, Deleted]:
        """Delete what is due, and return and log how much. Blocking."""
        settings, found = self._settings, dict[Kind, Deleted]()
        kinds: tuple[tuple[Kind, str, float], ...] = (
            ("outbox", settings.outbox, settings.outbox_keep_s),
            ("done", settings.inbox, settings.done_keep_s),
        )
        for kind, folder, keep_s in kinds:
            deleted = found[kind] = Deleted()
            if keep_s:
                self._delete_before(kind, time.time() - keep_s, deleted)
            if settings.min_free_bytes and folder:
                self._make_room(kind, Path(folder), deleted)
            if deleted.files:
                where = shown_name(folder) + ("" if kind == "outbox" else " (done/)")
                log.info(
                    "deleted %d old file(s), %d bytes, in %s", deleted.files, deleted.bytes, where
                )
        return found

    def _delete_before(self, kind: Kind, moment: float, deleted: Deleted) -> None:
        while files := self._written.oldest(kind, _BATCH, moment):
            self._delete(files, deleted)

    def _make_room(self, kind: Kind, folder: Path, deleted: Deleted) -> None:
        """Delete the oldest files until the disk has the wanted room."""
        while self._lacks_room(folder) and (files := self._written.oldest(kind, 1)):
            self._delete(files, deleted)

    def _lacks_room(self, folder: Path) -> bool:
        try:
            return shutil.disk_usage(folder).free < self._settings.min_free_bytes
        except OSError:  # the folder is not made yet, or its mount is away
            return False

    def _delete(self, files: list[WrittenFile], deleted: Deleted) -> None:
        for one in files:
            if not one.is_unchanged():
                continue  # somebody took it, or it is somebody else's by now
            try:
                one.path.unlink()
            except OSError as problem:
                path = shown_name(str(one.path))
                log.warning("cannot delete the old file %s: %s", path, problem.strerror)
                continue
            deleted.files += 1
            deleted.bytes += one.size
        # What cannot be deleted is not tried for ever, either.
        self._written.forget(files)
