"""`GET /api/streams/{name}/stream.mjpeg`: a stream as pictures that replace each other.

A viewer that is slow gets the newest frame each time it has taken one. It ends when it leaves.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from starlette.types import Receive, Scope, Send

from fogmqtt.dashboard.gateway_client import RefusalReceived
from fogmqtt.dashboard.looking import FrameFeed, Looking

_BOUNDARY: Final = "frame"
_HEADERS: Final = [
    (b"content-type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}".encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would keep frames back
]


class MjpegStream:
    """The answer to one viewer: an ASGI application."""

    def __init__(self, looking: Looking, stream: str, width: int, *, has_body: bool) -> None:
        self._looking = looking
        self._stream = stream
        self._width = width
        self._has_body = has_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        with self._looking.view(self._stream, self._width) as feed:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            if self._has_body:
                await self._serve(feed, receive, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _serve(self, feed: FrameFeed, receive: Receive, send: Send) -> None:
        writing = asyncio.create_task(_write(feed, send), name=f"mjpeg of {self._stream}")
        leaving = asyncio.create_task(_left(receive), name=f"viewer of {self._stream}")
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, leaving):
                task.cancel()
            await asyncio.gather(writing, leaving, return_exceptions=True)


async def _write(feed: FrameFeed, send: Send) -> None:
    after = ""
    with suppress(RefusalReceived):  # the gateway has no such stream any more
        while True:
            frame = await feed.next(after)
            after = frame.version
            head = (
                f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\n"
                f"Content-Length: {len(frame.data)}\r\n"
                f"X-Timestamp: {frame.captured_at:.3f}\r\n\r\n"
            )
            body = head.encode() + frame.data + b"\r\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})


async def _left(receive: Receive) -> None:
    """Wait until the viewer is gone."""
    while (await receive())["type"] != "http.disconnect":
        continue
