"""Whether a broker can be reached at a url, and where this machine's own one would be.

A gateway that finds no broker at a url of this machine may start one. It leaves the configured
port to the system's broker, which may come later, and takes one that follows from it, where every
program of this machine finds it.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from typing import Final

from fogmqtt.transport.link import Address, parse_url
from fogmqtt.transport.own_password import USER, password_at

#: The port of a broker that a gateway starts itself, above the configured one (or below it).
_OWN_PORT_OFFSET: Final = 10_000
_HIGHEST_PORT: Final = 65_535
#: Seconds in which a program of this machine must accept a connection, and answer.
_PATIENCE_S: Final = 0.5
_CONNACK: Final = 0x20


def is_local(url: str) -> bool:
    """Return whether the url names the loopback interface of this machine."""
    host = parse_url(url).host
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_listening(url: str) -> bool:
    """Return whether a program accepts connections at the url."""
    try:
        with _connect(parse_url(url)):
            return True
    except OSError:
        return False


def is_broker(url: str) -> bool:
    """Return whether a program at the url answers as an MQTT broker does."""
    # Some brokers answer one version only, and some answer nobody without a password.
    password = password_at(parse_url(url).port) if is_local(url) else ""
    packets = (_connect_packet(level, password) for level in (5, 4))
    return any(_answers(url, packet) for packet in packets)


def own_url(url: str) -> str:
    """Return the url of a broker that a gateway starts itself because none is at `url`.

    It is empty where a gateway starts none: for another machine, TLS or a WebSocket.
    """
    address = parse_url(url)
    if address.tls or address.path or not is_local(url):
        return ""
    port = address.port + _OWN_PORT_OFFSET
    if port > _HIGHEST_PORT:
        port = address.port - _OWN_PORT_OFFSET
    return f"mqtt://{Address(address.host, port)}"


def _answers(url: str, packet: bytes) -> bool:
    try:
        with _connect(parse_url(url)) as sock:
            sock.sendall(packet)
            return sock.recv(1) == bytes([_CONNACK])
    except OSError:
        return False


def _connect(address: Address) -> socket.socket:
    sock = socket.create_connection((address.host, address.port), _PATIENCE_S)
    sock.settimeout(_PATIENCE_S)
    return sock


def _connect_packet(level: int, password: str) -> bytes:
    """The CONNECT of a client, anonymous without a password: a broker answers it or refuses it.

    `level` is 5 for MQTT 5 and 4 for 3.1.1.
    """
    name = f"fog-probe-{secrets.token_hex(4)}".encode()
    properties = b"\x00" if level == 5 else b""
    texts = [name, USER.encode(), password.encode()] if password else [name]
    flags = 0xC2 if password else 0x02
    head = b"\x00\x04MQTT" + bytes([level, flags]) + b"\x00\x0a" + properties
    body = head + b"".join(len(text).to_bytes(2, "big") + text for text in texts)
    return bytes([0x10, len(body)]) + body
