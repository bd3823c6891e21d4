"""Changes on disk that a power cut finds whole or not at all.

Every change that spool and ledger make is one call of a Disk, so that a test can stop the world
before, after and in the middle of each.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from pathlib import Path

#: What is not whole yet ends like this.
PART = ".part"

Bytes = bytes | bytearray | memoryview

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DurableFiles:
    """The real one. Everything raises OSError; `commit` raises sqlite3.Error."""

    def create(self, path: Path, data: Bytes) -> None:
        """Write a file and wait until the disk has its bytes; its name is not safe yet."""
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def copy(self, source: Path, target: Path) -> None:
        """As `create`, from another file, whose times it keeps."""
        shutil.copy2(source, target)
        self.sync(target)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name at once; within one file system."""
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, or copy it where the file system knows no such thing."""
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(source)
        except OSError as problem:
            if problem.errno not in (errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.EMLINK):
                raise
            self.copy(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)

    def clear(self, folder: Path) -> None:
        """Remove a folder with what is in it, if it is there."""
        if folder.exists():
            shutil.rmtree(folder)

    def sync(self, path: Path) -> None:
        """Wait until the disk has a file's bytes, or a folder's names."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write_at(self, descriptor: int, data: Bytes, offset: int) -> None:
        """Write into an open file; nobody waits for the disk."""
        rest = memoryview(data).cast("B")
        while rest:
            count = os.pwrite(descriptor, rest, offset)
            rest, offset = rest[count:], offset + count

    def commit(self, connection: sqlite3.Connection) -> None:
        """End a transaction."""
        connection.execute("COMMIT")


def write(disk: DurableFiles, path: Path, data: Bytes) -> None:
    """Write a file at once: whoever looks finds the old one or all of the new one.

    Its name survives a power cut once its folder is synced. Raises OSError and leaves nothing.
    """
    part = path.with_name(f".{path.name}{PART}")
    try:
        disk.create(part, data)
        disk.rename(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def move(disk: DurableFiles, source: Path, target: Path) -> None:
    """Move a file to where nothing is, from another file system too, and see it safe there.

    A power cut leaves it in one of the two places, or, between file systems, in both.
    Raises OSError; it is where it was then.
    """
    try:
        disk.rename(source, target)
    except OSError as problem:
        if problem.errno != errno.EXDEV:
            raise
        _move_far(disk, source, target)
        return
    disk.sync(target)
    disk.sync(target.parent)
    disk.sync(source.parent)


def _move_far(disk: DurableFiles, source: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}{PART}")
    try:
        disk.copy(source, part)
        disk.rename(part, target)
        disk.sync(target.parent)
        disk.remove(source)
    except OSError:
        part.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        raise


def is_full(problem: BaseException) -> bool:
    """Whether there was no room: what is told apart since it mends itself."""
    if isinstance(problem, sqlite3.OperationalError):
        return problem.sqlite_errorname == "SQLITE_FULL"
    return isinstance(problem, OSError) and problem.errno in _NO_ROOM
