"""Folders in which others may write: nobody can exchange them for others while they are used.

Whoever may write into the inbox could replace a subfolder or a file by a link, between the moment
it is looked at and the moment it is moved, and so let the gateway read or write elsewhere. So each
subfolder is opened without following links, and used by its descriptor.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fogmqtt.errors import FogError
from fogmqtt.log import shown_name

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: Linux names an open folder so, and calls with such a path reach this folder and no other.
_DESCRIPTORS: Final = "/proc/self/fd" if sys.platform == "linux" else ""


@contextmanager
def held_folder(root: Path, folder: Path, *, make: bool = False) -> Iterator[Path]:
    """Hold a folder at or below `root`; yields a path that leads to it as long as the block runs.

    Links at and above `root` are the owner's and followed; below it none is. With `make`, missing
    folders are made. Raises OSError, which names the real path.
    """
    descriptor = os.open(root, _FOLDER)
    try:
        if folder.is_relative_to(root):
            for name in folder.relative_to(root).parts:
                inner = _open_below(descriptor, name, make)
                os.close(descriptor)
                descriptor = inner
        held = Path(_DESCRIPTORS, str(descriptor)) if _DESCRIPTORS else folder
        try:
            yield held
        except OSError as problem:
            problem.filename = _real(problem.filename, held, folder)
            problem.filename2 = _real(problem.filename2, held, folder)
            raise
    except OSError as problem:
        if problem.errno in (errno.ELOOP, errno.ENOTDIR) and not problem.filename2:
            problem.strerror = f"{problem.strerror}; below {root} it must be a folder, and no link"
            problem.filename = str(folder)
        raise
    finally:
        os.close(descriptor)


def _open_below(descriptor: int, name: str, make: bool) -> int:
    if make:
        try:
            os.mkdir(name, dir_fd=descriptor)
        except FileExistsError:
            pass
        else:
            os.fsync(descriptor)
    return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)


def _real(name: object, held: Path, folder: Path) -> object:
    text = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""
    return str(folder / Path(text).relative_to(held)) if text.startswith(f"{held}/") else name


def is_own(status: os.stat_result) -> bool:
    """Whether a link was made by the user of this process, or by the machine's owner.

    Another user's link would let this process read what that user may not.
    """
    return status.st_uid in (os.geteuid(), 0)


def linked_file(path: Path) -> Path | None:
    """Return the file that a link leads to, None if `path` is a regular file itself.

    Raises FogError for a link of another user and for what is no file, and OSError.
    """
    descriptor = os.open(path, _LINK)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            return None
        if not stat.S_ISLNK(status.st_mode):
            raise FogError(f"{shown_name(path.name)} is no regular file")
        if not is_own(status):
            raise FogError(
                f"{shown_name(path.name)} is a link of another user, which is not followed"
            )
        # The link that was looked at, and not one that has taken its place.
        target = os.readlink("", dir_fd=descriptor) if _DESCRIPTORS else path.readlink()
    finally:
        os.close(descriptor)
    return Path(os.path.realpath(path.parent / target))


#: Opens a link itself, or a file without reading it; never waits for a pipe.
_LINK: Final = (
    os.O_CLOEXEC
    | os.O_NOFOLLOW
    | (os.O_PATH if sys.platform == "linux" else os.O_RDONLY | os.O_NONBLOCK)
)
