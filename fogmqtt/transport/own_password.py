"""The password of a broker that a gateway starts itself: only its user can read it.

It is in a file for each port, as long as the broker runs. A program that connects to a port of this
machine without a user looks for it. The gateway holds a lock on its file until it ends, however it
ends, so a file without a lock is one that a killed gateway left behind.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from fogmqtt.errors import NoBroker

#: The user whose password it is.
USER: Final = "fogmqtt"


@dataclass(frozen=True, slots=True)
class OwnPassword:
    """The password of a broker that runs, in its file."""

    port: int
    text: str = field(repr=False)
    #: Holds the lock while it is open.
    _file: BinaryIO

    @property
    def options(self) -> str:
        """What Mosquitto's own programs need to log in, as a shell takes it."""
        return f'-p {self.port} -u {USER} -P "$(cat {_folder() / str(self.port)})"'

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A private folder during the block. One that a killed gateway left goes with its file."""
        place = _folder() / f"{self.port}.start"
        place.mkdir(mode=0o700, exist_ok=True)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def forget(self) -> None:
        """Remove the file, and the folder of all of them with the last one; idempotent."""
        if self._file.closed:
            return
        with self._file, suppress(OSError), _locked() as folder:
            path = folder / str(self.port)
            if os.path.samestat(os.fstat(self._file.fileno()), path.stat()):
                path.unlink()
            folder.rmdir()  # another broker's file keeps it


def make_password(port: int) -> OwnPassword:
    """Write down a new password for the broker at a port. Raises NoBroker.

    What killed gateways left behind is removed.
    """
    try:
        with _locked() as folder:
            _remove_left_behind(folder)
            return _write(folder / str(port), port)
    except OSError as problem:
        raise NoBroker(
            f"broker.embedded: its password cannot be written down: {problem}; make a folder for "
            "temporary files that can be written, or start a broker yourself"
        ) from None


def password_at(port: int) -> str:
    """Return the password of the own broker at a port of this machine; empty if there is none."""
    try:
        folder = _folder()
        return (folder / str(port)).read_text("ascii") if _is_private(folder) else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _write(path: Path, port: int) -> OwnPassword:
    """Write a password that only this user reads, and keep its file locked. Raises OSError."""
    path.unlink(missing_ok=True)
    password = secrets.token_hex(16)
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", 0)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    file.write(password.encode())
    return OwnPassword(port, password, file)


def _remove_left_behind(folder: Path) -> None:
    """Remove the files and folders of gateways that do not live any more."""
    for path in folder.iterdir():
        if not path.name.isdigit():
            continue
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # its gateway lives
                continue
        shutil.rmtree(path.with_suffix(".start"), ignore_errors=True)
        path.unlink()


@contextmanager
def _locked() -> Iterator[Path]:
    """The folder of the passwords, which no other program changes during the block.

    Raises OSError and NoBroker.
    """
    folder = _folder()
    while True:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.exists() and not _is_private(folder):
            raise NoBroker(f"broker.embedded: {folder} belongs to somebody else; remove it")
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:  # another program has just removed it, since it was empty
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists() and os.path.samestat(os.fstat(lock), folder.stat()):
                yield folder
                return
        finally:
            os.close(lock)


def _folder() -> Path:
    """Return where passwords are. Raises OSError where nothing can be written."""
    run = Path(f"/run/user/{os.geteuid()}")
    if os.access(run, os.W_OK | os.X_OK):
        return run / "fogmqtt"
    return Path(tempfile.gettempdir()) / f"fogmqtt-{os.geteuid()}"


def _is_private(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return is_ours and not status.st_mode & 0o077
