"""The names and addresses under which other machines reach this one."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final

import ifaddr

from fogmqtt.errors import UsageError

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
#: Interfaces of containers and virtual machines, which no board can reach.
_INNER: Final = ("docker", "br-", "veth", "virbr", "cni", "lxc", "lxdbr", "podman")


def host_name() -> str:
    """Return the first label of this machine's name; `localhost` if it is no name in DNS."""
    label = socket.gethostname().lower().partition(".")[0]
    return label if _LABEL.fullmatch(label) else "localhost"


def own_addresses() -> tuple[str, ...]:
    """Return the addresses of this machine in its networks, none of loopback.

    The one by which it reaches other networks comes first, and IPv4 before IPv6.
    """
    found = []
    for adapter in ifaddr.get_adapters():
        if str(adapter.name).startswith(_INNER):
            continue
        for one in adapter.ips:
            text = one.ip if isinstance(one.ip, str) else one.ip[0]
            address = ipaddress.ip_address(text)
            # A board would need the name of its own interface for a link-local address.
            if not address.is_loopback and not address.is_link_local:
                found.append(address)
    main = _main_address()
    found.sort(key=lambda one: (str(one) != main, one.version, int(one)))
    return tuple(map(str, found))


def _main_address() -> str:
    """Return the address by which this machine reaches other networks; empty if it does not."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return ""
        return str(sock.getsockname()[0])


def check_addresses(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return names or addresses that a user gave. Raises UsageError."""
    for text in texts:
        labels = text.lower().split(".")
        if not _is_address(text) and not all(map(_LABEL.fullmatch, labels)):
            raise UsageError(
                f"--address: {text!r} is no address and no name; write it like 192.168.1.10 or "
                "fog.example.org"
            )
    return texts


def is_loopback(text: str) -> bool:
    """Return whether a name or address means this machine only."""
    return text == "localhost" or (_is_address(text) and ipaddress.ip_address(text).is_loopback)


def at(host: str, port: int) -> str:
    """Return `host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
