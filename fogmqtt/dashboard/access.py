"""Who a request comes from, and whether it may do what it asks.

A program of this machine needs no token, unless a proxy brought its request. Everybody else needs
one, or a proxy that the configuration trusts to know its users. A page of another site can make a
browser send requests, so a request that changes something must come from our own page, and the name
under which the browser found us must be one of ours.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from fogmqtt.config.addresses import Network, check_host, parse_networks
from fogmqtt.config.schema import DashboardSettings
from fogmqtt.dashboard.problems import Problem
from fogmqtt.dashboard.tokens import Role, Tokens, Tries
from fogmqtt.log import one_line

SAFE_METHODS: Final = frozenset(("GET", "HEAD", "OPTIONS"))
#: Headers that a proxy adds. A request with one of them does not come from where its socket says.
_FORWARDED: Final = ("forwarded", "via", "x-real-ip", "x-ingress-path")
_FORWARDED_PREFIX: Final = "x-forwarded-"
_INGRESS = re.compile(r"/api/hassio_ingress/[A-Za-z0-9_-]+")
_BASE = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*){1,8}")
_LONGEST_USER: Final = 64


#: The user that a program of this machine is.
_LOCAL: Final = "local"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks: for decisions, and for the log of acts."""

    address: str
    #: None: somebody without a token.
    role: Role | None
    user: str
    #: The path under which a proxy shows us; empty at the root.
    base: str = ""
    scheme: str = "http"
    #: The page may be shown in a frame of the same site, as Home Assistant does.
    may_be_framed: bool = False

    @property
    def who(self) -> str:
        """The visitor for the gateway's log, such as `ana (operator) at 192.168.1.7`."""
        if self.user == _LOCAL:
            return "this machine"
        return f"{self.user or 'somebody'} ({self.role or 'no role'}) at {self.address}"


