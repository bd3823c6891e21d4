"""What a client must know to reach its broker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from fogmqtt.errors import ConfigError

_PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker listens."""

    host: str
    port: int
    tls: bool


@dataclass(frozen=True, slots=True)
class Link:
    """One client's way to one broker. Raises ConfigError for a url that is none."""

    url: str
    client_id: str
    protocol: Literal[5, "3.1.1"] = 5
    username: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""
    cert: str = ""
    key: str = ""
    keepalive_s: float = 60.0

    def __post_init__(self) -> None:
        parse_url(self.url)

    @property
    def address(self) -> Address:
        return parse_url(self.url)


def parse_url(url: str) -> Address:
    """The address in `mqtt://host[:port]` or `mqtts://host[:port]`. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as problem:
        raise ConfigError(f"broker.url: {url!r}: {problem}") from None
    rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme not in _PORTS or not host or rest:
        raise ConfigError(
            f"broker.url: {url!r} is not a broker's address; write mqtt://host:1883, "
            "or mqtts://host:8883 for TLS (user and password have keys of their own)"
        )
    return Address(host, port or _PORTS[parts.scheme], parts.scheme == "mqtts")
