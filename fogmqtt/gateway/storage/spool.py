"""Accepted images on disk until their jobs are finished, so that a killed gateway loses none.

An image is accepted once its note and the image itself are in the folder and synced. The journal
database beside them only records progress: without it no image is lost.
"""

from __future__ import annotations

import logging
import os
import platform
import stat
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

import msgspec

from fogmqtt.errors import ConfigError, FogError, SpoolInUse, reason_of
from fogmqtt.gateway.storage import pixel_cache
from fogmqtt.gateway.storage.api import Bytes, SpoolEntry
from fogmqtt.gateway.storage.durable_files import PART, DurableFiles, copy_linked, move, write
from fogmqtt.gateway.storage.held_folder import held_folder, linked_file
from fogmqtt.gateway.storage.pixel_cache import PIXELS_SUFFIX
from fogmqtt.gateway.storage.tile_file import TILES_SUFFIX
from fogmqtt.images.spec import Image
from fogmqtt.log import shown_name

log = logging.getLogger(__name__)

_LOCK = ".lock"


class _Owner(msgspec.Struct, frozen=True):
    """The gateway that uses a spool, as its lock file names it."""

    gateway: str
    pid: int
    host: str


class Spool:
    """A folder with a note `<job>.json` and an image `<job>.image` for each accepted image.

    Call `entries` first, and everything from one thread; all methods but the paths block.
    `max_bytes` limits the images, decoded pixels and finished tiles in the folder; 0: no limit.
    """

    def __init__(
        self,
        folder: Path,
        gateway: str = "",
        *,
        disk: DurableFiles | None = None,
        max_bytes: int = 0,
    ) -> None:
        """Make and lock the folder.

        Raises ConfigError where it is not writable, and SpoolInUse where another gateway uses it.
        """
        self.folder = folder
        self.disk = disk or DurableFiles()
        self.max_bytes = max_bytes
        #: Bytes in the folder by job, without notes and the journal database.
        self._sizes: dict[str, int] = {}
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_private(folder)
            self._lock = (folder / _LOCK).open("a+b", buffering=0)
        except OSError as problem:
            raise ConfigError(_unusable(folder, problem)) from None
        try:
            self._take_lock(_Owner(gateway, os.getpid(), platform.node()))
        except BlockingIOError:
            raise self._in_use() from None
        except OSError as problem:
            self._lock.close()
            raise ConfigError(_unusable(folder, problem)) from None

    @property
    def used(self) -> int:
        """Bytes in the folder, without notes and the journal database."""
        return sum(self._sizes.values())

    def image_path(self, job: str) -> Path:
        return self.folder / f"{job}.image"

    def pixels_path(self, job: str) -> Path:
        """The file of a large image's decoded pixels."""
        return self.folder / f"{job}{PIXELS_SUFFIX}"

    def keep_pixels(self, job: str, image: Image) -> None:
        """Store decoded pixels. Raises OSError, and FogError above `max_bytes`."""
        self.check_room(image.nbytes)
        pixel_cache.write(self.disk, self.pixels_path(job), image)
        self.count(job, image.nbytes)

    def accept_bytes(self, entry: SpoolEntry, data: Bytes) -> None:
        """Store an image that came by MQTT. Raises OSError, and FogError above `max_bytes`."""
        self.check_room(len(data))
        try:
            self._write_note(entry)
            write(self.disk, self.image_path(entry.job), data)
            self.disk.sync(self.folder)
        except Exception:
            self._undo(entry.job)
            raise
        self.count(entry.job, len(data))

    def accept_file(self, entry: SpoolEntry, path: Path, root: Path | None = None) -> None:
        """Move a file into the spool. Raises OSError, and FogError above `max_bytes`.

        Others may write at and below `root`, the file's folder unless it is given.
        """
        with held_folder(root or path.parent, path.parent) as folder:
            self._accept_held(entry, folder / path.name)

    def _accept_held(self, entry: SpoolEntry, path: Path) -> None:
        linked = linked_file(path)
        size = (linked or path).stat().st_size
        self.check_room(size)
        image = self.image_path(entry.job)
        try:
            self._write_note(entry)
            # The note must be durable before the file leaves its folder.
            self.disk.sync(self.folder)
            if linked is not None:
                copy_linked(self.disk, path, linked, image)
            else:
                move(self.disk, path, image)
                _require_file(image)
        except Exception:
            if os.path.lexists(path) or not image.is_file():
                self._undo(entry.job)
            raise
        self.count(entry.job, size)

    def count(self, job: str, size: int) -> None:
        """Count more bytes of a job against `max_bytes`."""
        self._sizes[job] = self._sizes.get(job, 0) + size

    def remove(self, job: str) -> None:
        """Remove a finished job's files. Raises OSError."""
        self.disk.remove(self._note_path(job))
        tiles = self.folder.glob(f"{job}.*{TILES_SUFFIX}")
        for path in (self.image_path(job), self.pixels_path(job), *tiles):
            if path.exists():
                self.disk.remove(path)
        self._sizes.pop(job, None)

    def entries(self, known: Container[str] = ()) -> list[SpoolEntry]:
        """The entries that earlier runs of the gateway accepted and did not remove, oldest first.

        Call it before anything is accepted, because it removes incomplete entries. A note
        without an image is incomplete, unless its job is in `known`: then the image was there.
        """
        self._remove_incomplete()
        notes = self.folder.glob("*.json")
        found = [entry for path in notes if (entry := self._read(path, known))]
        for path in self._files(TILES_SUFFIX, PIXELS_SUFFIX):
            if not self._note_path(path.name.split(".")[0]).exists():
                _discard(path)
        self._sizes.clear()
        for path in self._files(".image", TILES_SUFFIX, PIXELS_SUFFIX):
            self.count(path.name.split(".")[0], _size(path))
        return sorted(found, key=lambda entry: (entry.accepted_at, entry.job))

    def check_room(self, size: int) -> None:
        """Raise FogError where this many more bytes would exceed `max_bytes`."""
        if self.max_bytes and self.used + size > self.max_bytes:
            raise FogError(
                f"the spool holds {self.used:,} bytes and this image has {size:,}: more than "
                f"gateway.spool_max_bytes = {self.max_bytes:,}; try again later"
            )

    def close(self) -> None:
        """Release the folder for another gateway."""
        self._lock.close()

    def _take_lock(self, owner: _Owner) -> None:
        import fcntl  # not on every system on which this package can be imported

        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._lock.truncate(0)
        self._lock.write(msgspec.json.encode(owner))
        # The lock file may be writable in a folder that is not.
        probe = self.folder / f".probe{PART}"
        probe.write_bytes(b"")
        probe.unlink()

    def _in_use(self) -> SpoolInUse:
        self._lock.seek(0)
        content = self._lock.read(1000)
        self._lock.close()
        try:
            owner = msgspec.json.decode(content, type=_Owner)
            who = f"{owner.gateway or 'a gateway'} (process {owner.pid} on {owner.host})"
        except msgspec.MsgspecError:
            who = "the lock file does not name it"
        return SpoolInUse(
            f"gateway.spool: another gateway uses {self.folder}: {who}; give each its own", who
        )

    def _read(self, path: Path, known: Container[str]) -> SpoolEntry | None:
        try:
            entry = msgspec.json.decode(path.read_bytes(), type=SpoolEntry)
        except (OSError, msgspec.MsgspecError) as problem:
            log.warning("%s is not a note of this spool and is left there: %s", path, problem)
            return None
        if entry.job not in known and not self.image_path(entry.job).exists():
            _discard(path)  # the gateway was killed before it had the image
            return None
        self._finish_move(entry)
        return entry

    def _finish_move(self, entry: SpoolEntry) -> None:
        """Remove the inbox's file if a kill left it at both paths, between file systems."""
        path = entry.inbox_path
        if path is None or not entry.stamp:
            return
        try:
            if path.is_file() and stamp(path) == entry.stamp:
                log.info("%s is removed: it was accepted before the restart", shown_name(str(path)))
                path.unlink()
        except OSError as problem:  # such as an inbox that may only be read by now
            log.warning(
                "%s was accepted before the restart and cannot be removed: %s",
                shown_name(str(path)),
                problem.strerror,
            )

    def _files(self, *suffixes: str) -> list[Path]:
        return [path for suffix in suffixes for path in self.folder.glob(f"*{suffix}")]

    def _remove_incomplete(self) -> None:
        without_note = [
            path for path in self.folder.glob("*.image") if not self._note_path(path.stem).exists()
        ]
        for path in (*without_note, *self.folder.glob(f".*{PART}")):
            _discard(path)

    def _note_path(self, job: str) -> Path:
        return self.folder / f"{job}.json"

    def _write_note(self, entry: SpoolEntry) -> None:
        write(self.disk, self._note_path(entry.job), msgspec.json.encode(entry))

    def _undo(self, job: str) -> None:
        self.image_path(job).unlink(missing_ok=True)
        self._note_path(job).unlink(missing_ok=True)


