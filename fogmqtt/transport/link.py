"""The address of the broker and the identity of the client. Imports no MQTT library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, quote, urlsplit

from fogmqtt.errors import ConfigError
from fogmqtt.transport.own_password import USER, password_at

Protocol = Literal[5, "3.1.1"]
Client = Literal["fast", "plain"]

#: The port of MQTT over TLS.
TLS_PORT = 8883
_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": TLS_PORT, "ws": 80, "wss": 443}
_TLS_SCHEMES = ("mqtts", "wss")
_WEBSOCKET_SCHEMES = ("ws", "wss")
#: The path of a WebSocket if the url has none. Most brokers use it, and Mosquitto accepts any.
_DEFAULT_PATH = "/mqtt"


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed `broker.url`."""

    host: str
    port: int
    tls: bool = False
    #: The path of a WebSocket, which begins with a slash; empty for MQTT over TCP.
    path: str = ""

    def __str__(self) -> str:
        """Return `host:port`, with an IPv6 host in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_url(url: str) -> Address:
    """Parse `mqtt://host[:1883]`, or the same with `mqtts` (port 8883), `ws` (80) or `wss` (443).

    A url with `ws` or `wss` may end with the path of the WebSocket, /mqtt by default.

    Raises ConfigError, which names broker.url, for anything else. It never shows a password.
    """
    if "@" in url:
        raise ConfigError(
            "broker.url: the url is shown and logged, so it must not contain a user or password; "
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
        tls=parts.scheme in _TLS_SCHEMES,
        path=_websocket_path(parts),
    )


def _websocket_path(parts: SplitResult) -> str:
    if parts.scheme not in _WEBSOCKET_SCHEMES:
        return ""
    return quote(parts.path, safe="/%:@!$&'()*+,;=~") or _DEFAULT_PATH


def _check(url: str, parts: SplitResult) -> None:
    if parts.scheme not in _DEFAULT_PORTS:
        named = repr(url) if ":" in url or "." in url else "the value, which may be a password,"
        raise ConfigError(
            f"broker.url: {named} does not begin with mqtt://, mqtts://, ws:// or wss://; "
            "use the form mqtt://192.168.1.10:1883"
        )
    if not parts.hostname:
        raise ConfigError(f"broker.url: {url!r} names no host; use the form mqtt://host:1883")
    if parts.port == 0:
        default = _DEFAULT_PORTS[parts.scheme]
        raise ConfigError(f"broker.url: {url!r}: port 0 is invalid; leave it out for {default}")
    has_path = bool(parts.path.strip("/")) and parts.scheme not in _WEBSOCKET_SCHEMES
    if has_path or parts.query or parts.fragment:
        allowed = "only a path" if parts.scheme in _WEBSOCKET_SCHEMES else "nothing"
        raise ConfigError(f"broker.url: {url!r}: {allowed} may follow the port; remove the rest")


def without_share(topic_filter: str) -> str:
    """Return a filter without the prefix `$share/<group>/` of a shared subscription."""
    return topic_filter.split("/", 2)[2] if topic_filter.startswith("$share/") else topic_filter


def short_client_id(client_id: str) -> str:
    """Return a client id for a broker that refuses this one: always the same 23 letters and digits.

    MQTT promises no more than 23, and neither - nor _.
    """
    return f"f{blake2b(client_id.encode(), digest_size=11).hexdigest()}"


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


@dataclass(frozen=True, slots=True)
class Link:
    """The address of the broker, the identity of the client, and the protocol version.

    `others` are the urls of brokers that are tried after that at `url`, in this order.
    `ca`, `cert` and `key` are paths of PEM files. The broker takes the client for gone after one
    and a half `keepalive_s` without a packet. An MQTT 5 broker keeps unacknowledged messages for
    `session_s` seconds after a lost connection. `has_counters` is False if the broker is known to
    close the connection of a client that subscribes to `$SYS`. `client` says who reads and writes
    packets: transport/fast_client.py or paho. While nothing listens at `url`, a broker at `own_url`
    is used, which a gateway of this machine started; empty: none. An attempt to connect ends
    after `connect_timeout_s`. Raises ConfigError if fields contradict each other or a file is
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
    has_counters: bool = True
    client: Client = "fast"
    connect_timeout_s: float = 5.0
    own_url: str = ""
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        tls = any(parse_url(url).tls for url in (self.url, *self.others))
        if not 1 <= self.keepalive_s <= 65_535:
            raise ConfigError(f"broker.keepalive_s: {self.keepalive_s} is not from 1 to 65535")
        if bool(self.cert) != bool(self.key):
            raise ConfigError("broker.cert and broker.key: only one is set; set both or none")
        for name in ("ca", "cert", "key"):
            self._check_file(name, getattr(self, name), tls)

    def each(self) -> Iterator[Link]:
        """Yield a link to each broker alone, in the order in which they are tried."""
        for url in (self.url, *self.others):
            if parse_url(url).tls:
                yield replace(self, url=url, others=())
            else:
                yield replace(self, url=url, others=(), ca=None, cert=None, key=None)

    def to_own(self) -> Link:
        """Return a link to the broker that a gateway of this machine started. It has no session."""
        return replace(self, url=self.own_url, others=(), session_s=0)

    @property
    def address(self) -> Address:
        """The parsed url."""
        return parse_url(self.url)

    @property
    def credentials(self) -> tuple[str, str | None] | None:
        """The user and the password, or None without a user.

        A broker that a gateway of this user started has a user of its own.
        """
        if self.username:
            return self.username, self.password or None
        address = self.address
        if address.tls or not _is_loopback(address.host):
            return None
        password = password_at(address.port)
        return (USER, password) if password else None

    @staticmethod
    def _check_file(name: str, path: str | None, tls: bool) -> None:
        if not path:
            return
        if not tls:
            raise ConfigError(
                f"broker.{name}: a certificate needs TLS; use mqtts:// or wss:// in broker.url"
            )
        if not Path(path).is_file():
            raise ConfigError(f"broker.{name}: {path!r} is not a file; give the path of a PEM file")
