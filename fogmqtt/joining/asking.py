"""A board without an invitation asks to join; a person compares a code, which both sides show.

The code depends on both keys and on a random number of each side. The board says the hash of its
number before it learns that of the gateway, so that somebody in between, who has keys of their own,
has one try of a million for each board that asks: the codes of both sides would differ.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from datetime import datetime, timedelta
from typing import Final

import msgspec

from fogmqtt.errors import JoinRefused
from fogmqtt.joining.ledger import Applicant
from fogmqtt.joining.membership import JoinAnswer, Membership
from fogmqtt.joining.site import Site
from fogmqtt.wire.topics import is_id

#: How long boards may ask, unless somebody says another time, and at most.
WINDOW: Final = timedelta(minutes=10)
LONGEST_WINDOW: Final = timedelta(hours=1)
_MOST_REQUEST: Final = 4096
_NONCE: Final = 16


class AskRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a board asks, first with the hash of its number, then with the number."""

    id: str
    #: The request for a certificate, PEM.
    request: str
    commitment: str
    nonce: str = ""


class AskAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway answers at first: its number."""

    nonce: str


def new_nonce() -> str:
    """Return a random number."""
    return secrets.token_hex(_NONCE)


def commitment(request: str, nonce: str) -> str:
    """Return by what a board binds itself to its number."""
    return hashlib.sha256(f"fogmqtt ask 1\n{nonce}\n{request}".encode()).hexdigest()


def short_code(authority: str, request: str, board: str, gateway: str) -> str:
    """Return what both sides show: 6 digits of both keys and both numbers."""
    text = f"fogmqtt code 1\n{board}\n{gateway}\n{request}\n{authority}"
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 1_000_000
    return f"{number // 1000:03d}-{number % 1000:03d}"


class Applications:
    """What the gateway answers to boards that ask."""

    def __init__(self, site: Site, membership: Membership) -> None:
        self._site = site
        self._membership = membership
        #: Our number for each board that has said its hash.
        self._nonces: dict[str, str] = {}
        self._lock = threading.Lock()

    def begin(self, asked: AskRequest, address: str, now: datetime) -> AskAnswer:
        """Note that a board asks, and return our number. Raises JoinRefused."""
        if not is_id(asked.id) or len(asked.request) > _MOST_REQUEST:
            raise JoinRefused("the request is none of fogmqtt's, or of another version")
        applicant = Applicant(
            id=asked.id,
            request=asked.request,
            commitment=asked.commitment,
            at=now,
            address=address,
        )
        with self._site.ledger.changing() as ledger:
            refusal = ledger.ask(applicant, now)
        if refusal:
            raise JoinRefused(refusal)
        nonce = new_nonce()
        with self._lock:
            for board in self._nonces.keys() - ledger.applicants.keys():
                del self._nonces[board]
            self._nonces[asked.id] = nonce
        return AskAnswer(nonce=nonce)

    def answer(self, asked: AskRequest, now: datetime) -> JoinAnswer | None:
        """Return what a board needs, if it was let in; None as long as nobody has decided.

        Raises JoinRefused.
        """
        with self._lock:
            ours = self._nonces.get(asked.id)
        ledger = self._site.ledger.read()
        found = ledger.applicants.get(asked.id) if ledger.may_ask(now) else None
        said = commitment(asked.request, asked.nonce)
        if found is None or ours is None or said != found.commitment:
            raise JoinRefused(
                f"{asked.id} asks no more: nobody let it in, or another board asked by its name. "
                "Run fog-gateway accept on the gateway, and start the board again"
            )
        if found.certificate:
            return self._membership.answer(found, now)
        if not found.code:
            code = short_code(self._site.authority.pem, asked.request, asked.nonce, ours)
            with self._site.ledger.changing() as ledger:
                ledger.show(asked.id, code)
        return None
