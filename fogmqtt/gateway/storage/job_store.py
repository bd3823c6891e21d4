"""The job store on disk: accepted images, their progress and their ends, in the spool folder."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Container, Sequence
from concurrent.futures import Future
from pathlib import Path

from msgspec.structs import replace

from fogmqtt.errors import ConfigError
from fogmqtt.gateway.storage.api import Bytes, DeadLetter, FinishedJob, JobHistory, SpoolEntry
from fogmqtt.gateway.storage.dead_letters import DeadLetters, retry_id
from fogmqtt.gateway.storage.durable_files import DurableFiles, free_path, is_full, move, write
from fogmqtt.gateway.storage.held_folder import held_folder
from fogmqtt.gateway.storage.job_journal import DiskJobJournal
from fogmqtt.gateway.storage.journal_db import JournalDb, JournalEntry, ResultFiled, TileKept
from fogmqtt.gateway.storage.spool import Spool
from fogmqtt.gateway.storage.writer import SpoolWriter
from fogmqtt.gateway.storage.written_files import NAME, WrittenFiles

log = logging.getLogger(__name__)

#: The folders in an inbox to which originals return.
DONE, FAILED = "done", "failed"


class DiskJobStore:
    """The `JobStore` of a spool folder. The writer thread makes all changes and reads.

    Parameters
    ----------
    folder : created if missing
    gateway : this gateway's id, for the error of another gateway that finds the folder in use
    keep_s : seconds for which the end of a job is remembered
    max_bytes : limit of the images and finished tiles in the folder; 0: no limit
    inbox : the folder of the inbox, in which others may write

    Opening blocks. Raises ConfigError where the folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        gateway: str,
        *,
        keep_s: float,
        max_bytes: int = 0,
        disk: DurableFiles | None = None,
        inbox: Path | None = None,
    ) -> None:
        self._inbox = inbox
        self._disk = disk or DurableFiles()
        self._spool = Spool(folder, gateway, disk=self._disk, max_bytes=max_bytes)
        self._dead_letters = DeadLetters(folder, self._disk, max_bytes)
        try:
            self._journal = JournalDb(folder, self._disk, keep_s)
            self.written = _open_written(folder)
        except BaseException:
            self._spool.close()
            raise
        #: Ends that the journal database does not have yet; the writer thread changes it.
        self._pending_ends: dict[str, tuple[SpoolEntry, str | None]] = {}
        self._writer = SpoolWriter(self._write_entries)

    def unfinished_jobs(self) -> Future[list[tuple[SpoolEntry, JobHistory]]]:
        return self._writer.submit(self._unfinished_jobs)

    def recent_origins(self) -> Future[set[str]]:
        return self._writer.submit(self._journal.origins)

    def reserved_paths(self) -> Future[set[str]]:
        return self._writer.submit(self._journal.reserved_paths)

    def accept_bytes(self, entry: SpoolEntry, data: Bytes) -> Future[None]:
        return self._writer.submit(lambda: self._accept(entry, data))

    def accept_file(self, entry: SpoolEntry, path: Path) -> Future[None]:
        return self._writer.submit(lambda: self._accept(entry, path))

    def flush(self) -> Future[None]:
        return self._writer.submit(lambda: None)

    def image_path(self, job: str) -> Path:
        return self._spool.image_path(job)

    def open_journal(self, job: str, history: JobHistory) -> DiskJobJournal:
        return DiskJobJournal(self._spool, self._writer, job, history)

    def reserve_paths(
        self, entry: SpoolEntry, image_file: Path, facts_file: Path | None
    ) -> Future[None]:
        return self._writer.submit(lambda: self._reserve_paths(entry, image_file, facts_file))

    def record_filed(self, entry: SpoolEntry) -> None:
        self._writer.append(ResultFiled(entry.job))

    def finish(
        self, entry: SpoolEntry, error: str | None, dead_letter: DeadLetter | None = None
    ) -> Future[FinishedJob]:
        return self._writer.submit(lambda: self._finish(entry, error, dead_letter))

    def record_pending_ends(self) -> None:
        if self._pending_ends:
            self._writer.submit(self._record_ends)

    def retry_requests(self) -> Future[list[DeadLetter]]:
        return self._writer.submit(self._dead_letters.retry_requests)

    def request_retry(self, job: str) -> Future[DeadLetter]:
        return self._writer.submit(lambda: self._dead_letters.request_retry(job))

    def accept_retry(self, dead_letter: DeadLetter, who: str = "") -> Future[SpoolEntry | None]:
        return self._writer.submit(lambda: self._accept_retry(dead_letter, who))

    def close(self) -> None:
        self.record_pending_ends()
        self._writer.close()
        self._journal.close()
        self.written.close()
        self._spool.close()

    # The rest runs on the writer thread.

    def _write_entries(self, entries: Sequence[JournalEntry]) -> None:
        self._journal.write(entries)
        for entry in entries:
            if isinstance(entry, TileKept):
                self._spool.count(entry.job, entry.size)

    def _unfinished_jobs(self) -> list[tuple[SpoolEntry, JobHistory]]:
        unfinished = self._journal.unfinished()
        entries = self._spool.entries(unfinished)
        for job in unfinished.keys() - {entry.job for entry in entries}:
            log.warning(
                "%s (%s) is in the journal database but not in the spool: it ended while the "
                "disk was full, or somebody removed it",
                job,
                unfinished[job],
            )
        self._tidy_journal([entry.job for entry in entries])
        self._remove_incomplete_letters({entry.job for entry in entries})
        jobs = [(entry, self._journal.load(entry.job)) for entry in entries]
        for entry, history in jobs:
            if history.ended:
                self._complete_end(entry, history.error)
        return [(entry, history) for entry, history in jobs if not history.ended]

    def _tidy_journal(self, jobs: Sequence[str]) -> None:
        """Delete what other jobs have left; a full disk allows no change."""
        try:
            self._journal.keep_only(jobs)
        except sqlite3.Error as problem:
            log.warning(
                "the journal database keeps what ended jobs have left until the next start: %s",
                problem,
            )

    def _complete_end(self, entry: SpoolEntry, error: str | None) -> None:
        """Finish a job whose end an earlier run recorded; a failure must not stop the start."""
        try:
            self._finish(entry, error)
        except Exception as problem:  # noqa: BLE001  # one job must not stop the start
            log.warning("%s is returned at the next start: %s", entry.name, problem)

    def _remove_incomplete_letters(self, accepted: Container[str]) -> None:
        self._dead_letters.remove_incomplete()
        for one in self._dead_letters.retry_requests():
            if retry_id(one.entry.job) in accepted:  # killed before the request was removed
                self._dead_letters.remove_request(one.entry.job)

    def _accept(self, entry: SpoolEntry, image: Bytes | Path) -> None:
        if isinstance(image, Path):
            self._spool.accept_file(entry, image, self._root_of(image.parent))
        else:
            self._spool.accept_bytes(entry, image)
        try:
            self._journal.accept(entry)
        except sqlite3.Error as problem:
            log.warning("%s: its progress is not recorded: %s", entry.name, problem)

    def _accept_retry(self, dead_letter: DeadLetter, who: str) -> SpoolEntry | None:
        old = dead_letter.entry
        entry = replace(
            old,
            job=retry_id(old.job),
            stamp=None,
            origin="",
            accepted_at=time.time(),
            source="retry",
            who=who or old.who,
        )
        is_new = not self._spool.image_path(entry.job).exists()
        if is_new:
            image = self._dead_letters.retry_image(old.job)
            self._spool.check_room(image.stat().st_size)
            self._accept(entry, image.read_bytes())
        self._dead_letters.remove_request(old.job)
        return entry if is_new else None

    def _reserve_paths(self, entry: SpoolEntry, image_file: Path, facts_file: Path | None) -> None:
        facts = None if facts_file is None else str(facts_file)
        try:
            self._journal.reserve_paths(entry, str(image_file), facts)
        except sqlite3.Error as problem:
            log.warning("%s: a restart now would write it twice: %s", image_file, problem)

    def _finish(
        self, entry: SpoolEntry, error: str | None, dead_letter: DeadLetter | None = None
    ) -> FinishedJob:
        # The dead letter before the end: a gateway that is killed in between repeats the job.
        folder = self._store_letter(dead_letter) if dead_letter else None
        if error is None:
            self._dead_letters.remove(entry.job)
        self._pending_ends[entry.job] = (entry, error)
        problem = self._record_ends()
        inbox_path, original = entry.inbox_path, None
        if inbox_path is not None and self._spool.image_path(entry.job).exists():
            original = self._return_original(entry, inbox_path, error)
        self._spool.remove(entry.job)
        self._disk.sync(self._spool.folder)
        # The removed files may have made room for the end.
        if problem is not None and (problem := self._record_ends()) is not None:
            why = "the disk is full" if is_full(problem) else str(problem)
            log.warning("%s: its end is recorded later: %s", entry.name, why)
        if problem is None:
            self._forget_stages(entry)
        return FinishedJob(folder, original)

    def _forget_stages(self, entry: SpoolEntry) -> None:
        try:
            self._journal.forget_stages(entry.job)
        except sqlite3.Error as problem:
            log.info("%s: its stages are deleted at the next start: %s", entry.name, problem)

    def _store_letter(self, dead_letter: DeadLetter) -> Path | None:
        image = self._spool.image_path(dead_letter.entry.job)
        if not image.exists():
            return None
        try:
            return self._dead_letters.store(dead_letter, image)
        except OSError as problem:
            log.warning("%s: no dead letter is stored: %s", dead_letter.entry.name, problem)
            return None

    def _record_ends(self) -> sqlite3.Error | None:
        """Write all pending ends; returns the error of the first that cannot be written."""
        for job, (entry, error) in tuple(self._pending_ends.items()):
            try:
                self._journal.end(entry, error)
            except sqlite3.Error as problem:
                return problem
            del self._pending_ends[job]
        return None

    def _return_original(self, entry: SpoolEntry, inbox_path: Path, error: str | None) -> Path:
        root = self._root_of(inbox_path.parent)
        root.mkdir(parents=True, exist_ok=True)
        folder = inbox_path.parent / (FAILED if error else DONE)
        with held_folder(root, folder, make=True) as held:
            path = free_path(held / inbox_path.name)
            if error:
                # The reason first, so that no image in failed/ is without one.
                reason = f"{error}\n".encode("utf-8", "backslashreplace")
                write(self._disk, path.with_name(f"{path.name}.txt"), reason)
            move(self._disk, self._spool.image_path(entry.job), path)
        original = folder / path.name
        if not error:
            self.written.record("done", [original])
        return original

    def _root_of(self, folder: Path) -> Path:
        """Return the inbox if a folder is in it, or else the folder itself."""
        inbox = self._inbox
        return inbox if inbox is not None and folder.is_relative_to(inbox) else folder


def _open_written(folder: Path) -> WrittenFiles:
    try:
        return WrittenFiles(folder)
    except sqlite3.Error as problem:
        raise ConfigError(f"gateway.spool: cannot open {folder / NAME}: {problem}") from None
