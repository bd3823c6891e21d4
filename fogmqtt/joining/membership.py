"""What a gateway answers: it invites, lets boards join and renew, and revokes.

Each change is in the ledger before the broker hears of it, and the broker before the board.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Final

import msgspec

from fogmqtt.errors import ConfigError
from fogmqtt.joining.authority import CERTIFICATE_LIFE, SignedCertificate, make_request, new_key
from fogmqtt.joining.bundle import JoinBundle
from fogmqtt.joining.ledger import Applicant, Ledger, Member
from fogmqtt.joining.site import Site
from fogmqtt.wire.topics import LOCAL, check_id

#: Client ids of fogmqtt begin so; a board's certificate makes its name a client id.
_RESERVED: Final = "fog-"
#: How long an invitation is open, unless somebody says another time.
INVITED: Final = timedelta(days=1)
#: Seconds in which Mosquitto reads its lists after it was told; its loop turns ten times a second.
_RELOAD_S: Final = 0.25


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a board asks with its token, or with the certificate that it has."""

    id: str
    #: The request for a certificate, PEM.
    request: str
    #: `bundle.signature` of both; empty where a certificate says who asks.
    signature: str = ""


class JoinAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a board needs from then on."""

    certificate: str
    expires: datetime
    gateway: str
    prefix: str
    brokers: tuple[str, ...]
    join: tuple[str, ...]
    #: The gateway's clock.
    now: datetime


class Membership:
    """Changes who belongs to one site."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def invite(self, board: str, time: timedelta, now: datetime, *, replaces: bool) -> JoinBundle:
        """Return an invitation. Raises UsageError and ConfigError."""
        self._check_name(board)
        with self._site.ledger.changing() as ledger:
            made = ledger.invite(board, now, time, replaces=replaces)
        return msgspec.structs.replace(
            self._bundle(board),
            join=self._site.join_urls,
            token=made.token,
            expires=made.expires,
        )

    def make_offline(self, board: str, now: datetime, *, replaces: bool) -> JoinBundle:
        """Return a file with a certificate and its key. Raises UsageError and ConfigError."""
        self._check_name(board)
        key = new_key()
        signed = self._site.authority.sign_board(make_request(key, board), board, now)
        with self._site.ledger.changing() as ledger:
            ledger.check_free(board, replaces=replaces)
            ledger.withdraw(board, now)
            ledger.add(_member(board, signed, now, "a file"))
        self._site.apply(ledger)
        return msgspec.structs.replace(
            self._bundle(board), cert=signed.pem, key=key, expires=signed.expires
        )

    def check(self, asked: JoinRequest, now: datetime) -> None:
        """Raise JoinRefused unless a board has the token of an invitation that is open."""
        self._site.ledger.read().check(asked.id, asked.request, asked.signature, now)

    def admit(self, asked: JoinRequest, address: str, now: datetime) -> JoinAnswer:
        """Let a board join. Raises JoinRefused."""
        with self._site.ledger.changing() as ledger:
            invitation = ledger.check(asked.id, asked.request, asked.signature, now)
            signed = self._site.authority.sign_board(asked.request, asked.id, now)
            ledger.join(invitation, signed.serial, signed.expires, now, address)
        self._apply(ledger)
        return self._answer(signed.pem, signed.expires, now)

    def let_ask(self, until: datetime) -> None:
        """Let boards without an invitation ask until this time."""
        with self._site.ledger.changing() as ledger:
            ledger.let_ask(until)

    def accept(self, board: str, now: datetime) -> None:
        """Let a board in that has asked. Raises JoinRefused."""
        self._check_name(board)
        with self._site.ledger.changing() as ledger:
            applicant = ledger.asking(board, now)
            signed = self._site.authority.sign_board(applicant.request, board, now)
            ledger.accept(applicant, signed.serial, signed.pem, signed.expires, now)
        self._apply(ledger)

    def answer(self, applicant: Applicant, now: datetime) -> JoinAnswer:
        """Return what a board needs that was let in."""
        assert applicant.expires is not None  # noqa: S101  # it has a certificate
        return self._answer(applicant.certificate, applicant.expires, now)

    def renew(self, asked: JoinRequest, serial: int, now: datetime) -> JoinAnswer:
        """Give a board that shows its certificate a newer one. Raises JoinRefused."""
        with self._site.ledger.changing() as ledger:
            signed = self._site.authority.sign_board(asked.request, asked.id, now)
            ledger.renew(asked.id, serial, signed.serial, signed.expires)
        return self._answer(signed.pem, signed.expires, now)

    def revoke(self, board: str, now: datetime) -> tuple[Member | None, bool]:
        """Let a board in no more. Return it, if it had joined, and whether the broker was told."""
        with self._site.ledger.changing() as ledger:
            member = ledger.revoke(board, now)
        return member, self._site.apply(ledger)

    def must_be_open(self, now: datetime) -> bool:
        """Whether a board may come: with an invitation, or to renew its certificate."""
        ledger = self._site.ledger.read()
        ending = (one.expires - now < CERTIFICATE_LIFE / 3 for one in ledger.members.values())
        return ledger.is_awaited(now) or any(ending)

    def _check_name(self, board: str) -> None:
        check_id(board, "the board's name")
        if board in (LOCAL, self._site.settings.gateway) or board.startswith(_RESERVED):
            raise ConfigError(
                f"{board} is a name of the gateway's own programs; give the board another one"
            )

    def _apply(self, ledger: Ledger) -> None:
        if self._site.apply(ledger):
            time.sleep(_RELOAD_S)

    def _bundle(self, board: str) -> JoinBundle:
        site = self._site
        return JoinBundle(
            fogmqtt=1,
            id=board,
            gateway=site.settings.gateway,
            prefix=site.settings.prefix,
            brokers=site.brokers,
            ca=site.authority.pem,
        )

    def _answer(self, certificate: str, expires: datetime, now: datetime) -> JoinAnswer:
        return JoinAnswer(
            certificate=certificate,
            expires=expires,
            gateway=self._site.settings.gateway,
            prefix=self._site.settings.prefix,
            brokers=self._site.brokers,
            join=self._site.join_urls,
            now=now,
        )


def _member(board: str, signed: SignedCertificate, now: datetime, address: str) -> Member:
    return Member(
        id=board, serial=signed.serial, joined=now, expires=signed.expires, address=address
    )
