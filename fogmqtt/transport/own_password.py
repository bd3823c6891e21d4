"""The password of a broker that a gateway starts itself: only its user can read it.

It is in a file for each port, as long as the broker runs. A program that connects to a port of this
machine without a user looks for it.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from fogmqtt.errors import NoBroker

#: The user whose password it is.
USER: Final = "fogmqtt"


def make_password(port: int) -> str:
    """Return a new password for the broker at a port, and write it down. Raises NoBroker."""
    password = secrets.token_hex(16)
    try:
        try:
            _write(port, password)
        except FileNotFoundError:  # another program has just removed the folder, which was empty
            _write(port, password)
    except OSError as problem:
        raise NoBroker(
            f"broker.embedded: its password cannot be written down: {problem}; make a folder for "
            "temporary files that can be written, or start a broker yourself"
        ) from None
    return password


def password_at(port: int) -> str:
    """Return the password of the own broker at a port of this machine; empty if there is none."""
    try:
        folder = _folder()
        return (folder / str(port)).read_text("ascii") if _is_private(folder) else ""
    except (OSError, UnicodeDecodeError):
        return ""


def forget_password(port: int, password: str) -> None:
    """Remove the file, unless it is that of a later broker, and the folder with the last file."""
    if password_at(port) != password:
        return
    with suppress(OSError):  # another broker's file keeps the folder
        (_folder() / str(port)).unlink(missing_ok=True)
        _folder().rmdir()


def _write(port: int, password: str) -> None:
    """Write a password that only this user reads. Raises OSError and NoBroker."""
    folder = _folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_private(folder):
        raise NoBroker(f"broker.embedded: {folder} belongs to somebody else; remove it")
    path = folder / str(port)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(password)


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
