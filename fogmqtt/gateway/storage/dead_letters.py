"""Dead letters: images of failed jobs, kept with the reasons until somebody retries them.

A folder `dead/<job>` in the spool holds the image as it was submitted and `note.json`. Renaming
it to `retry/<job>` requests a retry. The gateway that uses the spool accepts the image again from
there, at once or after its next start.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from fogmqtt.errors import UsageError
from fogmqtt.gateway.storage.api import DeadLetter, FailedAttempt, SpoolEntry
from fogmqtt.gateway.storage.durable_files import DurableFiles, write
from fogmqtt.wire.messages import DeadJob, encode

log = logging.getLogger(__name__)

DEAD, RETRY = "dead", "retry"
NOTE, IMAGE = "note.json", "image"
#: Limit of stored dead letters; the oldest are removed.
MAX_LETTERS = 100
#: Limit of the characters in a reason and in each traceback.
_MAX_TEXT = 4000
_MAX_NAME = 256

_NUMBERED_ID = re.compile(r"(.+)-(\d+)")


def make_dead_letter(
    entry: SpoolEntry,
    reason: str,
    *,
    devices: Mapping[str, int],
    failures: Sequence[FailedAttempt],
) -> DeadLetter:
    """The dead letter of a job that fails now, with its texts shortened.

    `devices` is the number of finished tiles by device.
    """
    return DeadLetter(
        entry=entry,
        reason=_encodable(reason[:_MAX_TEXT]),
        failed_at=time.time(),
        devices=dict(devices),
        failures=[_shortened(failure) for failure in failures],
    )


def announcement(dead_letter: DeadLetter, folder: Path) -> bytes:
    """The message that announces a dead letter: about 10 kB at most, without the image."""
    message = DeadJob(
        job=dead_letter.entry.job,
        name=dead_letter.entry.name[:_MAX_NAME],
        pipeline=dead_letter.entry.pipeline[:_MAX_TEXT],
        reason=dead_letter.reason[:_MAX_TEXT],
        failed_at=dead_letter.failed_at,
        folder=str(folder.absolute()),
        failures=len(dead_letter.failures),
    )
    return encode(message, "base64")


def retry_id(job: str) -> str:
    """The id of a job's retry: always the same one, so that a crash cannot cause two retries."""
    match = _NUMBERED_ID.fullmatch(job)
    return f"{match[1]}-{int(match[2]) + 1}" if match else f"{job}-2"


class DeadLetters:
    """The dead letters of one spool; `max_bytes` limits their images, 0: no limit.

    All methods block: call them from the spool's writer thread or from the command line.
    """

    def __init__(self, spool: Path, disk: DurableFiles | None = None, max_bytes: int = 0) -> None:
        self.folder = spool / DEAD
        self.retry_folder = spool / RETRY
        self._disk = disk or DurableFiles()
        self._max_bytes = max_bytes

    def store(self, dead_letter: DeadLetter, image: Path) -> Path:
        """Store a dead letter with a link to its image; returns its folder. Raises OSError."""
        folder = self.folder / dead_letter.entry.job
        folder.mkdir(parents=True, exist_ok=True)
        self._disk.link(image, folder / IMAGE)
        note = msgspec.json.format(msgspec.json.encode(dead_letter))
        write(self._disk, folder / NOTE, note)
        self._disk.sync(folder)
        self._disk.sync(self.folder)
        self._disk.sync(self.folder.parent)
        self._remove_oldest()
        return folder

    def remove(self, job: str) -> None:
        """Remove a dead letter whose job succeeded after a restart."""
        self._remove(self.folder / job)

    def remove_incomplete(self) -> None:
        """Remove what a killed gateway left without a note. Raises OSError."""
        for folder in (*self.folder.glob("j*"), *self.retry_folder.glob("j*")):
            if not (folder / NOTE).exists():
                self._remove(folder)

    def all(self) -> list[DeadLetter]:
        """The dead letters without a retry request, oldest first."""
        return sorted(_read_all(self.folder), key=lambda one: one.failed_at)

    def retry_requests(self) -> list[DeadLetter]:
        """The dead letters with a retry request, oldest first."""
        return sorted(_read_all(self.retry_folder), key=lambda one: one.failed_at)

    def request_retry(self, job: str) -> DeadLetter:
        """Request a retry, and return the letter. Raises UsageError for an unknown job, OSError."""
        known = {one.entry.job: one for one in self.all()}
        if job not in known:
            there = f"there are: {', '.join(known)}" if known else "there is none"
            raise UsageError(f"no dead letter {job!r} in {self.folder}; {there}")
        self.retry_folder.mkdir(exist_ok=True)
        self._disk.rename(self.folder / job, self.retry_folder / job)
        for folder in (self.retry_folder, self.folder, self.folder.parent):
            self._disk.sync(folder)
        return known[job]

    def retry_image(self, job: str) -> Path:
        """The image of a dead letter with a retry request."""
        return self.retry_folder / job / IMAGE

    def remove_request(self, job: str) -> None:
        """Remove a dead letter whose retry is accepted."""
        self._remove(self.retry_folder / job)

    def _remove_oldest(self) -> None:
        count, used = 0, 0
        for one in reversed(self.all()):
            folder = self.folder / one.entry.job
            count, used = count + 1, used + _size(folder / IMAGE)
            is_over = self._max_bytes and used > self._max_bytes
            if count > MAX_LETTERS or (is_over and count > 1):
                log.warning("%s is removed to make room for newer dead letters", folder)
                self._remove(folder)

    def _remove(self, folder: Path) -> None:
        # The note first: a folder without one is no dead letter, and the next start removes it.
        try:
            self._disk.remove(folder / NOTE)
            self._disk.clear(folder)
        except OSError as problem:
            log.warning("cannot remove %s: %s", folder, problem)


def _read_all(folder: Path) -> list[DeadLetter]:
    found = (_read(path) for path in folder.glob(f"*/{NOTE}"))
    return [one for one in found if one is not None]


def _read(path: Path) -> DeadLetter | None:
    try:
        dead_letter = msgspec.json.decode(path.read_bytes(), type=DeadLetter)
    except (OSError, msgspec.MsgspecError) as problem:
        log.warning("%s is not a dead letter and is left there: %s", path, problem)
        return None
    # Requests and removals use the folder's name as the job's id.
    return dead_letter if dead_letter.entry.job == path.parent.name else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _shortened(failure: FailedAttempt) -> FailedAttempt:
    return FailedAttempt(
        failure.tile,
        failure.attempt,
        failure.device,
        _encodable(failure.reason[:_MAX_TEXT]),
        _encodable(failure.traceback[-_MAX_TEXT:]),
    )


def _encodable(text: str) -> str:
    """The text with unpaired surrogates escaped: an operator's error may contain them."""
    return text.encode("utf-8", "backslashreplace").decode()
