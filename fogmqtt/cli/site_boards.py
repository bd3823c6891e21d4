"""What the page of a gateway's own machine does for boards that join."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from fogmqtt.dashboard.boards import (
    AcceptBoard,
    BoardApplicant,
    BoardInvited,
    BoardsState,
    InviteBoard,
    SiteBoards,
)
from fogmqtt.errors import JoinRefused

if TYPE_CHECKING:
    from fogmqtt.joining.site import Site

log = logging.getLogger(__name__)


def open_site_boards(folder: str) -> SiteBoards | None:
    """Return the boards of a site; None where no board can join. Raises ConfigError."""
    if not folder:
        return None
    from fogmqtt.joining.site import Site

    return FileSiteBoards(Site.open(Path(folder)))


class FileSiteBoards:
    """Works on the files of one site, as the commands do."""

    def __init__(self, site: Site) -> None:
        from fogmqtt.joining.membership import Membership

        self._site = site
        self._membership = Membership(site)

    def state(self) -> BoardsState:
        """Return who may join. Raises ConfigError."""
        from fogmqtt.joining.bundle import utc_now

        ledger, now = self._site.ledger.read(), utc_now()
        asking = ledger.asking_until if ledger.may_ask(now) else None
        applicants = ledger.applicants.values() if asking else ()
        return BoardsState(
            joined=sorted(ledger.members),
            invited=sorted({one.id for one in ledger.invitations if one.state(now) == "open"}),
            asking_until=asking.isoformat() if asking else "",
            applicants=[
                BoardApplicant(one.id, one.address, one.code)
                for one in applicants
                if one.code and not one.certificate
            ],
        )

    def invite(self, asked: InviteBoard) -> BoardInvited:
        """Invite a board for a day. Raises UsageError and ConfigError."""
        import segno

        from fogmqtt.joining.bundle import utc_now
        from fogmqtt.joining.install_script import install_line
        from fogmqtt.joining.membership import INVITED
        from fogmqtt.joining.open_port import await_port

        bundle = self._membership.invite(asked.board, INVITED, utc_now(), replaces=asked.replace)
        assert bundle.expires is not None  # noqa: S101  # an invitation ends
        if problem := await_port(self._site):
            log.warning("%s cannot join yet: %s", asked.board, problem)
        code = bundle.code
        qr = segno.make(str(code), error="m", micro=False)
        return BoardInvited(
            board=asked.board,
            expires=bundle.expires.isoformat(),
            code=str(code),
            install=install_line(self._site, code),
            join=f"fog-device --id {asked.board} --join {code}",
            qr=["".join("1" if dark else "0" for dark in row) for row in qr.matrix_iter(border=4)],
        )

    def let_ask(self) -> None:
        """Let boards ask for ten minutes. Raises ConfigError."""
        from fogmqtt.joining.asking import WINDOW
        from fogmqtt.joining.bundle import utc_now

        self._membership.let_ask(utc_now() + WINDOW)

    def accept(self, asked: AcceptBoard) -> None:
        """Let a board in whose code is the one that the operator read on it. Raises JoinRefused."""
        from fogmqtt.joining.bundle import utc_now

        applicant = self._site.ledger.read().asking(asked.board, utc_now())
        if not applicant.has_code(asked.code):
            raise JoinRefused(f"{asked.board} asks with another code than {asked.code}")
        self._membership.accept(asked.board, utc_now())
