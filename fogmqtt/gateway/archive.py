"""What a serving gateway has on disk: accepted images, how far each is, and what became of it."""

from __future__ import annotations

import logging
import sqlite3
from concurrent.futures import Future
from pathlib import Path

from fogmqtt.gateway.clerk import Clerk
from fogmqtt.gateway.diary import Diary
from fogmqtt.gateway.disk import Disk, move, write
from fogmqtt.gateway.inbox import DONE, FAILED, free_path
from fogmqtt.gateway.ledger import Filed, Ledger
from fogmqtt.gateway.past import Past
from fogmqtt.gateway.spool import Entry, Spool

log = logging.getLogger(__name__)


class Archive:
    """Spool and ledger in one folder, written by one thread of their own.

    Parameters
    ----------
    folder : made where it is missing
    gateway : our id, for whoever finds the folder in use
    keep_s : seconds that the end of a job is remembered
    max_bytes : of images and finished tiles in the folder; 0 means that only the disk bounds them

    Raises ConfigError where the folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        gateway: str,
        *,
        keep_s: float,
        max_bytes: int = 0,
        disk: Disk | None = None,
    ) -> None:
        self._disk = disk or Disk()
        self.spool = Spool(folder, gateway, disk=self._disk, max_bytes=max_bytes)
        try:
            self._ledger = Ledger(folder, self._disk, keep_s)
        except BaseException:
            self.spool.close()
            raise
        self._clerk = Clerk(self._ledger.write)

    def unfinished(self) -> list[tuple[Entry, Past]]:
        """What an earlier life accepted, and how far it came. To be asked first of all."""
        return self._clerk.order(self._unfinished).result()

    def origins(self) -> set[str]:
        """What the broker called the messages that were accepted lately."""
        return self._clerk.order(self._ledger.origins).result()

    def reserved(self) -> set[str]:
        """The files in the outbox that belong to unfinished jobs."""
        return self._clerk.order(self._ledger.reserved).result()

    def accept_bytes(self, entry: Entry, data: bytes) -> Future[None]:
        """Take an image that came by MQTT; done when no power cut can lose it.

        Fails with OSError, or with FogError where the spool has its `max_bytes`.
        """
        return self._clerk.order(lambda: self._accept(entry, data))

    def accept_file(self, entry: Entry, path: Path) -> Future[None]:
        """As `accept_bytes`; the file leaves its folder."""
        return self._clerk.order(lambda: self._accept(entry, path))

    def passed(self) -> Future[None]:
        """Done when all that was asked for before is."""
        return self._clerk.order(lambda: None)

    def diary(self, job: str, past: Past) -> Diary:
        """Where a job's progress is written down."""
        return Diary(self.spool, self._clerk, job, past)

    def reserve(self, entry: Entry, image_file: Path, facts_file: Path | None) -> None:
        """Decide where a job's results go in the outbox, for all lives. Not the owner thread.

        Raises sqlite3.Error.
        """
        facts = None if facts_file is None else str(facts_file)
        self._clerk.order(lambda: self._ledger.reserve(entry, str(image_file), facts)).result()

    def filed(self, entry: Entry) -> None:
        """The results are there."""
        self._clerk.line(Filed(entry.job))

    def settle(self, entry: Entry, error: str | None) -> Future[None]:
        """A job is over: give the original back to its inbox, forget the rest. Fails with OSError.

        `error` says why it failed; None if it did not.
        """
        return self._clerk.order(lambda: self._settle(entry, error))

    def close(self) -> None:
        """Finish what is being written, and let another gateway have the folder."""
        self._clerk.close()
        self._ledger.close()
        self.spool.close()

    # On the clerk's thread.

    def _unfinished(self) -> list[tuple[Entry, Past]]:
        open_jobs = self._ledger.open_jobs()
        entries = self.spool.entries(open_jobs)
        for job in open_jobs.keys() - {entry.job for entry in entries}:
            log.warning("%s (%s): somebody took it out of the spool", job, open_jobs[job])
        self._ledger.sweep([entry.job for entry in entries])
        known = [(entry, self._ledger.load(entry.job)) for entry in entries]
        for entry, past in known:
            if past.ended:
                self._settle(entry, past.error)
        return [(entry, past) for entry, past in known if not past.ended]

    def _accept(self, entry: Entry, image: bytes | Path) -> None:
        if isinstance(image, Path):
            self.spool.accept_file(entry, image)
        else:
            self.spool.accept_bytes(entry, image)
        try:
            self._ledger.accept(entry)
        except sqlite3.Error as problem:
            log.warning("%s: %s; its progress is not written down", entry.name, problem)

    def _settle(self, entry: Entry, error: str | None) -> None:
        try:
            self._ledger.end(entry, error)
        except sqlite3.Error as problem:
            # To forget it makes room, and is as good an end as long as nobody kills us now.
            log.warning("%s: %s; its end is not written down", entry.name, problem)
        if entry.inbox and self.spool.image(entry.job).exists():
            self._give_back(entry, error)
        self.spool.forget(entry.job)
        self._disk.sync(self.spool.folder)
        self._ledger.forget_tiles(entry.job)

    def _give_back(self, entry: Entry, error: str | None) -> None:
        folder = Path(entry.inbox) / (FAILED if error else DONE)
        folder.mkdir(parents=True, exist_ok=True)
        path = free_path(folder / entry.name)
        if error:
            # First: an image in failed/ has its reason beside it.
            write(self._disk, path.with_name(f"{path.name}.txt"), f"{error}\n".encode())
        move(self._disk, self.spool.image(entry.job), path)
