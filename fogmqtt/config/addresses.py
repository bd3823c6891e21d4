"""Where the dashboard listens, and which addresses and names it believes."""

from __future__ import annotations

import ipaddress
import re
from typing import TypeAlias

from fogmqtt.errors import ConfigError

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/\s]+)):([0-9]{1,5})")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")


def parse_listen(text: str, key: str = "dashboard.listen") -> tuple[str, int]:
    """Return host and port of `host:port` or `[address]:port`. Raises ConfigError."""
    found = _LISTEN.fullmatch(text.strip())
    if found is None or int(found[3]) > 65_535:
        raise ConfigError(
            f"{key}: {text!r} is not host:port; write it like 127.0.0.1:8080, "
            "0.0.0.0:8080 or [::1]:8080"
        )
    return found[1] or found[2], int(found[3])


def check_host(text: str) -> str:
    """Return a name of `dashboard.hosts`, in lower case and without port. Raises ConfigError."""
    if _HOST.fullmatch(text) is None:
        raise ConfigError(
            f"dashboard.hosts: {text!r} is not the name of a machine; write it like "
            "fog.example.org, without https:// and without a port"
        )
    return text.lower()


def parse_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Return the addresses of proxies. Raises ConfigError."""
    return tuple(map(_network, texts))


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as problem:
        raise ConfigError(
            f"dashboard.proxy.trusted: {text!r} is no address: {problem}; write 172.30.32.2 or "
            "10.0.0.0/8"
        ) from None


def check_header(text: str) -> str:
    """Return the name of a header, or "". Raises ConfigError."""
    if text and _HEADER.fullmatch(text) is None:
        raise ConfigError(
            f"dashboard.proxy.user_header: {text!r} is not the name of a header; write it like "
            "X-Remote-User"
        )
    return text
