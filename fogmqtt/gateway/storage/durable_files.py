"""Changes on disk that a power cut leaves complete or undone.

Each change in the spool is one call of a DurableFiles method, so that a test can end the process
before, after or in the middle of any of them. Everything here blocks.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sqlite3
import stat
from collections.abc import Container
from pathlib import Path

from fogmqtt.gateway.storage.api import Bytes

#: The suffix of a file that is not complete yet.
PART = ".part"

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


#: Bytes that are copied at a time.
_COPY_BYTES = 1 << 20
#: Bytes of a name that are left for `.<name>.txt.part`, which is written beside the file.
_BESIDE = 15
#: Longest name of a file that is written, in bytes, where the file system takes the usual 255.
LONGEST_NAME = 255 - _BESIDE
#: Longest suffix that is kept when a name is shortened or numbered, in characters.
_LONGEST_SUFFIX = 20


class DurableFiles:
    """Changes on the real disk. All methods raise OSError, `commit` raises sqlite3.Error."""

    def create(self, path: Path, data: Bytes) -> None:
        """Write a file and sync its bytes. Its name is durable once its folder is synced."""
        with open(path, "wb", opener=_create) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def copy(self, source: Path, target: Path) -> None:
        """Copy a regular file with its times and sync its bytes; `target` must not exist."""
        with open(source, "rb", opener=_open_regular) as file:
            with open(target, "wb", opener=_create) as copy:
                shutil.copyfileobj(file, copy, _COPY_BYTES)
            status = os.fstat(file.fileno())
        target.chmod(stat.S_IMODE(status.st_mode))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        self.sync(target)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file atomically, within one file system."""
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        """Make a hard link, or a copy where the file system has no hard links."""
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(source)
        except OSError as problem:
            if problem.errno not in (errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.EMLINK):
                raise
            self.copy(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file, if it exists."""
        path.unlink(missing_ok=True)

    def clear(self, folder: Path) -> None:
        """Remove a folder with its content, if it exists."""
        if folder.exists():
            shutil.rmtree(folder)

    def sync(self, path: Path) -> None:
        """Wait until a file's bytes or a folder's names are on the disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write_at(self, descriptor: int, data: Bytes, offset: int) -> None:
        """Write into an open file without a sync."""
        rest = memoryview(data).cast("B")
        while rest:
            count = os.pwrite(descriptor, rest, offset)
            rest, offset = rest[count:], offset + count

    def commit(self, connection: sqlite3.Connection) -> None:
        """Commit a transaction."""
        connection.execute("COMMIT")


def _create(path: str, flags: int) -> int:
    """Make a new file: never write through a link that somebody put there."""
    return os.open(path, flags | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _open_regular(path: str, flags: int) -> int:
    """Open for reading: no link, and nothing that waits for somebody, such as a pipe."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return descriptor


def _part(path: Path) -> Path:
    """Return a free name for a file that is not complete yet.

    It is always the same one, so that what a kill left behind is replaced, unless somebody put
    something there that cannot be removed.
    """
    part = path.with_name(f".{path.name}{PART}")
    try:
        part.unlink(missing_ok=True)  # of a link, the link itself
    except OSError:
        return path.with_name(f".{secrets.token_hex(8)}{PART}")
    return part


def write(disk: DurableFiles, path: Path, data: Bytes) -> None:
    """Write a file atomically: readers see the old one or all of the new one.

    Its name is durable once its folder is synced. Raises OSError and leaves no file then.
    """
    part = _part(path)
    try:
        disk.create(part, data)
        disk.rename(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def move(disk: DurableFiles, source: Path, target: Path) -> None:
    """Move a file durably to a free path, also between file systems.

    A power cut leaves it at one of the two paths or, after a copy, at both. Raises OSError and
    leaves it at `source` then. A link is moved as it is within a file system: see `copy_linked`.
    """
    try:
        disk.rename(source, target)
    except OSError as problem:
        if problem.errno != errno.EXDEV:
            raise
        _copy_and_remove(disk, source, target, source)
        return
    disk.sync(target)
    disk.sync(target.parent)
    disk.sync(source.parent)


def copy_linked(disk: DurableFiles, link: Path, file: Path, target: Path) -> None:
    """Copy the file that a symbolic link leads to, and remove the link. Raises OSError."""
    _copy_and_remove(disk, file, target, link)


def _copy_and_remove(disk: DurableFiles, source: Path, target: Path, removed: Path) -> None:
    part = _part(target)
    try:
        disk.copy(source, part)
        disk.rename(part, target)
        disk.sync(target.parent)
        disk.remove(removed)
    except OSError:
        part.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        raise


def is_full(problem: BaseException) -> bool:
    """Whether an error means that the disk is full, which may end without a restart."""
    if isinstance(problem, sqlite3.OperationalError):
        return problem.sqlite_errorname == "SQLITE_FULL"
    return isinstance(problem, OSError) and problem.errno in _NO_ROOM


def free_path(path: Path, taken: Container[str] = ()) -> Path:
    """This path, or with a number before its suffix where something is there, or it is `taken`.

    A name that is too long is shortened. Nothing is reserved: callers that may run at the same
    time need a lock, and `taken` for names that are chosen and not written.
    """
    path = _numbered(path, 1)
    if not _is_used(path, taken):
        return path
    # A camera may send 100 000 files of one name: their numbers are not tried one by one.
    low, high = 1, 2
    while _is_used(_numbered(path, high), taken):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if _is_used(_numbered(path, middle), taken):
            low = middle
        else:
            high = middle
    return _numbered(path, high)


def _is_used(path: Path, taken: Container[str]) -> bool:
    # A link that leads nowhere is something, too.
    return str(path) in taken or path.exists() or path.is_symlink()


def _numbered(path: Path, number: int) -> Path:
    stem, suffix = path.stem, path.suffix
    if len(suffix) > _LONGEST_SUFFIX:
        stem, suffix = path.name, ""
    end = f"-{number}{suffix}" if number > 1 else suffix
    return path.with_name(shortened(stem, longest_name(path.parent) - len(os.fsencode(end))) + end)


def longest_name(folder: Path) -> int:
    """Return the bytes of the longest name to write in a folder, so that others fit beside it."""
    try:
        return min(LONGEST_NAME, os.pathconf(folder, "PC_NAME_MAX") - _BESIDE)
    except (OSError, ValueError):  # the folder is not made yet, or the system does not tell
        return LONGEST_NAME


def shortened(text: str, limit: int) -> str:
    """Return the longest beginning of a name that has at most `limit` bytes in the file system."""
    while len(os.fsencode(text)) > limit:
        text = text[:-1]
    return text
