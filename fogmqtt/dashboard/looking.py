"""Frames of streams for all who look at them, each the newest one.

The gateway is asked for the next frame of a stream while somebody looks at it, once for all who
want the same width. A viewer takes the newest frame whenever it is ready for one, so a slow viewer
sees fewer frames, and changes nothing for the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fogmqtt.dashboard.gateway_client import GatewayClient, RefusalReceived
from fogmqtt.dashboard.problems import Problem
from fogmqtt.errors import FogError
from fogmqtt.wire.service_messages import GetStreamFrame, StreamFrame

#: Streams and widths that are looked at at once; the gateway refuses a client's 33rd.
MOST_FEEDS: Final = 24
#: Viewers at once, of all streams.
MOST_VIEWERS: Final = 64
#: Seconds that a request for the next frame waits at the gateway.
_WAIT_S: Final = 5.0
#: Seconds until a gateway that did not answer is asked again.
_PAUSE_S: Final = 1.0
#: Widths that are asked for; another one becomes the next wider, so that viewers share pictures.
_WIDTHS: Final = (160, 320, 480, 640, 960, 1280, 1920, 2560, 3840)


class FrameFeed:
    """The frames of one stream in one width, while it has viewers."""

    def __init__(self, client: GatewayClient, stream: str, width: int) -> None:
        self.viewers = 0
        self._client = client
        self._stream = stream
        self._width = width
        self._newest: StreamFrame | None = None
        #: Why there will be no frame.
        self._problem: FogError | None = None
        self._changed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._pull(), name=f"look at {stream}")

    async def next(self, after: str) -> StreamFrame:
        """Wait for a frame that is another one than `after`, and return the newest.

        Raises RefusalReceived if the gateway does not know the stream any more.
        """
        while True:
            if self._problem is not None:
                raise self._problem
            if self._newest is not None and self._newest.version != after:
                return self._newest
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        self._task.cancel()

    async def _pull(self) -> None:
        """Ask for one frame after the other: the gateway gives the newest, however slow we are."""
        after = ""
        while True:
            asked = GetStreamFrame(
                id=self._client.new_id(),
                stream=self._stream,
                width=self._width,
                after=after,
                wait_s=_WAIT_S,
            )
            try:
                frame = await self._client.ask_for_frame(asked)
            except RefusalReceived as problem:
                if problem.refusal.kind == "not-found":
                    self._problem = problem
                    self._changed.set()
                    return
                await asyncio.sleep(_PAUSE_S)
            except FogError:
                await asyncio.sleep(_PAUSE_S)  # the gateway or the broker comes back
            else:
                if frame.data:
                    after, self._newest = frame.version, frame
                    self._changed.set()
                elif not after:
                    await asyncio.sleep(_PAUSE_S)  # it may not have waited


class Looking:
    """The feeds of one dashboard. It belongs to the event loop."""

    def __init__(self, client: GatewayClient) -> None:
        self._client = client
        self._feeds: dict[tuple[str, int], FrameFeed] = {}

    @property
    def viewers(self) -> int:
        return sum(feed.viewers for feed in self._feeds.values())

    @contextmanager
    def view(self, stream: str, width: int) -> Iterator[FrameFeed]:
        """Look at a stream during the block; width 0: as wide as it is.

        Raises Problem if too many look already.
        """
        key = (stream, fitting_width(width))
        feed = self._feeds.get(key)
        if self.viewers >= MOST_VIEWERS:
            raise _too_many(f"{MOST_VIEWERS} viewers look at streams already", MOST_VIEWERS)
        if feed is None:
            if len(self._feeds) >= MOST_FEEDS:
                sentence = f"{MOST_FEEDS} streams and widths are looked at already"
                raise _too_many(sentence, MOST_FEEDS)
            feed = self._feeds[key] = FrameFeed(self._client, *key)
        feed.viewers += 1
        try:
            yield feed
        finally:
            feed.viewers -= 1
            if not feed.viewers:
                feed.close()
                del self._feeds[key]

    async def once(self, stream: str, width: int, after: str, wait_s: float) -> StreamFrame:
        """Return the newest frame; without bytes if it is `after`, or if there is none in time.

        Raises RefusalReceived and NoAnswer.
        """
        width = fitting_width(width)
        asked = GetStreamFrame(
            id=self._client.new_id(), stream=stream, width=width, after=after, wait_s=wait_s
        )
        return await self._client.ask_for_frame(asked)


def fitting_width(width: int) -> int:
    """Return the width that is asked for, of which there are few; 0: as wide as it is."""
    if not width:
        return 0
    return next((one for one in _WIDTHS if one >= width), 0)


def _too_many(why: str, limit: int) -> Problem:
    return Problem(
        "too-many-streams",
        503,
        f"{why}; close one, or try again later.",
        limit=limit,
        retry_after_s=15.0,
    )
