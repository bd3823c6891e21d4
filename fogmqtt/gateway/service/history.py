"""The history of jobs: a folder for each ended job, in the spool, bounded by number, age and bytes.

A folder has `card.json`, the job's small files, and copies of images that are nowhere else. What
can be read is what is there: a file that somebody removed leaves the job's card.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
import xxhash

from fogmqtt.config.schema import HistorySettings
from fogmqtt.gateway.storage.api import Bytes, SpoolEntry
from fogmqtt.gateway.storage.durable_files import PART, DurableFiles, write
from fogmqtt.wire.service_messages import FileFacts, JobCard, JobFile, Undelivered

log = logging.getLogger(__name__)

_CARD: Final = "card.json"
#: Bytes that are read at a time for a digest.
_BLOCK: Final = 1 << 20


class EndedJob(msgspec.Struct, frozen=True, kw_only=True):
    """An ended job: the content of `card.json`."""

    card: JobCard
    entry: SpoolEntry
    #: Where each file is: a name in the job's folder, or a path elsewhere. A path may have any
    #: bytes.
    places: dict[JobFile, bytes] = {}
    #: The image of the dead letter, as a path.
    letter: bytes = b""


class History:
    """The ended jobs. All methods block: call them from one thread, but `keep` from any."""

    def __init__(self, folder: Path, settings: HistorySettings, disk: DurableFiles) -> None:
        self._folder = folder
        self._settings = settings
        self._disk = disk
        #: The jobs in the order of their ends, and the bytes of their folders.
        self._jobs: dict[str, EndedJob] = {}
        self._sizes: dict[str, int] = {}

    def load(self) -> None:
        """Read what earlier runs kept, and remove what they left incomplete."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found = []
        for folder in self._folder.iterdir():
            if (job := self._read(folder)) is not None:
                found.append(job)
                # A kill leaves one if the card is just written anew.
                for part in folder.glob(f"*{PART}"):
                    self._disk.remove(part)
            elif folder.is_dir():
                self._disk.clear(folder)
        for job in sorted(found, key=lambda one: one.card.ended_at or 0.0):
            self._jobs[job.card.id] = job
            self._sizes[job.card.id] = _folder_bytes(self._folder / job.card.id)
        self._prune()

    def keep(self, job: str, name: str, data: Bytes, *, durable: bool = False) -> FileFacts:
        """Write a file into a job's folder. Raises OSError."""
        folder = self._folder / job
        folder.mkdir(parents=True, exist_ok=True)
        if durable:
            write(self._disk, folder / name, data)
            self._disk.sync(folder)
            self._disk.sync(self._folder)
        else:
            (folder / name).write_bytes(data)
        digest = xxhash.xxh3_64_hexdigest(data)
        return FileFacts(name=name, media_type="", bytes=len(data), digest=digest)

    def folder_of(self, job: str) -> Path:
        """Return the folder of a job's files."""
        return self._folder / job

    def link(self, job: str, name: str, path: Path) -> None:
        """Keep a file of the spool, without a copy if possible. Raises OSError."""
        folder = self._folder / job
        folder.mkdir(parents=True, exist_ok=True)
        self._disk.link(path, folder / name)

    def add(self, job: EndedJob) -> list[str]:
        """Add an ended job with its files. Returns the jobs that had to go. Raises OSError."""
        self._write(job)
        self._jobs.pop(job.card.id, None)
        self._jobs[job.card.id] = job
        self._sizes[job.card.id] = _folder_bytes(self._folder / job.card.id)
        return self._prune()

    def undelivered(self, job: str, changes: Mapping[str, Undelivered | None]) -> None:
        """Say which places a result did not reach, or did after all. Raises OSError."""
        if (found := self._jobs.get(job)) is None:
            return
        all_of_them = {**found.card.undelivered, **changes}
        places = {place: what for place, what in all_of_them.items() if what is not None}
        card = msgspec.structs.replace(found.card, undelivered=places)
        self._jobs[job] = msgspec.structs.replace(found, card=card)
        self._write(self._jobs[job])

    def get(self, job: str) -> EndedJob | None:
        """Return a job with the files that are there; None if it is not in the history."""
        found = self._jobs.get(job)
        return None if found is None else self._present(found)

    def path(self, job: str, file: JobFile) -> Path | None:
        """Return where a file of a job is; None if there is none."""
        found = self._jobs.get(job)
        return None if found is None else self._path(found, file)

    def newest(
        self, limit: int, wanted: Callable[[JobCard], bool] = lambda _: True
    ) -> list[JobCard]:
        """Return the cards of the newest jobs that are wanted, the newest first."""
        cards: list[JobCard] = []
        for job in sorted(self._jobs.values(), key=lambda one: order(one.card), reverse=True):
            if len(cards) >= limit:
                break
            if wanted(job.card):
                cards.append(self._present(job).card)
        return cards

    def digest(self, path: Path, name: str, media_type: str) -> FileFacts:
        """Describe a file. Raises OSError."""
        state, size = xxhash.xxh3_64(), 0
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                state.update(block)
                size += len(block)
        return FileFacts(name=name, media_type=media_type, bytes=size, digest=state.hexdigest())

    def _write(self, job: EndedJob) -> None:
        data = msgspec.json.format(msgspec.json.encode(job))
        self.keep(job.card.id, _CARD, data, durable="result" in job.places)

    def _read(self, folder: Path) -> EndedJob | None:
        try:
            job = msgspec.json.decode((folder / _CARD).read_bytes(), type=EndedJob)
        except (OSError, msgspec.MsgspecError):
            return None
        return job if job.card.id == folder.name else None

    def _present(self, job: EndedJob) -> EndedJob:
        """Return the job without the files that somebody removed or changed in size."""
        files = {name: facts for name, facts in job.card.files.items() if self._has(job, name)}
        letter = bool(job.letter) and Path(_text(job.letter)).exists()
        if len(files) == len(job.card.files) and letter == job.card.retryable:
            return job
        card = msgspec.structs.replace(job.card, files=files, retryable=letter)
        return msgspec.structs.replace(job, card=card)

    def _has(self, job: EndedJob, file: JobFile) -> bool:
        path = self._path(job, file)
        try:
            return path is not None and path.stat().st_size == job.card.files[file].bytes
        except OSError:
            return False

    def _path(self, job: EndedJob, file: JobFile) -> Path | None:
        place = job.places.get(file)
        # A path elsewhere is absolute, and replaces the folder.
        return None if place is None else self._folder / job.card.id / _text(place)

    def _prune(self) -> list[str]:
        return [self._remove(job) for job in tuple(self._surplus())]

    def _surplus(self) -> Iterator[str]:
        settings, count = self._settings, len(self._jobs)
        used, oldest = sum(self._sizes.values()), time.time() - settings.keep_s
        for job in tuple(self._jobs.values()):
            is_over = bool(settings.max_bytes) and used > settings.max_bytes and count > 1
            is_old = (job.card.ended_at or 0.0) < oldest
            if count <= settings.max_jobs and not is_over and not is_old:
                return
            count, used = count - 1, used - self._sizes.get(job.card.id, 0)
            yield job.card.id

    def _remove(self, job: str) -> str:
        self._jobs.pop(job, None)
        self._sizes.pop(job, None)
        try:
            # The card first: the next start removes a folder without one.
            self._disk.remove(self._folder / job / _CARD)
            self._disk.clear(self._folder / job)
        except OSError as problem:
            log.warning("cannot remove %s: %s", self._folder / job, problem.strerror)
        return job


def order(card: JobCard) -> tuple[float, str]:
    """Return by what jobs are sorted."""
    return card.accepted_at, card.id


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _folder_bytes(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except OSError:
        return 0
