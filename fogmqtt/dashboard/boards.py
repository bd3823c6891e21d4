"""Invitations of boards, and boards that ask to join: for operators, on the gateway's machine only.

Both work on the gateway's files, so no token of an invitation goes over MQTT.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec
from starlette.requests import Request

from fogmqtt.dashboard.openapi import Operation
from fogmqtt.dashboard.problems import Problem
from fogmqtt.errors import FogError, JoinRefused, UsageError
from fogmqtt.log import one_line

log = logging.getLogger(__name__)

T = TypeVar("T")

BOARD_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,31}$"
_NO_SITE: Final = (
    "boards are not invited here: fog-gateway init makes a gateway that boards can join, and its "
    "page runs beside it"
)


class BoardApplicant(msgspec.Struct, frozen=True):
    """A board that asks to join."""

    board: str
    address: str
    #: What the board must show, too.
    code: str


class BoardsState(msgspec.Struct, frozen=True):
    """Who may join."""

    #: Boards that have joined.
    joined: list[str]
    #: Boards that are invited.
    invited: list[str]
    #: Until when boards may ask, ISO 8601; empty if none may.
    asking_until: str = ""
    applicants: list[BoardApplicant] = []


class BoardInvited(msgspec.Struct, frozen=True):
    """An invitation: whoever has it can join once as this board."""

    board: str
    #: ISO 8601.
    expires: str
    code: str
    #: For a bare board, and for one where fogmqtt is installed.
    install: str
    join: str
    #: The QR code of `code`: rows of 0 and 1, with the margin.
    qr: list[str]


class InviteBoard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to invite."""

    board: Annotated[str, msgspec.Meta(pattern=BOARD_PATTERN)]
    #: It takes the name of a board that has joined.
    replace: bool = False


class AcceptBoard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which board to let in, with the code that it shows."""

    board: Annotated[str, msgspec.Meta(pattern=BOARD_PATTERN)]
    code: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{3}-?[0-9]{3}$")]


class SiteBoards(Protocol):
    """Invites boards and lets them in. It may block, and raises FogError."""

    def state(self) -> BoardsState:
        """Return who may join."""

    def invite(self, asked: InviteBoard) -> BoardInvited:
        """Invite a board."""

    def let_ask(self) -> None:
        """Let boards ask for a while."""

    def accept(self, asked: AcceptBoard) -> None:
        """Let a board in that asks."""


#: Reads a JSON body, decodes it and makes an answer, as the API does; and tells who asks.
ReadBody = Callable[[Request, type[Any], str], Any]
Answer = Callable[..., Any]


class BoardsApi:
    """The operations under /api/boards."""

    def __init__(
        self, boards: SiteBoards | None, read: ReadBody, answer: Answer, who: Callable[..., str]
    ) -> None:
        self._boards = boards
        self._read = read
        self._answer = answer
        self._who = who

    def operations(self) -> tuple[Operation, ...]:
        """Return them."""
        return (
            Operation(
                method="GET",
                path="/api/boards",
                handler=self._state,
                summary="Show who may join.",
                role="operator",
                answers={200: BoardsState},
            ),
            Operation(
                method="POST",
                path="/api/boards/invitations",
                handler=self._invite,
                summary="Invite a board.",
                role="operator",
                body=InviteBoard,
                answers={201: BoardInvited},
            ),
            Operation(
                method="POST",
                path="/api/boards/asking",
                handler=self._let_ask,
                summary="Let boards ask to join for ten minutes.",
                role="operator",
                answers={200: BoardsState},
            ),
            Operation(
                method="POST",
                path="/api/boards/accepted",
                handler=self._accept,
                summary="Let a board in that asks.",
                role="operator",
                body=AcceptBoard,
                answers={200: BoardsState},
            ),
        )

    async def _state(self, request: Request) -> Any:
        del request
        return self._answer(await self._do(lambda boards: boards.state()))

    async def _invite(self, request: Request) -> Any:
        asked = await self._read(request, InviteBoard, 'as {"board": "eya"}')
        made = await self._do(lambda boards: boards.invite(asked))
        self._log(request, f"invite {asked.board}")
        return self._answer(made, 201)

    async def _let_ask(self, request: Request) -> Any:
        await self._do(lambda boards: boards.let_ask())
        self._log(request, "let boards ask")
        return self._answer(await self._do(lambda boards: boards.state()))

    async def _accept(self, request: Request) -> Any:
        asked = await self._read(request, AcceptBoard, 'as {"board": "eya", "code": "482-193"}')
        await self._do(lambda boards: boards.accept(asked))
        self._log(request, f"accept {asked.board}")
        return self._answer(await self._do(lambda boards: boards.state()))

    async def _do(self, act: Callable[[SiteBoards], T]) -> T:
        """Do something with the boards in a thread. Raises Problem."""
        boards = self._boards
        if boards is None:
            raise Problem("not-found", 404, _NO_SITE)
        try:
            return await asyncio.to_thread(act, boards)
        except (JoinRefused, UsageError) as problem:
            raise Problem("conflict", 409, one_line(str(problem))) from None
        except FogError as problem:
            log.warning("boards cannot be invited: %s", problem)
            raise Problem("failed", 500, "The gateway's files cannot be changed.") from None

    def _log(self, request: Request, act: str) -> None:
        log.info("act: %s, by %s", act, one_line(self._who(request)) or "unknown")
