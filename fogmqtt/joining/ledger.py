"""Who was invited, who has joined, and whose certificate is revoked.

It is one file. `fog-gateway invite` and the gateway change it, each in a process of its own, so
every change has a lock.
"""

from __future__ import annotations

import fcntl
import hmac
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

import msgspec

from fogmqtt.errors import ConfigError, JoinRefused, UsageError, reason_of
from fogmqtt.joining.bundle import new_token, shown_time, signature
from fogmqtt.joining.private_file import write_private

InvitationState = Literal["open", "used", "expired", "withdrawn"]

#: The longest time that an invitation is open.
LONGEST: Final = timedelta(days=7)
#: How long ended invitations are kept, so that a second use can be named.
_KEPT: Final = timedelta(days=30)
#: How long a board that was let in can fetch its certificate.
_TO_FETCH: Final = timedelta(minutes=1)
#: Boards that may ask until somebody lets boards ask anew: each has one try of a million.
MOST_ASKED: Final = 8


class BoardInvitation(msgspec.Struct, kw_only=True):
    """One invitation of one board."""

    id: str
    token: str
    made: datetime
    expires: datetime
    #: It may take the name of a board that has joined.
    replaces: bool = False
    withdrawn: bool = False
    used: datetime | None = None
    #: From where it was used.
    address: str = ""

    def state(self, now: datetime) -> InvitationState:
        """Return what has become of it."""
        if self.used is not None:
            return "used"
        if self.withdrawn:
            return "withdrawn"
        return "expired" if now >= self.expires else "open"


class Member(msgspec.Struct, kw_only=True):
    """A board that has joined."""

    id: str
    serial: int
    joined: datetime
    expires: datetime
    address: str = ""


class Revocation(msgspec.Struct, kw_only=True):
    """A certificate that counts no more."""

    id: str
    serial: int
    at: datetime


class Applicant(msgspec.Struct, kw_only=True):
    """A board that asks to join without an invitation."""

    id: str
    #: The request for a certificate, PEM, and the hash of the board's number.
    request: str
    commitment: str
    at: datetime
    address: str = ""
    #: What both sides show; empty until the board has said its number.
    code: str = ""
    #: Of a board that was let in.
    certificate: str = ""
    expires: datetime | None = None

    def has_code(self, code: str) -> bool:
        """Whether somebody has read this code on the board."""
        return bool(self.code) and code.replace("-", "") == self.code.replace("-", "")


