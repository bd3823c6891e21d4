"""Opens a source for a coroutine that waits for its frames."""

from __future__ import annotations

import asyncio

import numpy as np

from fogmqtt.core.streaming.source_steps import SourceStep
from fogmqtt.errors import SourceEnded
from fogmqtt.streams.frame import Frame, SourceAccount, SourceCounts, SourceStatus
from fogmqtt.streams.settings import SourceSettings, check_source, require_pyav
from fogmqtt.streams.supervisor import GivenPicture, PushFeed, SourceSupervisor


def open_source(
    name: str, settings: SourceSettings, feed: PushFeed | None = None, *, records: bool = False
) -> OpenedSource:
    """Open the source of the stream `name`, from the event loop that reads it.

    `feed` gets the pictures of the source `mqtt`. If it `records`, its accounts have steps. Raises
    UsageError if the settings do not fit each other, or PyAV is not installed. A source that cannot
    be opened is tried again and again; its status says why.
    """
    check_source(settings)
    require_pyav()
    return OpenedSource(name, settings, feed, records=records)


class OpenedSource:
    """A `FrameSource` whose process is watched by a thread. One coroutine calls `next_frame`."""

    def __init__(
        self, name: str, settings: SourceSettings, feed: PushFeed | None, *, records: bool
    ) -> None:
        self._keeps_all = settings.keep == "all"
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        #: A frame that arrived after its `next_frame` was cancelled, or before it looked.
        self._frame: Frame | None = None
        self._is_wanted = self._is_ended = self._is_closed = False
        #: Frames that were given to nobody, since `next_frame` was cancelled.
        self._unused = 0
        self._records = records
        #: Those that an account has told.
        self._told_unused = 0
        self._supervisor = SourceSupervisor(
            name, settings, self._deliver, self._end, feed, records=records
        )
        self._supervisor.start()

    @property
    def counts(self) -> SourceCounts:
        """What became of the frames."""
        return self._counts(self._supervisor.counts)

    def account(self) -> SourceAccount:
        """Return the counts, with the steps since the last call."""
        account = self._supervisor.account()
        if not self._records:
            return SourceAccount(self._counts(account.counts))
        unused = (SourceStep("unused"),) * (self._unused - self._told_unused)
        self._told_unused = self._unused
        return SourceAccount(self._counts(account.counts), account.steps + unused)

    def _counts(self, counts: SourceCounts) -> SourceCounts:
        waiting = self._frame is not None
        return SourceCounts(
            received=counts.received,
            given=counts.given - self._unused - waiting,
            decimated=counts.decimated,
            superseded=counts.superseded + self._unused,
            gap=counts.gap,
        )

    @property
    def status(self) -> SourceStatus:
        """What the source is doing."""
        return self._supervisor.status

    async def next_frame(self) -> Frame:
        """Wait for the newest frame that was not given yet. Raises SourceEnded after the last."""
        if self._frame is not None and self._is_outdated(self._frame):
            self._frame.release()
            self._frame = None
            self._unused += 1
        while self._frame is None:
            if self._is_ended or self._is_closed:
                raise SourceEnded("the source has no more frames")
            if not self._is_wanted:
                self._is_wanted = True
                self._supervisor.want("pixels")
            self._changed.clear()
            await self._changed.wait()
        frame, self._frame = self._frame, None
        return frame

    async def close(self) -> None:
        """End the process. Frames in hand stay valid until they are released."""
        self._is_closed = True
        self._changed.set()
        await asyncio.to_thread(self._supervisor.close)
        if self._frame is not None:
            self._frame.release()
            self._frame = None
            self._unused += 1

    def _is_outdated(self, frame: Frame) -> bool:
        if self._keeps_all or self._is_ended:
            return False
        return self._supervisor.counts.received > frame.number + 1

    def _deliver(self, picture: GivenPicture) -> None:
        """Hand a picture to the event loop. The supervisor's thread calls it."""
        frame = _frame_of(picture)
        try:
            self._loop.call_soon_threadsafe(self._put, frame)
        except RuntimeError:  # the event loop is closed
            frame.release()

    def _put(self, frame: Frame) -> None:
        if self._is_closed:
            self._unused += 1
            frame.release()
            return
        self._is_wanted = False
        self._frame = frame
        self._changed.set()

    def _end(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._put_end)
        except RuntimeError:
            return

    def _put_end(self) -> None:
        self._is_ended = True
        self._changed.set()


def _frame_of(picture: GivenPicture) -> Frame:
    height, width, channels = picture.shape
    shape = (height, width) if channels == 1 else picture.shape
    pixels = np.frombuffer(picture.memory, np.uint8, height * width * channels).reshape(shape)
    return Frame(
        number=picture.number,
        captured_at=picture.captured_at,
        captured_utc=picture.captured_utc,
        clock=picture.clock,
        image=pixels,
        original=picture.jpeg,
        release=picture.release,
        decode_s=picture.decode_s,
    )
