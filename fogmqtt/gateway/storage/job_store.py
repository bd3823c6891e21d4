"""What a serving gateway has on disk: accepted images, how far each is, and what became of it."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Container
from concurrent.futures import Future
from pathlib import Path

from msgspec.structs import replace

from fogmqtt.gateway.server.inbox import DONE, FAILED, free_path
from fogmqtt.gateway.storage.dead_letters import DeadLetter, DeadLetters, again
from fogmqtt.gateway.storage.durable_files import DurableFiles, is_full, move, write
from fogmqtt.gateway.storage.job_journal import JobJournal
from fogmqtt.gateway.storage.journal_db import Filed, JournalDb, PastJob
from fogmqtt.gateway.storage.spool import Entry, Spool
from fogmqtt.gateway.storage.writer import SpoolWriter

log = logging.getLogger(__name__)


class JobStore:
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
        disk: DurableFiles | None = None,
    ) -> None:
        self._disk = disk or DurableFiles()
        self.spool = Spool(folder, gateway, disk=self._disk, max_bytes=max_bytes)
        #: Images whose jobs failed.
        self.dead = DeadLetters(folder, self._disk, max_bytes)
        try:
            self._ledger = JournalDb(folder, self._disk, keep_s)
        except BaseException:
            self.spool.close()
            raise
        #: Jobs that are over, which the ledger could not be told: changed by the clerk's thread.
        self._unended: dict[str, tuple[Entry, str | None]] = {}
        self._clerk = SpoolWriter(self._ledger.write)

    def unfinished(self) -> list[tuple[Entry, PastJob]]:
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

    def journal(self, job: str, past: PastJob) -> JobJournal:
        """Where a job's progress is written down."""
        return JobJournal(self.spool, self._clerk, job, past)

    def reserve(self, entry: Entry, image_file: Path, facts_file: Path | None) -> None:
        """Decide where a job's results go in the outbox, for all lives. Not the owner thread.

        Raises sqlite3.Error.
        """
        facts = None if facts_file is None else str(facts_file)
        self._clerk.order(lambda: self._ledger.reserve(entry, str(image_file), facts)).result()

    def filed(self, entry: Entry) -> None:
        """The results are there."""
        self._clerk.line(Filed(entry.job))

    def settle(
        self, entry: Entry, error: str | None, letter: DeadLetter | None = None
    ) -> Future[Path | None]:
        """A job is over: give the original back to its inbox, forget the rest. Fails with OSError.

        `error` says why it failed; None if it did not. Gives where the `letter` is kept.
        """
        return self._clerk.order(lambda: self._settle(entry, error, letter))

    def catch_up(self) -> None:
        """Write down the ends that a full disk did not take, if it does now."""
        if self._unended:
            self._clerk.order(self._end_all)

    def revive(self, letter: DeadLetter) -> Future[Entry | None]:
        """Accept a dead letter's image again, under the job's next id; None if it was already.

        Fails with OSError, or with FogError where the spool has its `max_bytes`.
        """
        return self._clerk.order(lambda: self._revive(letter))

    def close(self) -> None:
        """Finish what is being written, and let another gateway have the folder."""
        self.catch_up()
        self._clerk.close()
        self._ledger.close()
        self.spool.close()

    # On the clerk's thread.

    def _unfinished(self) -> list[tuple[Entry, PastJob]]:
        open_jobs = self._ledger.open_jobs()
        entries = self.spool.entries(open_jobs)
        for job in open_jobs.keys() - {entry.job for entry in entries}:
            log.warning(
                "%s (%s): the ledger has it and the spool has not: it ended while the disk was "
                "full, or somebody took it out",
                job,
                open_jobs[job],
            )
        self._ledger.sweep([entry.job for entry in entries])
        self._sweep_dead({entry.job for entry in entries})
        known = [(entry, self._ledger.load(entry.job)) for entry in entries]
        for entry, past in known:
            if past.ended:
                self._settle(entry, past.error)
        return [(entry, past) for entry, past in known if not past.ended]

    def _sweep_dead(self, accepted: Container[str]) -> None:
        self.dead.sweep()
        for letter in self.dead.asked():
            if again(letter.entry.job) in accepted:  # killed before the letter was taken away
                self.dead.taken(letter.entry.job)

    def _accept(self, entry: Entry, image: bytes | Path) -> None:
        if isinstance(image, Path):
            self.spool.accept_file(entry, image)
        else:
            self.spool.accept_bytes(entry, image)
        try:
            self._ledger.accept(entry)
        except sqlite3.Error as problem:
            log.warning("%s: %s; its progress is not written down", entry.name, problem)

    def _revive(self, letter: DeadLetter) -> Entry | None:
        old = letter.entry
        entry = replace(old, job=again(old.job), stamp=None, origin="", accepted_at=time.time())
        is_new = not self.spool.image(entry.job).exists()
        if is_new:
            self._accept(entry, self.dead.image(old.job).read_bytes())
        self.dead.taken(old.job)
        return entry if is_new else None

    def _bury(self, letter: DeadLetter) -> Path | None:
        image = self.spool.image(letter.entry.job)
        if not image.exists():
            return None
        try:
            return self.dead.keep(letter, image)
        except OSError as problem:
            log.warning("%s: no dead letter is kept: %s", letter.entry.name, problem)
            return None

    def _settle(
        self, entry: Entry, error: str | None, letter: DeadLetter | None = None
    ) -> Path | None:
        # Before the end is written down: whoever is killed between does the job again.
        buried = self._bury(letter) if letter else None
        if error is None:
            self.dead.forget(entry.job)
        self._unended[entry.job] = (entry, error)
        problem = self._end_all()
        if entry.inbox and self.spool.image(entry.job).exists():
            self._give_back(entry, error)
        self.spool.forget(entry.job)
        self._disk.sync(self.spool.folder)
        if problem is not None and (problem := self._end_all()) is not None:
            why = "the disk is full" if is_full(problem) else str(problem)
            log.warning("%s: %s; its end is written down when that is over", entry.name, why)
        if problem is None:
            self._ledger.forget_tiles(entry.job)
        return buried

    def _end_all(self) -> sqlite3.Error | None:
        """Write down the ends that are not: what a job leaves makes room for its own."""
        for job, (entry, error) in tuple(self._unended.items()):
            try:
                self._ledger.end(entry, error)
            except sqlite3.Error as problem:
                return problem
            del self._unended[job]
        return None

    def _give_back(self, entry: Entry, error: str | None) -> None:
        folder = Path(entry.inbox) / (FAILED if error else DONE)
        folder.mkdir(parents=True, exist_ok=True)
        path = free_path(folder / entry.name)
        if error:
            # First: an image in failed/ has its reason beside it.
            write(self._disk, path.with_name(f"{path.name}.txt"), f"{error}\n".encode())
        move(self._disk, self.spool.image(entry.job), path)
