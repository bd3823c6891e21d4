"""What a board keeps after it has joined: who it is, its certificate, and where its gateway is.

The agent reads it at each start, so nothing heavy is imported here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from fogmqtt.errors import ConfigError, reason_of
from fogmqtt.joining.private_file import write_private

#: Where root keeps identities, and a service reads them.
SYSTEM: Final = Path("/etc/fogmqtt")


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """The saved identity of one board. Certificate and key stand in `<id>.pem` beside it."""

    id: str
    gateway: str
    prefix: str
    brokers: tuple[str, ...]
    join: tuple[str, ...]
    #: The hash of the authority's certificate.
    pin: str
    issued: datetime
    expires: datetime
    #: The hash of the token that it joined with: the same invitation again changes nothing.
    token: str = ""

    def ca(self, folder: Path) -> Path:
        """The certificate of the authority."""
        return folder / f"{self.id}.ca.crt"

    def pem(self, folder: Path) -> Path:
        """The board's certificate and its key, in one file, so that both change at once."""
        return folder / f"{self.id}.pem"

    def encode(self) -> bytes:
        """Return the content of its file."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    def is_old(self, now: datetime) -> bool:
        """Whether two thirds of its life are over."""
        return now >= self.issued + (self.expires - self.issued) * 2 / 3


def folders(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where identities may be, that of this user first."""
    named = environ.get("XDG_CONFIG_HOME")
    own = Path(named or Path.home() / ".config") / "fogmqtt"
    is_system = os.geteuid() == 0 and not named and not own.is_dir()
    return (SYSTEM,) if is_system else (own, SYSTEM)


def load_identity(device: str, places: tuple[Path, ...]) -> tuple[Identity, Path] | None:
    """Return the identity of a board and its folder, if it has joined. Raises ConfigError."""
    for folder in places:
        path = folder / f"{device}.json"
        try:
            identity = msgspec.json.decode(path.read_bytes(), type=Identity)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as problem:
            if isinstance(problem, PermissionError) and folder != places[0]:
                continue  # that of a service, which this user does not run
            raise ConfigError(f"{path}: {reason_of(problem, path)}") from None
        except msgspec.DecodeError as problem:
            raise ConfigError(f"{path} is damaged: {problem}; remove it, and join again") from None
        return identity, folder
    return None


def save_changed(identity: Identity, folder: Path) -> None:
    """Save an identity whose gateway has other addresses. Raises OSError."""
    write_private(folder / f"{identity.id}.json", identity.encode())


def forget_identity(device: str, folder: Path) -> None:
    """Remove the identity of a board."""
    for suffix in ("json", "pem", "ca.crt"):
        (folder / f"{device}.{suffix}").unlink(missing_ok=True)
