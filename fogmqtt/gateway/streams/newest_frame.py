"""The newest result of a stream, as a JPEG for those who look at it.

While nobody looks, a frame costs nothing here: a picture is made when it is asked for. Those who
want the same width get the same picture, which is made once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec import Struct

from fogmqtt.gateway.clock import now
from fogmqtt.gateway.streams.outputs import PublishedFrame
from fogmqtt.gateway.threads import Threads
from fogmqtt.images.pictures import picture, side_for
from fogmqtt.images.spec import Image

#: Seconds after a look in which frames are kept for the next one, where that costs a copy.
_LOOKED_S: Final = 5.0
#: The newest pictures that are kept, each of another width.
_MOST_WIDTHS: Final = 4


class FramePicture(Struct, frozen=True):
    """A result as a JPEG."""

    #: No two frames of a stream have the same one.
    version: str
    frame: PublishedFrame
    data: bytes


class _Made(Struct, frozen=True):
    version: str
    data: asyncio.Future[bytes]


class NewestFrame:
    """Keeps the newest result of one stream. It belongs to the event loop.

    Of a measuring pipeline the picture is the frame itself. `max_bytes` says how large a picture
    may be now; None: as large as it is.
    """

    def __init__(
        self, threads: Threads, max_bytes: Callable[[], int | None], *, measures: bool
    ) -> None:
        self._threads = threads
        self._max_bytes = max_bytes
        self._measures = measures
        # No version of an earlier run is one of this run.
        self._run = secrets.token_hex(4)
        self._count = 0
        self._newest: PublishedFrame | None = None
        self._changed = asyncio.Event()
        self._looked_at = float("-inf")
        self._made: dict[int, _Made] = {}

    @property
    def needs_original(self) -> bool:
        return self._measures and now() < self._looked_at + _LOOKED_S

    @property
    def version(self) -> str:
        """The version of the newest frame; empty if there is none."""
        return "" if self._newest is None else f"{self._run}.{self._count}"

    def take(self, result: PublishedFrame) -> None:
        """Take the next result."""
        if _pixels(result) is None:
            return  # of a measuring pipeline, while nobody looks
        self._newest = result
        self._count += 1
        self._changed.set()

    async def close(self) -> None:
        """The stream ends: nobody must take its last frame for a new one."""
        self._newest = None
        self._made.clear()

    async def picture(self, width: int, after: str, wait_s: float) -> FramePicture | None:
        """Return the newest frame, at most so wide; 0: as wide as it is.

        If its version is `after`, or there is none, wait for the next one; None if none comes in
        time. Raises ImageError.
        """
        if self._measures and not self.needs_original:
            self._newest = None  # frames since then were not kept
        self._looked_at = now()
        try:
            async with asyncio.timeout(wait_s):
                while self._newest is None or self.version == after:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return None
        finally:
            self._looked_at = now()
        frame, version = self._newest, self.version
        return FramePicture(version, frame, await self._data(frame, version, width))

    async def _data(self, frame: PublishedFrame, version: str, width: int) -> bytes:
        made = self._made.get(width)
        if made is None or made.version != version:
            image = _pixels(frame)
            assert image is not None  # noqa: S101  # `take` took it
            work = partial(_picture, image, width, self._max_bytes())
            made = _Made(version, self._threads.begin_tile(work))
            self._made.pop(width, None)
            while len(self._made) >= _MOST_WIDTHS:
                self._made.pop(next(iter(self._made)))
            self._made[width] = made
        return await asyncio.shield(made.data)


def _pixels(frame: PublishedFrame) -> Image | None:
    return frame.original if frame.image is None else frame.image


def _picture(image: Image, width: int, max_bytes: int | None) -> bytes:
    return picture(image, side_for(image, width=width), max_bytes=max_bytes)
