"""The folder of a gateway that boards can join: the authority, the ledger, the broker's files."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from fogmqtt.errors import ConfigError, reason_of
from fogmqtt.joining import broker_files
from fogmqtt.joining.authority import CERTIFICATE_LIFE as LIFE
from fogmqtt.joining.authority import Authority, end_of, make_request, names_of, new_key
from fogmqtt.joining.ledger import Ledger, LedgerFile
from fogmqtt.joining.names import at, host_name, is_loopback, own_addresses
from fogmqtt.joining.private_file import write_private
from fogmqtt.transport.mosquitto_password import password_line

_SETTINGS: Final = "site.json"


class SiteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What `fog-gateway init` was told."""

    gateway: str
    prefix: str
    #: Of the broker, for boards and for this machine, and of the join port.
    port: int
    local_port: int
    join_port: int
    #: Under which boards reach this machine; none: whatever this machine has now.
    addresses: tuple[str, ...] = ()


class Site:
    """The folder. Making and reading need no network."""

    def __init__(self, folder: Path, settings: SiteSettings) -> None:
        self.folder = folder.absolute()
        self.settings = settings
        self.broker = self.folder / "broker"
        self.ledger = LedgerFile(self.folder / "ledger.json")
        self.config = self.folder / "config.yaml"
        self.broker_config = self.broker / "mosquitto.conf"
        self.password_file = self.broker / f"{settings.gateway}.password"

    @classmethod
    def open(cls, folder: Path) -> Site:
        """Return the site in a folder. Raises ConfigError."""
        path = folder / _SETTINGS
        try:
            return cls(folder, msgspec.json.decode(path.read_bytes(), type=SiteSettings))
        except FileNotFoundError:
            raise ConfigError(
                f"joining.folder: {folder} was not made by fog-gateway init; run it first, or name "
                "the folder that it made"
            ) from None
        except OSError as problem:
            raise ConfigError(f"joining.folder: {path}: {reason_of(problem, path)}") from None
        except msgspec.DecodeError as problem:
            raise ConfigError(f"{path} is damaged: {problem}; run fog-gateway init again") from None

    @cached_property
    def authority(self) -> Authority:
        """The authority. Raises ConfigError if its files cannot be read."""
        texts = []
        for name in ("ca.crt", "ca.key"):
            path = self.folder / name
            try:
                texts.append(path.read_text("ascii"))
            except (OSError, UnicodeDecodeError) as problem:
                reason = reason_of(problem, path) if isinstance(problem, OSError) else "damaged"
                raise ConfigError(f"{path}: {reason}; run this as its owner") from None
        return Authority(*texts)

    @property
    def certificate(self) -> Path:
        """The certificate of the broker and of the join port."""
        return self.broker / "broker.crt"

    @property
    def key(self) -> Path:
        """Its key."""
        return self.broker / "broker.key"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Under which boards reach this machine, the best first."""
        if self.settings.addresses:
            return self.settings.addresses
        # A board may wait ten seconds for a name that nobody on its network knows.
        return (*own_addresses(), f"{host_name()}.local")

    @property
    def is_loopback_only(self) -> bool:
        """Whether only programs of this machine can be reached so."""
        return all(map(is_loopback, self.addresses))

    @property
    def brokers(self) -> tuple[str, ...]:
        """The urls of the broker for boards."""
        return tuple(f"mqtts://{at(host, self.settings.port)}" for host in self.addresses)

    @property
    def join_urls(self) -> tuple[str, ...]:
        """Where boards send their requests."""
        return tuple(f"https://{at(host, self.settings.join_port)}" for host in self.addresses)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Let commands know during the block that a gateway serves this folder."""
        with self._opened() as folder:
            fcntl.flock(folder, fcntl.LOCK_SH)
            yield

    @property
    def is_served(self) -> bool:
        """Whether a gateway of this machine serves this folder."""
        with self._opened() as folder:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    @contextmanager
    def _opened(self) -> Iterator[int]:
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield folder
        finally:
            os.close(folder)

    def make(self, now: datetime) -> None:
        """Write settings, authority, ledger, password and certificates. What is there is kept.

        The settings and what follows from them are written anew.
        """
        self.broker.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self.folder / _SETTINGS, msgspec.json.encode(self.settings) + b"\n")
        if not (self.folder / "ca.key").exists():
            authority, key = Authority.make(self.settings.gateway, now)
            write_private(self.folder / "ca.key", key.encode())
            write_private(self.folder / "ca.crt", authority.pem.encode(), 0o644)
        if not self.key.exists():
            write_private(self.key, new_key().encode())
        if not self.password_file.exists():
            write_private(self.password_file, secrets.token_hex(16).encode() + b"\n")
        line = password_line(self.settings.gateway, self.password_file.read_text().strip())
        write_private(self.broker / "passwords", line.encode())
        self.renew_certificate(now)
        with self.ledger.changing() as ledger:
            self._write_lists(ledger)

    def write_configuration(self, user: str, version: str) -> None:
        """Write mosquitto.conf."""
        text = broker_files.configuration(
            folder=self.broker,
            ca=self.folder / "ca.crt",
            user=user,
            version=version,
            port=self.settings.port,
            local_port=self.settings.local_port,
            loopback_only=self.is_loopback_only,
        )
        write_private(self.broker_config, text.encode())

    def renew_certificate(self, now: datetime) -> bool:
        """Give the broker a new certificate if names are missing in it, or two thirds are over.

        Return whether it has a new one.
        """
        names = {*self.addresses, host_name(), f"{host_name()}.local", "localhost"}
        names |= {"127.0.0.1", "::1", *own_addresses()}
        if self.certificate.exists():
            text = self.certificate.read_text()
            if names <= names_of(text) and end_of(text) - now > LIFE / 3:
                return False
        request = make_request(self.key.read_text(), self.settings.gateway)
        signed = self.authority.sign_server(request, sorted(names), now)
        write_private(self.certificate, signed.pem.encode())
        return True

    def apply(self, ledger: Ledger) -> bool:
        """Write the access list and the revoked certificates, and let the broker read them.

        Return whether the broker runs here and was told.
        """
        self._write_lists(ledger)
        return self.reload_broker()

    def renew_access_list(self) -> bool:
        """Write the access list if this version of fogmqtt gives other rights; return whether."""
        text = self._access_list(self.ledger.read())
        path = self.broker / "acl"
        if path.exists() and path.read_text() == text:
            return False
        write_private(path, text.encode())
        return True

    def reload_broker(self) -> bool:
        """Let the broker read its files again; False if it does not run here."""
        return broker_files.reload(self.broker_config)

    def give_to(self, user: int, group: int) -> None:
        """Let all files belong to a user, if root made them for somebody else."""
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, user, group, follow_symlinks=False)

    def _write_lists(self, ledger: Ledger) -> None:
        serials: Iterable[int] = (one.serial for one in ledger.revocations)
        write_private(self.broker / "acl", self._access_list(ledger).encode())
        write_private(self.broker / "revoked.crl", self.authority.revocations(serials).encode())

    def _access_list(self, ledger: Ledger) -> str:
        settings = self.settings
        return broker_files.access_list(settings.gateway, settings.prefix, ledger.members)