@dataclass(slots=True)
class Door:
    """Decides for all requests. `tokens` is None where only this machine may come in."""

    settings: DashboardSettings
    tokens: Tokens | None
    #: The name of the cookie. Cookies of all ports of a host are one set.
    cookie_name: str
    tries: Tries = field(default_factory=Tries)
    _trusted: tuple[Network, ...] = ()
    _hosts: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self._trusted = parse_networks(self.settings.proxy.trusted)
        self._hosts = frozenset((*map(check_host, self.settings.hosts), *_own_names()))

    def visitor(self, headers: Headers, peer: str, scheme: str) -> Visitor:
        """Return who sent a request. Raises Problem for a wrong host or token, or a bad header."""
        address = _plain(peer)
        is_trusted = self._is_trusted(address)
        if not is_trusted:
            self._check_host(headers.get("host", ""))
        is_forwarded = is_trusted or _is_forwarded(headers)
        base, may_be_framed = _base(headers) if is_trusted else ("", False)
        if is_trusted:
            address = self._forwarded_address(headers, address)
            if headers.get("x-forwarded-proto", scheme) in ("http", "https"):
                scheme = headers.get("x-forwarded-proto", scheme)
        role, user = self._who(headers, address, is_trusted=is_trusted, is_forwarded=is_forwarded)
        return Visitor(address, role, user, base, scheme, may_be_framed)

    def check_origin(self, method: str, headers: Headers, peer: str) -> None:
        """Raise Problem if a page of another site sent a request that changes something."""
        if method in SAFE_METHODS:
            return
        origin = headers.get("origin")
        if origin is None:
            if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
                raise _cross_site("another site")
            return
        host = headers.get("host", "")
        if self._is_trusted(_plain(peer)):
            host = headers.get("x-forwarded-host", host)
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or parts.netloc.lower() != host.lower():
            raise _cross_site(one_line(origin)[:80])

    def log_in(self, token: str, address: str) -> Role:
        """Return the role of a token. Raises Problem for a wrong one, and after too many."""
        if self.tokens is None:
            raise Problem(
                "no-tokens",
                404,
                "There is no token: only this machine may come in, and needs none; set "
                "dashboard.listen or dashboard.proxy.trusted to let others in.",
            )
        now = time.monotonic()
        wait_s = self.tries.wait_s(address, now)
        if wait_s:
            raise Problem(
                "too-many-tries",
                429,
                f"Too many wrong tokens came from {address}; try again in {wait_s:.0f} s.",
                retry_after_s=wait_s,
            )
        role = self.tokens.role_of(token)
        if role is None:
            self.tries.wrong(address, now)
            raise Problem(
                "wrong-token",
                401,
                "This token is wrong; the right one is in the token file on the gateway's machine.",
                headers=_CHALLENGE,
            )
        return role

    def require(self, visitor: Visitor, role: Role) -> None:
        """Raise Problem if the visitor may not do what this role may."""
        if visitor.role is None and self.tokens is None:
            raise Problem(
                "proxy",
                403,
                "This request came through a proxy, and only this machine may come in; set "
                "dashboard.proxy.trusted to the proxy's address, and the next start makes a token.",
            )
        if visitor.role is None:
            raise Problem(
                "no-token",
                401,
                "A token is needed: open the address that the first start printed, or send "
                "Authorization: Bearer with the token of the token file.",
                headers=_CHALLENGE,
            )
        if role == "operator" and visitor.role != "operator":
            raise Problem(
                "viewer",
                403,
                "A viewer may only look; use the operator's token to change something.",
            )

    def _who(
        self, headers: Headers, address: str, *, is_trusted: bool, is_forwarded: bool
    ) -> tuple[Role | None, str]:
        header = self.settings.proxy.user_header
        if is_trusted and header and (user := headers.get(header)):
            return self.settings.proxy.role, one_line(user)[:_LONGEST_USER]
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.tokens is not None:
            return self.log_in(token.strip(), address), "token"
        if self.tokens is not None:
            cookie = cookie_parser(headers.get("cookie", "")).get(self.cookie_name, "")
            if role := self.tokens.role_of_cookie(cookie):
                return role, "browser"
        if _is_loopback(address) and not is_forwarded:
            return "operator", _LOCAL
        return None, ""

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)

    def _forwarded_address(self, headers: Headers, address: str) -> str:
        """Return the last address before the proxies that we trust."""
        hops = [hop.strip() for hop in headers.get("x-forwarded-for", "").split(",") if hop.strip()]
        for hop in reversed(hops):
            plain = _plain(hop)
            if not _is_address(plain):
                break
            address = plain
            if not self._is_trusted(plain):
                break
        return address

    def _check_host(self, host: str) -> None:
        """Refuse names that are not ours: a foreign name may lead a browser to this address.

        A page of an address can only be one that this address serves, so addresses may be any.
        """
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            name = ""
        if name in self._hosts or _is_address(name):
            return
        shown = one_line(name or host)[:80]
        raise Problem(
            "wrong-host",
            421,
            f"{shown!r} is not a name of this dashboard; use an address, or add the name to "
            "dashboard.hosts.",
        )


#: What a program is told that has no token.
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="fogmqtt"'}


def _cross_site(origin: str) -> Problem:
    return Problem(
        "cross-site", 403, f"This request was sent by a page of {origin}, not by the dashboard's."
    )


def _base(headers: Headers) -> tuple[str, bool]:
    """Return the path that a trusted proxy names, and whether it is Home Assistant's ingress."""
    ingress = headers.get("x-ingress-path")
    if ingress is not None:
        if _INGRESS.fullmatch(ingress) is None:
            raise Problem("bad-header", 400, "X-Ingress-Path is not a path of Home Assistant.")
        return ingress, True
    prefix = headers.get("x-forwarded-prefix", "").rstrip("/")
    if prefix and _BASE.fullmatch(prefix) is None:
        raise Problem("bad-header", 400, "X-Forwarded-Prefix is not a path like /fog.")
    return prefix, False


def _is_forwarded(headers: Headers) -> bool:
    return any(name in _FORWARDED or name.startswith(_FORWARDED_PREFIX) for name in headers)


def _plain(address: str) -> str:
    """Return an IPv4 address that arrived at an IPv6 socket as IPv4."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(address: str) -> bool:
    return _is_address(address) and ipaddress.ip_address(address).is_loopback


def _own_names() -> tuple[str, ...]:
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return ("localhost", name, short, f"{short}.local")