def _discard(path: Path) -> None:
    """Remove a file that an earlier run left; what cannot be removed must not stop a start."""
    try:
        path.unlink(missing_ok=True)
    except OSError as problem:
        log.warning("cannot remove %s: %s", path, problem.strerror)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as problem:
        log.warning("cannot read the size of %s: %s", path, problem.strerror)
        return 0


def is_spool(folder: Path) -> bool:
    """Return whether a gateway has used the folder as its spool. Blocking."""
    return (folder / _LOCK).is_file()


def stamp(path: Path) -> tuple[int, int]:
    """A file's size and modification time in ns. Blocking. Raises OSError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _make_private(folder: Path) -> None:
    """Let nobody else look into the folder, which an earlier version may have made for all."""
    with suppress(PermissionError):  # it is another user's
        folder.chmod(folder.stat().st_mode & 0o700)


def _require_file(image: Path) -> None:
    """Raise FogError if what was moved in is no file: something had taken its place."""
    if not stat.S_ISREG(image.lstat().st_mode):
        image.unlink()
        raise FogError("it was replaced by a link or a pipe while it was taken")


def _unusable(folder: Path, problem: OSError) -> str:
    if folder.exists() and not folder.is_dir():
        return f"gateway.spool: {folder} is not a folder; name a folder, or a path for a new one"
    return (
        f"gateway.spool: cannot write to {folder}: {reason_of(problem, folder)}; "
        "name a folder that this user may write to"
    )
