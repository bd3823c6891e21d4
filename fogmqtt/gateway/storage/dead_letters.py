"""Dead letters: accepted images whose jobs failed, kept with the reasons until somebody retries.

A folder `dead/<job>` in the spool holds the image as it was submitted and `note.json`. To retry a
job is to rename its folder to `retry/<job>`: the gateway that works with the spool takes it from
there, at once or at its next start.
"""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

import msgspec

from fogmqtt.errors import UsageError
from fogmqtt.gateway.jobs.report import Report, TileFailure
from fogmqtt.gateway.storage.durable_files import DurableFiles, write
from fogmqtt.gateway.storage.spool import Entry
from fogmqtt.wire.messages import DeadJob, encode

log = logging.getLogger(__name__)

DEAD, RETRY = "dead", "retry"
NOTE, IMAGE = "note.json", "image"
#: So many are kept; the oldest go first.
MAX_LETTERS = 100
#: So many characters of a reason and of each traceback are kept.
_MAX_TEXT = 4000
_MAX_NAME = 256

_AGAIN = re.compile(r"(.+)-(\d+)")


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed: the content of `note.json`."""

    entry: Entry
    reason: str
    #: Seconds since 1970.
    failed_at: float
    #: Done tiles by device.
    devices: dict[str, int]
    #: The newest failures of tiles, with the devices' tracebacks.
    failures: list[TileFailure]


def dead_letter(entry: Entry, report: Report, reason: str) -> DeadLetter:
    """What is to be known of a failed job, in bounded size."""
    return DeadLetter(
        entry=entry,
        reason=_text(reason[:_MAX_TEXT]),
        failed_at=time.time(),
        devices={device: share.tiles for device, share in report.devices.items()},
        failures=[_shortened(failure) for failure in report.failures],
    )


def announcement(dead: DeadLetter, kept: Path) -> bytes:
    """What is published of a dead letter: at most some 10 kB, and no pixels."""
    said = DeadJob(
        job=dead.entry.job,
        name=dead.entry.name[:_MAX_NAME],
        pipeline=dead.entry.pipeline[:_MAX_TEXT],
        reason=dead.reason[:_MAX_TEXT],
        failed_at=dead.failed_at,
        folder=str(kept.absolute()),
        failures=len(dead.failures),
    )
    return encode(said, "base64")


def again(job: str) -> str:
    """The id of a job's next try: the same whoever asks, so that no crash makes two of it."""
    match = _AGAIN.fullmatch(job)
    return f"{match[1]}-{int(match[2]) + 1}" if match else f"{job}-2"


class DeadLetters:
    """The dead letters of one spool; `max_bytes` bounds their images, 0 means no bound."""

    def __init__(self, spool: Path, disk: DurableFiles | None = None, max_bytes: int = 0) -> None:
        self.folder = spool / DEAD
        self.waiting = spool / RETRY
        self._disk = disk or DurableFiles()
        self._max_bytes = max_bytes

    def keep(self, dead: DeadLetter, image: Path) -> Path:
        """Keep a letter and another name of its image; returns its folder. Raises OSError."""
        folder = self.folder / dead.entry.job
        folder.mkdir(parents=True, exist_ok=True)
        self._disk.link(image, folder / IMAGE)
        write(self._disk, folder / NOTE, msgspec.json.format(msgspec.json.encode(dead)))
        self._disk.sync(folder)
        self._disk.sync(self.folder)
        self._disk.sync(self.folder.parent)
        self._drop_old()
        return folder

    def forget(self, job: str) -> None:
        """A job that was killed after its letter was written came to a good end."""
        self._remove(self.folder / job)

    def sweep(self) -> None:
        """Finish what a killed life began to keep or to remove. Raises OSError."""
        for folder in (*self.folder.glob("j*"), *self.waiting.glob("j*")):
            if not (folder / NOTE).exists():
                self._remove(folder)

    def all(self) -> list[DeadLetter]:
        """What can be retried; oldest first."""
        return sorted(_letters(self.folder), key=lambda dead: dead.failed_at)

    def asked(self) -> list[DeadLetter]:
        """What somebody wants tried again; oldest first."""
        return sorted(_letters(self.waiting), key=lambda dead: dead.failed_at)

    def retry(self, job: str) -> None:
        """Ask for another try. Raises UsageError where there is no such letter, and OSError."""
        known = [dead.entry.job for dead in self.all()]
        if job not in known:
            there = f"there are: {', '.join(known)}" if known else "there is none"
            raise UsageError(f"no dead letter {job!r} in {self.folder}; {there}")
        self.waiting.mkdir(exist_ok=True)
        self._disk.rename(self.folder / job, self.waiting / job)
        for folder in (self.waiting, self.folder, self.folder.parent):
            self._disk.sync(folder)

    def image(self, job: str) -> Path:
        """The image of a job that somebody wants tried again."""
        return self.waiting / job / IMAGE

    def taken(self, job: str) -> None:
        """Its next try is accepted."""
        self._remove(self.waiting / job)

    def _drop_old(self) -> None:
        kept, used = 0, 0
        for dead in reversed(self.all()):
            folder = self.folder / dead.entry.job
            kept, used = kept + 1, used + _size(folder / IMAGE)
            full = self._max_bytes and used > self._max_bytes
            if kept > MAX_LETTERS or (full and kept > 1):
                log.warning("%s: the oldest dead letters make room", folder)
                self._remove(folder)

    def _remove(self, folder: Path) -> None:
        # The note first: without it nobody takes the rest for a letter, and `sweep` removes it.
        try:
            self._disk.remove(folder / NOTE)
            self._disk.clear(folder)
        except OSError as problem:
            log.warning("%s: cannot be removed: %s", folder, problem)


def _letters(folder: Path) -> list[DeadLetter]:
    found = (_read(path) for path in folder.glob(f"*/{NOTE}"))
    return [dead for dead in found if dead is not None]


def _read(path: Path) -> DeadLetter | None:
    try:
        dead = msgspec.json.decode(path.read_bytes(), type=DeadLetter)
    except (OSError, msgspec.MsgspecError) as problem:
        log.warning("%s is no dead letter, left alone: %s", path, problem)
        return None
    # The folder's name is what it is moved by.
    return dead if dead.entry.job == path.parent.name else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _shortened(failure: TileFailure) -> TileFailure:
    return TileFailure(
        failure.tile,
        failure.attempt,
        failure.device,
        _text(failure.reason[:_MAX_TEXT]),
        _text(failure.traceback[-_MAX_TEXT:]),
    )


def _text(said: str) -> str:
    """What an operator says may hold what no file of text can."""
    return said.encode("utf-8", "backslashreplace").decode()
