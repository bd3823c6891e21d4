"""Where the broker is and who we are to it; needs no MQTT library to be imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from fogmqtt.errors import ConfigError

Protocol = Literal[5, "3.1.1"]

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed `broker.url`."""

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        """`host:port`, an IPv6 host in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_url(url: str) -> Address:
    """Take `mqtt://host[:1883]` or `mqtts://host[:8883]` apart.

    Raises ConfigError, naming broker.url, for anything else; a password in it is never shown.
    """
    if "@" in url:
        raise ConfigError(
            "broker.url: no user or password belongs in it, since it is shown and logged; "
            "set broker.username and broker.password_file"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as problem:
        raise ConfigError(f"broker.url: {url!r}: {problem}") from None
    _check(url, parts)
    return Address(
        host=parts.hostname or "",
        port=_DEFAULT_PORTS[parts.scheme] if port is None else port,
        tls=parts.scheme == "mqtts",
    )


def _check(url: str, parts: SplitResult) -> None:
    if parts.scheme not in _DEFAULT_PORTS:
        raise ConfigError(
            f"broker.url: {url!r} begins with neither mqtt:// nor mqtts://; "
            "write it like mqtt://192.168.1.10:1883"
        )
    if not parts.hostname:
        raise ConfigError(f"broker.url: {url!r} names no host; write it like mqtt://host:1883")
    if parts.port == 0:
        raise ConfigError(f"broker.url: {url!r}: port 0 cannot be dialled; leave it out for 1883")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(f"broker.url: {url!r}: nothing may follow the port")


def unshared(topic_filter: str) -> str:
    """A filter without the `$share/<group>/` in front of it."""
    return topic_filter.split("/", 2)[2] if topic_filter.startswith("$share/") else topic_filter


@dataclass(frozen=True, slots=True)
class Link:
    """How to reach the broker, as whom, and speaking what.

    `ca`, `cert` and `key` are PEM files; `keepalive_s` must exceed twice the slowest transfer
    of the largest message. For `session_s` after a loss an MQTT 5 broker holds what we did not
    acknowledge. `counters`: False where the broker is known to close the connection of whoever
    subscribes to `$SYS`. Raises ConfigError where parts contradict each other, or a file is
    missing.
    """

    url: str
    client_id: str
    protocol: Protocol = 5
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    keepalive_s: int = 60
    session_s: int = 0
    counters: bool = True

    def __post_init__(self) -> None:
        address = parse_url(self.url)
        if not 1 <= self.keepalive_s <= 65_535:
            raise ConfigError(f"broker.keepalive_s: {self.keepalive_s} is not in 1 to 65535")
        if bool(self.cert) != bool(self.key):
            raise ConfigError("broker.cert and broker.key: one without the other is no identity")
        for name in ("ca", "cert", "key"):
            self._check_file(name, getattr(self, name), address.tls)

    @property
    def address(self) -> Address:
        return parse_url(self.url)

    @property
    def credentials(self) -> tuple[str, str | None] | None:
        """User and password; None for nobody."""
        return (self.username, self.password or None) if self.username else None

    @staticmethod
    def _check_file(name: str, path: str | None, tls: bool) -> None:
        if not path:
            return
        if not tls:
            raise ConfigError(f"broker.{name}: certificates need a broker.url with mqtts://")
        if not Path(path).is_file():
            raise ConfigError(f"broker.{name}: {path!r} is not a file")
