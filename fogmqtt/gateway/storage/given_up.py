"""Callbacks that were given up, kept until somebody has them sent again.

A folder `callbacks/dead` in the spool holds for each its body and its note with the reason. Moving
both to `callbacks/retry` requests another try. The gateway that uses the spool takes them up from
there, at once or after its next start.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from fogmqtt.errors import UsageError
from fogmqtt.gateway.storage.api import SpoolEntry
from fogmqtt.gateway.storage.durable_files import DurableFiles, write
from fogmqtt.wire.messages import JobStatus

log = logging.getLogger(__name__)

NOTE, BODY = ".json", ".body"
DEAD, RETRY = "dead", "retry"
#: How many are kept; the oldest are removed.
_MOST: Final = 100
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,120}")


class CallbackNote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to be sent: the content of its note in the spool."""

    #: The name of the callback in the configuration.
    callback: str
    entry: SpoolEntry
    #: The final status of the job.
    status: JobStatus
    media_type: str
    #: Seconds since 1970.
    since: float
    #: Why it was given up, and when; empty while it is tried.
    reason: str = ""
    given_up_at: float = 0.0

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.entry.job}.{self.callback}"


def read_notes(folder: Path) -> list[CallbackNote]:
    """Return the notes in a folder, oldest first; one that is unreadable is left there."""
    found = []
    for path in folder.glob(f"*{NOTE}"):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=CallbackNote))
        except (OSError, msgspec.MsgspecError) as problem:
            log.warning("%s is no note of a callback and is left there: %s", path, problem)
    return sorted(found, key=lambda note: note.since)


class GivenUpCallbacks:
    """Those of one spool. All methods block, and raise OSError."""

    def __init__(self, folder: Path, disk: DurableFiles) -> None:
        """`folder` is `callbacks` of the spool."""
        self._folder = folder
        self._disk = disk

    def all(self) -> list[CallbackNote]:
        """Return those that were given up, the oldest first."""
        return sorted(read_notes(self._folder / DEAD), key=lambda note: note.given_up_at)

    def keep(self, note: CallbackNote, reason: str) -> None:
        """Move one here from the callbacks that are tried."""
        given_up = msgspec.structs.replace(note, reason=reason, given_up_at=time.time())
        self._put(self._folder, self._folder / DEAD, given_up)
        for old in self.all()[:-_MOST]:
            log.warning("callback %s is removed: %d that were given up are kept", old.name, _MOST)
            self._remove(self._folder / DEAD, old)

    def request_retry(self, name: str) -> None:
        """Ask the gateway to send one again. Raises UsageError if there is no such callback."""
        known = {note.name: note for note in self.all()}
        if _NAME.fullmatch(name) is None or name not in known:
            raise UsageError(f"no callback {name[:140]!r} was given up; see `fog-gateway retry`")
        self._put(self._folder / DEAD, self._folder / RETRY, known[name])

    def take_requested(self, may_take: Callable[[CallbackNote], bool]) -> list[CallbackNote]:
        """Return those that somebody wants to be sent again, as callbacks of this moment."""
        if not (self._folder / RETRY).is_dir():
            return []
        taken = []
        for note in filter(may_take, read_notes(self._folder / RETRY)):
            again = msgspec.structs.replace(note, reason="", given_up_at=0.0, since=time.time())
            self._put(self._folder / RETRY, self._folder, again)
            taken.append(again)
        return taken

    def _put(self, source: Path, target: Path, note: CallbackNote) -> None:
        """Move a callback; a crash leaves a note and its body at one of the two places."""
        target.mkdir(exist_ok=True)
        self._disk.link(source / f"{note.name}{BODY}", target / f"{note.name}{BODY}")
        write(self._disk, target / f"{note.name}{NOTE}", msgspec.json.encode(note))
        self._disk.sync(target)
        self._remove(source, note)

    def _remove(self, folder: Path, note: CallbackNote) -> None:
        for suffix in (NOTE, BODY):
            self._disk.remove(folder / f"{note.name}{suffix}")
