"""Tokens: two secrets in files, the cookies that are made from them, and wrong tries.

A cookie is signed with the token for which it was given. So it outlives a restart of the dashboard,
and a new token ends all cookies of the old one.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import os
import secrets
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from fogmqtt.errors import ConfigError, reason_of

Role = Literal["viewer", "operator"]

#: Seconds for which a browser stays logged in.
SESSION_S: Final = 30 * 86_400
#: Wrong tokens of one address in so many seconds, before it has to wait.
TRIES: Final = 5
TRIES_S: Final = 60.0
#: The addresses whose tries are remembered.
_MOST_ADDRESSES: Final = 10_000
#: Characters of a token in a file of the user's own, at least.
_SHORTEST: Final = 16


@dataclass(frozen=True, slots=True)
class Tokens:
    """The secret of each role."""

    operator: str
    viewer: str
    #: Whether this start has made the operator's.
    is_new: bool = False

    def role_of(self, token: str) -> Role | None:
        """Return whose token this is."""
        given = token.encode("utf-8", "replace")
        if hmac.compare_digest(given, self.operator.encode()):
            return "operator"
        if hmac.compare_digest(given, self.viewer.encode()):
            return "viewer"
        return None

    def cookie(self, role: Role, now: float | None = None) -> str:
        """Return the value of a new cookie."""
        ends = math.ceil((time.time() if now is None else now) + SESSION_S)
        return f"{role}.{ends}.{self._signature(role, ends)}"

    def role_of_cookie(self, value: str, now: float | None = None) -> Role | None:
        """Return the role of a cookie; None for a wrong or old one."""
        role, _, rest = value.partition(".")
        ends, _, signature = rest.partition(".")
        if role not in ("viewer", "operator") or not (ends.isascii() and ends.isdigit()):
            return None
        if len(ends) > 12 or int(ends) <= (time.time() if now is None else now):
            return None
        known: Role = "operator" if role == "operator" else "viewer"
        expected = self._signature(known, int(ends))
        given = signature.encode("utf-8", "replace")
        return known if hmac.compare_digest(given, expected.encode()) else None

    def _signature(self, role: Role, ends: int) -> str:
        secret = self.operator if role == "operator" else self.viewer
        text = f"fogmqtt session {role} {ends}"
        return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def load_tokens(operator: Path, viewer: Path) -> Tokens:
    """Read the tokens, and make those that are not there. Raises ConfigError."""
    is_new = not operator.exists()
    return Tokens(_read_or_make(operator), _read_or_make(viewer), is_new)


def _read_or_make(path: Path) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = secrets.token_urlsafe(24)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return _checked(path, path.read_text("utf-8").strip())
        with os.fdopen(descriptor, "w") as file:
            file.write(made + "\n")
        return made
    except OSError as problem:
        raise ConfigError(f"the token file {path}: {reason_of(problem, path)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the token file {path} is not UTF-8 text") from None


def _checked(path: Path, token: str) -> str:
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"the token file {path}: a token has {_SHORTEST} or more letters, digits and signs "
            "without blanks; remove the file, and the next start makes a new one"
        )
    return token


class Tries:
    """The wrong tokens of each address. IPv6 addresses of one network count as one."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str, now: float) -> float:
        """Return the seconds until this address may try again; 0 if it may now."""
        times = self._wrong.get(_network(address))
        if times is None or len(times) < TRIES:
            return 0.0
        return max(0.0, times[0] + TRIES_S - now)

    def wrong(self, address: str, now: float) -> None:
        """Note a wrong token."""
        key = _network(address)
        times = self._wrong.setdefault(key, deque(maxlen=TRIES))
        times.append(now)
        self._wrong.move_to_end(key)
        while len(self._wrong) > _MOST_ADDRESSES:
            self._wrong.popitem(last=False)


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
