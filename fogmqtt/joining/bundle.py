"""An invitation as it travels: a file for one board, or one line to type or to photograph.

The file has the certificate of the authority itself. The line has its hash: a board fetches the
certificate and compares. The token travels in neither direction later; it only signs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime
from typing import Final

import msgspec

from fogmqtt.errors import BadInvitation
from fogmqtt.wire.topics import is_id

#: What the line begins with.
MARK: Final = "FOG1"
#: The suffix of the file.
SUFFIX: Final = ".fog"
#: 16 bytes in base32 without padding.
_WORD = re.compile(r"[A-Z2-7]{26}")
_MOST_BYTES: Final = 65_536
_VERSION: Final = 1
_AGAIN: Final = "on the gateway, make a new one: fog-gateway invite"


class JoinCode(msgspec.Struct, frozen=True):
    """The line: for which board, the hash of the authority's certificate, and the token."""

    id: str
    pin: str
    token: str

    def __str__(self) -> str:
        return f"{MARK}:{self.id.upper()}:{self.pin}:{self.token}"


class JoinBundle(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The file: all that a board needs to join."""

    fogmqtt: int
    id: str
    gateway: str
    prefix: str
    #: The urls of the broker, for the board.
    brokers: tuple[str, ...]
    #: Where the board sends its request; empty in an offline file.
    join: tuple[str, ...] = ()
    #: The certificate of the authority, PEM.
    ca: str
    token: str = ""
    #: By the gateway's clock.
    expires: datetime | None = None
    #: An offline file has the board's certificate and key, PEM.
    cert: str = ""
    key: str = ""

    @property
    def code(self) -> JoinCode:
        """The same as a line."""
        return JoinCode(self.id, pin_of(self.ca), self.token)

    def encode(self) -> bytes:
        """Return the content of the file."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def read_invitation(text: str, where: str) -> JoinBundle | JoinCode:
    """Return the invitation in the content of a file, or in a line. Raises BadInvitation.

    `where` names the file or the option, for errors.
    """
    if len(text) > _MOST_BYTES:
        raise BadInvitation(f"{where}: {len(text)} characters are no invitation; {_AGAIN}")
    text = text.strip()
    return _read_file(text, where) if text.startswith("{") else _read_line(text, where)


def _read_file(text: str, where: str) -> JoinBundle:
    try:
        bundle = msgspec.json.decode(text, type=JoinBundle)
    except msgspec.ValidationError as problem:
        raise BadInvitation(f"{where}: not an invitation of fogmqtt: {problem}; {_AGAIN}") from None
    except msgspec.DecodeError:
        raise BadInvitation(f"{where}: the file is cut off or damaged; copy it again") from None
    if bundle.fogmqtt != _VERSION:
        raise BadInvitation(
            f"{where}: an invitation of version {bundle.fogmqtt}, and this program knows "
            f"{_VERSION}; install the gateway's version here"
        )
    pin_of(bundle.ca, where)
    _check_id(bundle.id, where)
    _check_id(bundle.gateway, where)
    if bundle.cert and bundle.key:
        return bundle
    if _WORD.fullmatch(bundle.token) is None or not bundle.join:
        raise BadInvitation(f"{where}: the invitation has no token or no address; {_AGAIN}")
    return bundle


def _read_line(text: str, where: str) -> JoinCode:
    mark, *parts = text.split(":")
    if mark.upper() != MARK:
        raise BadInvitation(
            f"{where}: {text[:20]!r} is no file and no code; a code begins with {MARK}: and the "
            "board's name"
        )
    if len(parts) != 3:
        raise BadInvitation(f"{where}: the code is cut off: {1 + len(parts)} parts instead of 4")
    device, pin, token = parts[0].lower(), parts[1].upper(), parts[2].upper()
    _check_id(device, where)
    for word, what in ((pin, "third"), (token, "fourth")):
        if _WORD.fullmatch(word) is None:
            raise BadInvitation(
                f"{where}: the {what} part of the code has {len(word)} characters, or wrong ones; "
                "it must have 26 of A-Z and 2-7"
            )
    return JoinCode(device, pin, token)


def _check_id(value: str, where: str) -> None:
    if not is_id(value):
        raise BadInvitation(f"{where}: {value[:40]!r} is not the name of a board; {_AGAIN}")


def pin_of(certificate: str, where: str = "ca") -> str:
    """Return the hash by which a line names an authority: 128 bits of SHA-256."""
    return _word(hashlib.sha256(_der_of(certificate, where)).digest()[:16])


def _der_of(pem: str, where: str) -> bytes:
    found = re.fullmatch(
        r"-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=\n]+)-----END CERTIFICATE-----\n?", pem
    )
    try:
        return base64.b64decode("" if found is None else found[1], validate=False) or _none()
    except (binascii.Error, ValueError):
        raise BadInvitation(
            f"{where}: the certificate in it is cut off or damaged; copy it again"
        ) from None


def _none() -> bytes:
    raise ValueError("no certificate")


def new_token() -> str:
    """Return a secret of 128 bits."""
    return _word(secrets.token_bytes(16))


def token_hash(token: str) -> str:
    """Return by what a board knows an invitation again."""
    return hashlib.sha256(token.encode()).hexdigest()[:32] if token else ""


def _word(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=")


def signature(token: str, device: str, request: str) -> str:
    """Return what binds a token to a board's name and its certificate request (PEM)."""
    text = f"fogmqtt join 1\n{device}\n{request}"
    return hmac.new(token.encode(), text.encode(), hashlib.sha256).hexdigest()


def utc_now() -> datetime:
    """Return the time of this machine's clock."""
    return datetime.now(UTC)


def shown_time(moment: datetime) -> str:
    """Return a time for people, in this machine's time zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")
