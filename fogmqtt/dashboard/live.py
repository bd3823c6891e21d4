"""`/api/live`: any number of streams over one WebSocket, each with its newest frame.

A browser opens only six connections to a server, so a wall of cameras needs one for all. The page
names the streams that it shows, and says for each when it is ready for a frame; until then it gets
none of that stream. So nothing waits in a buffer and grows old.

page -> {"show": {"yard": 640}}     the streams that are shown, and their widths
page -> {"ready": "yard"}           the frame is drawn: the next one may come
<- text: a `StreamList`             how all streams do, once a second if it changed
<- bytes: the length of a JSON text in 2 bytes, big-endian; the text, a `FrameHead`; a JPEG
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Annotated, Final

import msgspec
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from fogmqtt.dashboard.access import Door
from fogmqtt.dashboard.gateway_client import GatewayClient
from fogmqtt.dashboard.looking import Looking
from fogmqtt.dashboard.problems import Problem
from fogmqtt.errors import FogError
from fogmqtt.wire.service_messages import ListStreams, StreamFrame, StreamList

log = logging.getLogger(__name__)

#: Pages at once.
MOST_PAGES: Final = 32
#: Streams that one page shows.
MOST_SHOWN: Final = 20
#: Seconds between two looks at how the streams do.
_LIST_S: Final = 1.0
#: Seconds until a stream that cannot be shown is tried again.
_AGAIN_S: Final = 2.0
#: Of a WebSocket: what the other side sent breaks the rules.
_POLICY_VIOLATION: Final = 1008

_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
_Width = Annotated[int, msgspec.Meta(ge=0, le=4096)]


class _Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a page says."""

    show: Annotated[dict[_Name, _Width], msgspec.Meta(max_length=MOST_SHOWN)] | None = None
    ready: _Name | None = None


class FrameHead(msgspec.Struct, frozen=True):
    """What is said of a frame before its bytes."""

    stream: str
    seq: int
    captured_at: float
    #: When the gateway gave it away.
    age_s: float


class LiveEndpoint:
    """Answers WebSockets: an ASGI application."""

    def __init__(self, client: GatewayClient, looking: Looking, door: Door) -> None:
        self._client = client
        self._looking = looking
        self._door = door
        self._pages = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope)
        except Problem as problem:
            await problem.response()(scope, receive, send)
            return
        self._pages += 1
        page = _Page(WebSocket(scope, receive, send), self._client, self._looking)
        try:
            await page.serve()
        finally:
            self._pages -= 1

    def _check(self, scope: Scope) -> None:
        self._door.require(scope["state"]["visitor"], "viewer")
        if self._pages >= MOST_PAGES:
            raise Problem(
                "too-many-streams",
                503,
                f"{MOST_PAGES} pages look at streams already; close one, or try again later.",
                limit=MOST_PAGES,
                retry_after_s=15.0,
            )


class _Shown:
    """A stream that a page shows."""

    def __init__(self, width: int, task: asyncio.Task[None], ready: asyncio.Event) -> None:
        self.width = width
        self.task = task
        self.ready = ready


class _Page:
    """One page that looks."""

    def __init__(self, socket: WebSocket, client: GatewayClient, looking: Looking) -> None:
        self._socket = socket
        self._client = client
        self._looking = looking
        self._shown: dict[str, _Shown] = {}
        #: One message at a time.
        self._turn = asyncio.Lock()

    async def serve(self) -> None:
        await self._socket.accept()
        telling = asyncio.create_task(self._tell(), name="live list")
        try:
            with suppress(WebSocketDisconnect, RuntimeError):  # the page is gone
                await self._hear()
        finally:
            tasks = [telling, *(one.task for one in self._shown.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _hear(self) -> None:
        while True:
            try:
                told = msgspec.json.decode(await self._socket.receive_text(), type=_Told)
            except (msgspec.MsgspecError, KeyError) as problem:
                await self._socket.close(_POLICY_VIOLATION, str(problem)[:100])
                return
            if told.show is not None:
                self._show(told.show)
            if told.ready is not None and (shown := self._shown.get(told.ready)) is not None:
                shown.ready.set()

    def _show(self, wanted: dict[str, int]) -> None:
        """Begin and end what changed."""
        for name, one in tuple(self._shown.items()):
            if wanted.get(name) != one.width:
                one.task.cancel()
                del self._shown[name]
        for name, width in wanted.items():
            if name not in self._shown:
                ready = asyncio.Event()
                ready.set()  # credit for the first frame
                task = asyncio.create_task(self._follow(name, width, ready), name=f"live {name}")
                self._shown[name] = _Shown(width, task, ready)

    async def _follow(self, name: str, width: int, ready: asyncio.Event) -> None:
        """Send a stream's newest frame each time the page is ready for one."""
        after = ""
        while True:
            try:
                with self._looking.view(name, width) as feed:
                    while True:
                        await ready.wait()
                        frame = await feed.next(after)
                        ready.clear()
                        after = frame.version
                        await self._send_frame(name, frame)
            except FogError as problem:  # too many look, or there is no such stream now
                log.debug("%s is not shown: %s", name, problem)
                await asyncio.sleep(_AGAIN_S)

    async def _send_frame(self, name: str, frame: StreamFrame) -> None:
        head = msgspec.json.encode(FrameHead(name, frame.seq, frame.captured_at, frame.age_s))
        async with self._turn:
            await self._socket.send_bytes(len(head).to_bytes(2) + head + frame.data)

    async def _tell(self) -> None:
        """Say how the streams do."""
        said = b""
        while True:
            asked = ListStreams(id=self._client.new_id())
            with suppress(FogError):  # the page hears by its events that the gateway is away
                found = await self._client.ask(asked, StreamList)
                text = msgspec.json.encode(StreamList(id="", streams=found.streams))
                if text != said:
                    said = text
                    async with self._turn:
                        await self._socket.send_text(text.decode())
            await asyncio.sleep(_LIST_S)
