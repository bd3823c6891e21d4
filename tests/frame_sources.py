"""Sources of frames that a test decides about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2

from fogmqtt.core.streaming.source_steps import SourceStep, Step
from fogmqtt.errors import SourceEnded
from fogmqtt.images.spec import Image
from fogmqtt.streams.frame import Frame, SourceAccount, SourceCounts, SourceStatus


@dataclass
class PlayedSource:
    """Gives pictures in turn: `fps` a second by the clock, or as fast as it is asked with 0.

    Of frames by the clock, the newest one wins. `count` frames in all; 0: until it is closed.
    """

    pictures: list[Image]
    fps: float = 0.0
    count: int = 0
    #: Called with each frame that is given; returns the frame to give.
    change: Callable[[Frame], Frame] = lambda frame: frame
    counts: SourceCounts = field(default_factory=SourceCounts)
    status: SourceStatus = field(default_factory=lambda: SourceStatus("connected"))
    given: list[Frame] = field(default_factory=list)
    #: Numbers of frames whose memory came back.
    released: list[int] = field(default_factory=list)
    closed: bool = False
    #: Cleared while the camera is away.
    there: asyncio.Event = field(default_factory=asyncio.Event)
    keeps: bool = True
    _began_at: float | None = None
    _next: int = 0
    _steps: list[SourceStep] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.there.set()

    async def next_frame(self) -> Frame:
        await self.there.wait()
        if self._began_at is None:
            self._began_at = time.monotonic()
        number = self._next
        if self.fps:
            newest = int((time.monotonic() - self._began_at) * self.fps)
            if self.count:
                newest = min(newest, self.count - 1)
            number = max(self._next, newest)
        if self.count and number >= self.count:
            raise SourceEnded("the last frame was given")
        skipped, self._next = number - self._next, number + 1
        captured_at = time.monotonic()
        if self.fps:
            captured_at = self._began_at + number / self.fps
            await asyncio.sleep(max(0.0, captured_at - time.monotonic()))
        else:
            await asyncio.sleep(0)
        counts = self.counts
        self.counts = replace(
            counts,
            received=counts.received + skipped + 1,
            given=counts.given + 1,
            superseded=counts.superseded + skipped,
        )
        for index in range(skipped + 1):
            self._steps.append(SourceStep("offered", 0, "supersedes" if index else ""))
        steps: tuple[Step, ...] = ("taken", "given")
        self._steps.extend(SourceStep(step) for step in steps)
        frame = self.change(
            Frame(
                number,
                captured_at,
                time.time() - (time.monotonic() - captured_at),
                "arrival",
                self.pictures[number % len(self.pictures)],
                None,
                lambda: self.released.append(number),
            )
        )
        if self.keeps:
            self.given.append(frame)
        return frame

    def end(self) -> None:
        """The next frame that is asked for is after the last one."""
        self.count = max(self._next, 1)

    def account(self) -> SourceAccount:
        steps, self._steps = tuple(self._steps), []
        return SourceAccount(self.counts, steps)

    async def close(self) -> None:
        self.closed = True


@dataclass
class Collected:
    """An output that keeps what it gets."""

    results: list = field(default_factory=list)
    needs_original: bool = False
    closed: bool = False

    async def publish(self, frame) -> None:  # type: ignore[no-untyped-def]
        self.results.append((frame, frame.age_s))

    async def close(self) -> None:
        self.closed = True


class Pictures:
    """The pictures of a recording, as a source."""

    def __init__(self, folder: Path) -> None:
        self._left = sorted(folder.iterdir())
        self.counts, self.status = SourceCounts(), SourceStatus("connected")

    async def next_frame(self) -> Frame:
        if not self._left:
            raise SourceEnded("the last frame was given")
        image = cv2.imread(str(self._left.pop(0)), cv2.IMREAD_UNCHANGED)
        assert image is not None
        return Frame(0, time.monotonic(), time.time(), "arrival", image, None, lambda: None)

    def account(self) -> SourceAccount:
        return SourceAccount(self.counts)

    async def close(self) -> None:
        """Nothing is open."""
