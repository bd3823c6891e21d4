"""Motion in the frames of a stream, found on this machine beside the stream's pipeline.

    frame -> small and gray -> background -> components -> events

A small picture is sufficient for motion and takes a few milliseconds, less than its way to a
device. The operators are those of pipelines, so the same frames give the same motion again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec.structs import replace

from fogmqtt.config import MotionSettings
from fogmqtt.gateway.background import BackgroundTasks
from fogmqtt.gateway.streams.outputs import PublishedFrame
from fogmqtt.gateway.streams.stream_events import StreamEvents
from fogmqtt.gateway.threads import Threads
from fogmqtt.images.pictures import resized
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.base import Facts, Operator
from fogmqtt.operators.api.memory import FrameMemory
from fogmqtt.operators.api.pipeline import parse

#: The height of the picture in which motion is searched, in pixels.
HEIGHT: Final = 180
#: Motion in more than this share of the picture is a change of light, or of the camera's view.
_EVERYTHING: Final = 0.8
#: Frames that may wait for the thread; beyond it the oldest is left out.
_MOST_WAITING: Final = 32


class Motion:
    """Observes a stream, and tells what moves to its events. It belongs to the event loop."""

    needs_original = True

    def __init__(
        self,
        settings: MotionSettings,
        events: StreamEvents,
        threads: Threads,
        warn: Callable[[str], None],
    ) -> None:
        self._finder = MotionFinder(settings)
        self._events = events
        self._threads = threads
        self._warn = warn
        self._waiting: deque[PublishedFrame] = deque()
        self._tasks = BackgroundTasks()
        self._is_searching = False

    def take(self, result: PublishedFrame) -> None:
        """Take the next result of the stream, with its frame."""
        if len(self._waiting) >= _MOST_WAITING:
            self._waiting.popleft()
            self._warn("motion is searched too slowly: a frame is left out")
        self._waiting.append(result)
        if not self._is_searching:
            self._is_searching = True
            self._tasks.start(self._search(), "motion")

    async def close(self) -> None:
        """No frame follows."""
        await self._tasks.finish()
        await self._events.close()

    async def _search(self) -> None:
        try:
            while self._waiting:
                result = self._waiting.popleft()
                image = result.original
                assert image is not None  # noqa: S101  # an observer gets it
                find = partial(self._finder.find, image, result.epoch)
                facts = await self._threads.begin_tile(find)
                size = (image.shape[0], image.shape[1])
                self._events.take(replace(result, facts=facts, size=size))
                # The events of a result come one at a time, and other coroutines get their turn.
                await asyncio.sleep(0)
        finally:
            self._is_searching = False


class MotionFinder:
    """Finds motion from frame to frame. One thread at a time may use it."""

    def __init__(self, settings: MotionSettings) -> None:
        self._settings = settings
        self._epoch = 0
        self._count = 0
        self._made_for: tuple[int, ...] = ()
        self._operators: tuple[Operator, ...] = ()
        self._memory = FrameMemory()

    def find(self, image: Image, epoch: int) -> Facts:
        """Return the components that move, in pixels of the image. A new epoch forgets all."""
        if (epoch, image.shape) != (self._epoch, self._made_for):
            self._begin(image, epoch)
        height, width = image.shape[:2]
        small = _small(image)
        facts = self._memory.run_whole(self._operators, small, small, self._count)
        assert isinstance(facts, dict)  # noqa: S101  # the last operator measures
        self._count += 1
        rows, columns = small.shape[:2]
        components = facts["components"]
        if sum(one["area"] for one in components) > _EVERYTHING * rows * columns:
            return {"components": []}
        return {"components": [_enlarged(one, width, columns, height, rows) for one in components]}

    def _begin(self, image: Image, epoch: int) -> None:
        self._epoch, self._made_for, self._count = epoch, image.shape, 0
        self._memory = FrameMemory()
        small = _small(image)
        self._operators = parse(motion_pipeline(self._settings, small.shape))


def motion_pipeline(settings: MotionSettings, shape: tuple[int, ...]) -> str:
    """Return the operators that find motion in pictures of this shape.

    A sensitivity of 100 is 2 standard deviations from the mean of a pixel, one of 1 is 11.
    """
    area = max(1, round(settings.min_area * shape[0] * shape[1]))
    threshold = 2 + (100 - settings.sensitivity) // 10
    gray = "gray | " if len(shape) == 3 else ""
    return f"{gray}background threshold={threshold} | components min_area={area}"


def _small(image: Image) -> Image:
    height, width = image.shape[:2]
    if height <= HEIGHT:
        return image
    return resized(image, HEIGHT, max(1, round(width * HEIGHT / height)))


def _enlarged(one: Facts, width: int, columns: int, height: int, rows: int) -> Facts:
    """Return a component of the small picture in pixels of the frame."""
    left, top = one["left"] * width // columns, one["top"] * height // rows
    right = -(-(one["left"] + one["width"]) * width // columns)
    bottom = -(-(one["top"] + one["height"]) * height // rows)
    area = one["area"] * width * height // (columns * rows)
    return {"left": left, "top": top, "width": right - left, "height": bottom - top, "area": area}
