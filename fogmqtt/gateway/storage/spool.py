"""Accepted images on disk, until they are delivered: a gateway that is killed finds them again.

An image is accepted once both its note and the image itself are in the folder and the disk has
them. The ledger beside them only says how far each is: whoever loses it loses no image.
"""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import pwd
from collections.abc import Container
from pathlib import Path

import msgspec

from fogmqtt.errors import ConfigError, FogError
from fogmqtt.gateway.storage import pixel_cache
from fogmqtt.gateway.storage.durable_files import PART, DurableFiles, move, write
from fogmqtt.gateway.storage.pixel_cache import PIXELS
from fogmqtt.images.spec import Image
from fogmqtt.wire.messages import Priority

log = logging.getLogger(__name__)

_LOCK = ".lock"
#: Pixels of finished tiles: `<job>.<stage's token>.tiles`.
TAPE = ".tiles"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted image: what its note says."""

    job: str
    #: The file's own name, or what stands for it.
    name: str
    #: As it was configured at that time, written out.
    pipeline: str
    #: Whom to answer on replies/<reply>; empty for nobody.
    reply: str = ""
    #: The inbox that the original goes back to, under done/ or failed/; empty: it came by MQTT.
    inbox: str = ""
    #: Bytes and modification time of the file in the inbox: to know it again.
    stamp: tuple[int, int] | None = None
    #: What the broker calls the message, to know it when it comes again; empty for a file.
    origin: str = ""
    #: Of its pipeline, as it was configured at that time.
    priority: Priority = 0
    #: Seconds since 1970, for the order and for people.
    accepted_at: float = 0.0


class _Owner(msgspec.Struct, frozen=True):
    """Who works with a spool."""

    gateway: str
    pid: int
    host: str


class Spool:
    """A folder of `<job>.json`, the note, and `<job>.image`.

    `entries` first, then from one thread; `max_bytes` bounds the images and finished tiles in
    it, 0 means that only the disk does.
    """

    def __init__(
        self,
        folder: Path,
        gateway: str = "",
        *,
        disk: DurableFiles | None = None,
        max_bytes: int = 0,
    ) -> None:
        """Make the folder. Raises ConfigError where it cannot be written to, or is in use."""
        self.folder = folder
        self.disk = disk or DurableFiles()
        self.max_bytes = max_bytes
        #: Bytes in the folder, the ledger's own aside.
        self.used = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / _LOCK).open("a+b", buffering=0)
        except OSError as problem:
            raise ConfigError(_unusable(folder, problem)) from None
        try:
            self._take(_Owner(gateway, os.getpid(), platform.node()))
        except BlockingIOError:
            raise self._taken() from None
        except OSError as problem:
            self._lock.close()
            raise ConfigError(_unusable(folder, problem)) from None

    def image(self, job: str) -> Path:
        return self.folder / f"{job}.image"

    def pixels(self, job: str) -> Path:
        """Where a large image's pixels are, once they are decoded."""
        return self.folder / f"{job}{PIXELS}"

    def keep_pixels(self, job: str, image: Image) -> None:
        """Spare the next life the decoding. Raises OSError, and FogError over `max_bytes`."""
        self._check_room(image.nbytes)
        pixel_cache.write(self.disk, self.pixels(job), image)
        self.used += image.nbytes

    def accept_bytes(self, entry: Entry, data: bytes) -> None:
        """Keep an image that came by MQTT. Raises OSError, and FogError over `max_bytes`."""
        self._check_room(len(data))
        try:
            self._note(entry)
            write(self.disk, self.image(entry.job), data)
            self.disk.sync(self.folder)
        except OSError:
            self._undo(entry.job)
            raise
        self.used += len(data)

    def accept_file(self, entry: Entry, path: Path) -> None:
        """Take a file out of its folder. Raises OSError, and FogError over `max_bytes`."""
        size = path.stat().st_size
        self._check_room(size)
        try:
            self._note(entry)
            # The note is safe before the file leaves its folder.
            self.disk.sync(self.folder)
            move(self.disk, path, self.image(entry.job))
        except OSError:
            if path.exists():
                self._undo(entry.job)
            raise
        self.used += size

    def forget(self, job: str) -> None:
        """The job is over. Raises OSError."""
        self.disk.remove(self._entry(job))
        for path in (self.image(job), self.pixels(job), *self.folder.glob(f"{job}.*{TAPE}")):
            if path.exists():
                self.used -= path.stat().st_size
                self.disk.remove(path)

    def entries(self, known: Container[str] = ()) -> list[Entry]:
        """What was accepted and not delivered, by an earlier life of this gateway; oldest first.

        To be asked before anything is accepted: what was never accepted is removed. That is a
        note without an image, unless its job is `known` to have had one.
        """
        self._sweep()
        notes = self.folder.glob("*.json")
        found = [entry for path in notes if (entry := self._read(path, known))]
        for path in self._files(TAPE, PIXELS):
            if not self._entry(path.name.split(".")[0]).exists():
                path.unlink()
        self.used = sum(path.stat().st_size for path in self._files(".image", TAPE, PIXELS))
        return sorted(found, key=lambda entry: (entry.accepted_at, entry.job))

    def close(self) -> None:
        """Let another gateway have the folder."""
        self._lock.close()

    def _take(self, owner: _Owner) -> None:
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._lock.truncate(0)
        self._lock.write(msgspec.json.encode(owner))
        # A folder that cannot be written to may hold a lock that can.
        probe = self.folder / f".probe{PART}"
        probe.write_bytes(b"")
        probe.unlink()

    def _taken(self) -> ConfigError:
        self._lock.seek(0)
        said = self._lock.read(1000)
        self._lock.close()
        try:
            owner = msgspec.json.decode(said, type=_Owner)
            who = f"{owner.gateway or 'a gateway'} (process {owner.pid} on {owner.host})"
        except msgspec.MsgspecError:
            who = "one that does not say who it is"
        return ConfigError(
            f"gateway.spool: another gateway works with {self.folder}: {who}; give each its own"
        )

    def _check_room(self, size: int) -> None:
        if self.max_bytes and self.used + size > self.max_bytes:
            raise FogError(
                f"the spool holds {self.used:,} bytes and this image has {size:,}: more than "
                f"gateway.spool_max_bytes = {self.max_bytes:,}; try again later"
            )

    def _read(self, path: Path, known: Container[str]) -> Entry | None:
        try:
            entry = msgspec.json.decode(path.read_bytes(), type=Entry)
        except (OSError, msgspec.MsgspecError) as problem:
            log.warning("%s is not an entry of this spool, left alone: %s", path, problem)
            return None
        if entry.job not in known and not self.image(entry.job).exists():
            path.unlink(missing_ok=True)  # killed before the image was in
            return None
        self._finish_move(entry)
        return entry

    def _finish_move(self, entry: Entry) -> None:
        """Between file systems a kill may leave the file in both places."""
        path = Path(entry.inbox) / entry.name
        if entry.inbox and entry.stamp and path.is_file() and stamp(path) == entry.stamp:
            log.info("%s was taken by an earlier life, removed", path)
            path.unlink()

    def _files(self, *endings: str) -> list[Path]:
        return [path for ending in endings for path in self.folder.glob(f"*{ending}")]

    def _sweep(self) -> None:
        unnoted = [
            path for path in self.folder.glob("*.image") if not self._entry(path.stem).exists()
        ]
        for path in (*unnoted, *self.folder.glob(f".*{PART}")):
            path.unlink(missing_ok=True)

    def _entry(self, job: str) -> Path:
        return self.folder / f"{job}.json"

    def _note(self, entry: Entry) -> None:
        write(self.disk, self._entry(entry.job), msgspec.json.encode(entry))

    def _undo(self, job: str) -> None:
        self.image(job).unlink(missing_ok=True)
        self._entry(job).unlink(missing_ok=True)


def stamp(path: Path) -> tuple[int, int]:
    """A file's size and modification time in ns. Raises OSError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _unusable(folder: Path, problem: OSError) -> str:
    if folder.exists() and not folder.is_dir():
        return f"gateway.spool: {folder} is not a folder; name one, or a place for a new one"
    return (
        f"gateway.spool: cannot write to {folder}: {problem.strerror}{_owner(folder)}; "
        "name a folder that this user may write to"
    )


def _owner(folder: Path) -> str:
    try:
        uid = folder.stat().st_uid
        return "" if uid == os.geteuid() else f" (it belongs to {pwd.getpwuid(uid).pw_name})"
    except (OSError, KeyError):
        return ""