class Ledger(msgspec.Struct, kw_only=True):
    """All of it. Every change names the time, so that tests can choose it."""

    members: dict[str, Member] = {}
    invitations: list[BoardInvitation] = []
    revocations: list[Revocation] = []
    #: Until when boards may fetch this gateway's version.
    updates_until: datetime | None = None
    #: Until when boards may ask to join, and those that did.
    asking_until: datetime | None = None
    applicants: dict[str, Applicant] = {}
    #: How many have asked since boards may.
    asked: int = 0

    def invite(
        self, device: str, now: datetime, time: timedelta, *, replaces: bool = False
    ) -> BoardInvitation:
        """Add an invitation. Those of the same board that are open end. Raises UsageError."""
        if not timedelta(0) < time <= LONGEST:
            raise UsageError(f"--for: an invitation is open for up to {LONGEST.days} days")
        self.check_free(device, replaces=replaces)
        self.withdraw(device, now)
        made = BoardInvitation(
            id=device, token=new_token(), made=now, expires=now + time, replaces=replaces
        )
        self.invitations = [
            one for one in self.invitations if (one.used or one.expires) + _KEPT > now
        ]
        self.invitations.append(made)
        return made

    def check_free(self, device: str, *, replaces: bool) -> None:
        """Raise UsageError if a board has this name already and is not to be replaced."""
        member = self.members.get(device)
        if member is None or replaces:
            return
        raise UsageError(
            f"{device} is joined since {shown_time(member.joined)}; give another name, or replace "
            f"that board: fog-gateway invite --replace {device}"
        )

    def withdraw(self, device: str, now: datetime) -> int:
        """End the open invitations of a board, and return how many there were."""
        ending = [one for one in self.invitations if one.id == device and one.state(now) == "open"]
        for one in ending:
            one.withdrawn = True
        return len(ending)

    def check(self, device: str, request: str, signed: str, now: datetime) -> BoardInvitation:
        """Return the invitation that a request was signed with. Raises JoinRefused."""
        for one in reversed(self.invitations):
            if one.id == device and _is_signed(one, request, signed):
                _check_open(one, now)
                return one
        for one in self.invitations:
            # The board may say another name than it was invited by; its token tells.
            if _is_signed(one, request, signed, device):
                raise JoinRefused(
                    f"this invitation is for {one.id}, not for {device}; start the board with "
                    f"--id {one.id}, or invite {device}"
                )
        raise JoinRefused(
            f"this gateway has no such invitation for {device}; make one: "
            f"fog-gateway invite {device}"
        )

    def join(
        self,
        invitation: BoardInvitation,
        serial: int,
        expires: datetime,
        now: datetime,
        address: str,
    ) -> None:
        """Use an invitation up for a certificate. Another board of this name is revoked."""
        if invitation.id in self.members:
            if not invitation.replaces:
                raise JoinRefused(self._taken(invitation.id))
            self.revoke(invitation.id, now)
        invitation.used, invitation.address = now, address
        self.members[invitation.id] = Member(
            id=invitation.id, serial=serial, joined=now, expires=expires, address=address
        )

    def add(self, member: Member) -> None:
        """Add a board whose certificate was made here. Another one of this name is revoked."""
        if member.id in self.members:
            self.revoke(member.id, member.joined)
        self.members[member.id] = member

    def renew(self, device: str, old: int, new: int, expires: datetime) -> None:
        """Note a newer certificate of a member. Raises JoinRefused if `old` is not its newest."""
        member = self.members.get(device)
        if member is None or member.serial != old:
            raise JoinRefused(
                f"{device} has no certificate of this gateway that counts; invite it: "
                f"fog-gateway invite --replace {device}"
            )
        member.serial, member.expires = new, expires

    def revoke(self, device: str, now: datetime) -> Member | None:
        """Let a board's certificate count no more, and end its invitations."""
        self.withdraw(device, now)
        member = self.members.pop(device, None)
        if member is not None:
            self.revocations.append(Revocation(id=device, serial=member.serial, at=now))
        return member

    def let_ask(self, until: datetime) -> None:
        """Let boards ask until this time."""
        self.asking_until, self.applicants, self.asked = until, {}, 0

    def may_ask(self, now: datetime) -> bool:
        """Whether boards may ask now."""
        return self.asking_until is not None and now < self.asking_until

    def ask(self, applicant: Applicant, now: datetime) -> str:
        """Note a board that asks. Return why it may not; empty if it may."""
        board = applicant.id
        if not self.may_ask(now):
            return (
                "this gateway lets boards in by invitation; on it run: fog-gateway invite "
                f"{board}, or fog-gateway accept, and start the board again"
            )
        if board in self.members:
            return self._taken(board)
        if self.asked >= MOST_ASKED:
            return (
                f"{MOST_ASKED} boards have asked already; on the gateway, run fog-gateway accept "
                "again, or invite this one"
            )
        self.asked += 1
        if self.applicants.pop(board, None) is not None:
            return (
                f"two boards ask as {board}, so neither is let in; give one of them another name, "
                "and start it again"
            )
        self.applicants[board] = applicant
        return ""

    def show(self, board: str, code: str) -> None:
        """Note the code of a board that has said its number."""
        if board in self.applicants:
            self.applicants[board].code = code

    def asking(self, board: str, now: datetime) -> Applicant:
        """Return a board that asks, whose code is known. Raises JoinRefused."""
        found = self.applicants.get(board)
        if found is None or not found.code or found.certificate or not self.may_ask(now):
            raise JoinRefused(f"{board} does not ask to join: fog-gateway accept lists who does")
        if board in self.members:
            raise JoinRefused(self._taken(board))
        return found

    def accept(
        self, applicant: Applicant, serial: int, certificate: str, expires: datetime, now: datetime
    ) -> None:
        """Let a board in that has asked."""
        applicant.certificate, applicant.expires = certificate, expires
        self.members[applicant.id] = Member(
            id=applicant.id,
            serial=serial,
            joined=now,
            expires=expires,
            address=applicant.address,
        )
        # The board still has to fetch it.
        self.asking_until = max(self.asking_until or now, now + _TO_FETCH)

    def _taken(self, board: str) -> str:
        return (
            f"{board} is joined since {shown_time(self.members[board].joined)}; to replace that "
            f"board: fog-gateway invite --replace {board}"
        )

    def is_awaited(self, now: datetime) -> bool:
        """Whether a board may come: with an invitation, to ask, or for an update.

        One whose invitation was used is awaited, too, so that a second use is told who was first.
        """
        if self.may_ask(now) or (self.updates_until is not None and now < self.updates_until):
            return True
        return any(not one.withdrawn and now < one.expires for one in self.invitations)


def _is_signed(
    invitation: BoardInvitation, request: str, signed: str, device: str | None = None
) -> bool:
    expected = signature(invitation.token, device or invitation.id, request)
    return hmac.compare_digest(expected.encode(), signed.encode("utf-8", "replace"))


def _check_open(invitation: BoardInvitation, now: datetime) -> None:
    again = f"make a new one: fog-gateway invite {invitation.id}"
    match invitation.state(now):
        case "used":
            assert invitation.used is not None  # noqa: S101  # this is what the state says
            raise JoinRefused(
                f"this invitation was used {shown_time(invitation.used)} from "
                f"{invitation.address}. If that was not this board, somebody else has joined as "
                f"{invitation.id}: fog-gateway revoke {invitation.id}. For this board, {again}"
            )
        case "withdrawn":
            raise JoinRefused(f"this invitation was withdrawn; {again}")
        case "expired":
            raise JoinRefused(
                f"this invitation ended {shown_time(invitation.expires)} by the gateway's clock, "
                f"which says {shown_time(now)}; {again}"
            )


class LedgerFile:
    """The ledger on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Ledger:
        """Return the ledger; an empty one if there is none. Raises ConfigError."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Ledger)
        except FileNotFoundError:
            return Ledger()
        except OSError as problem:
            raise ConfigError(f"{self.path}: {reason_of(problem, self.path)}") from None
        except msgspec.DecodeError as problem:
            raise ConfigError(f"{self.path} is damaged: {problem}; restore it") from None

    @contextmanager
    def changing(self) -> Iterator[Ledger]:
        """Change the ledger: what the block leaves is written, unless it raises."""
        try:
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as problem:
            reason = reason_of(problem, self.path.parent)
            raise ConfigError(f"{self.path}: {reason}; run this as its owner") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            ledger = self.read()
            before = msgspec.json.encode(ledger)
            yield ledger
            after = msgspec.json.encode(ledger)
            if after != before or not self.path.exists():
                write_private(self.path, msgspec.json.format(after, indent=1))
        finally:
            os.close(lock)
