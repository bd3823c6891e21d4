"""The events of one stream: published as JSON, as `ON` and `OFF`, and with a picture.

    facts of a frame -> FrameEvents -> topics events, motion and snapshot

Every published frame counts, in order, so that the same frames make the same events again. Only
the pictures are made aside: while one is encoded, a newer one replaces the one that waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec
import numpy as np

from fogmqtt.config import EventSettings
from fogmqtt.core.streaming.cadence import Slot
from fogmqtt.core.streaming.events import Grouping, StreamEvent
from fogmqtt.errors import NotConnected
from fogmqtt.gateway.background import BackgroundTasks
from fogmqtt.gateway.broker_link import BrokerLink
from fogmqtt.gateway.streams.frame_events import FrameEvents
from fogmqtt.gateway.streams.outputs import PublishedFrame
from fogmqtt.gateway.threads import Threads
from fogmqtt.images.frames import Colour, frame
from fogmqtt.images.picture import as_colour
from fogmqtt.images.pictures import picture
from fogmqtt.images.spec import Image
from fogmqtt.wire.stream_messages import StreamEventMessage, utc_text
from fogmqtt.wire.topics import Topics

#: The longest side of a snapshot, in pixels.
SNAPSHOT_SIDE: Final = 1280
_COLOUR: Final[Colour] = (0, 0, 210)


class _Snapshot(msgspec.Struct, frozen=True, eq=False):
    """What is drawn: a frame, and what was seen in it."""

    image: Image
    #: Height and width of the picture that the boxes are of.
    size: tuple[int, int]
    events: tuple[StreamEvent, ...]


class StreamEvents:
    """Makes the events of a stream. It belongs to the event loop.

    `say_motion` is told after each frame whether something is there. An event ends, too, when no
    result comes for `quiet_s`: nobody knows what is there then.
    """

    needs_original = True

    def __init__(
        self,
        name: str,
        settings: EventSettings,
        kind: Grouping,
        link: BrokerLink,
        topics: Topics,
        threads: Threads,
        say_motion: Callable[[bool], None],
        quiet_s: float,
    ) -> None:
        self._name = name
        self._link = link
        self._topics = topics
        self._threads = threads
        self._say_motion = say_motion
        self._quiet_s = quiet_s
        self._decided = FrameEvents(settings, kind)
        self._record: Callable[[int, Sequence[StreamEvent]], None] = lambda _seq, _events: None
        self._waiting: Slot[_Snapshot] = Slot()
        self._drawing = BackgroundTasks()
        self._is_drawing = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def active(self) -> bool:
        """Whether something is there."""
        return self._decided.active

    def record_to(self, record: Callable[[int, Sequence[StreamEvent]], None]) -> None:
        """Tell `record` what each frame leads to, by its `seq`; 0: all events end."""
        self._record = record

    def take(self, result: PublishedFrame) -> None:
        """Take the next result of the stream."""
        found = self._decided.take(
            result.facts or {}, result.size, result.epoch, result.captured_utc
        )
        self._record(result.seq, found)
        for event in found:
            self._publish(event, result.seq)
        self._say_motion(self.active)
        best = tuple(event for event in found if event.is_best)
        if best and result.original is not None:
            self._draw(_Snapshot(result.original, result.size, best))
        self._wait_for_next()

    async def close(self) -> None:
        """End all events: no frame follows."""
        if self._timer is not None:
            self._timer.cancel()
        self._end_all()
        await self._drawing.finish()

    def _wait_for_next(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._quiet_s, self._end_all)

    def _end_all(self) -> None:
        found = self._decided.finish()
        self._record(0, found)
        for event in found:
            self._publish(event, None)
        self._say_motion(False)

    def _publish(self, event: StreamEvent, seq: int | None) -> None:
        message = StreamEventMessage(
            event_type=event.event_type,
            id=event.id,
            stream=self._name,
            label=event.label,
            started_at=utc_text(event.started_at / 1000),
            ended_at=None if event.ended_at is None else utc_text(event.ended_at / 1000),
            score=event.score / 10_000,
            boxes=[
                (left / 100, top / 100, (right - left) / 100, (bottom - top) / 100)
                for left, top, right, bottom in event.boxes
            ],
            zones=list(event.zones),
            seq=seq,
        )
        topic = self._topics.stream(self._name, "events")
        with suppress(NotConnected):  # nobody is there to hear it
            self._link.publish(topic, msgspec.json.encode(message), qos=1)

    # Pictures.

    def _draw(self, snapshot: _Snapshot) -> None:
        self._waiting.put(snapshot)
        if not self._is_drawing:
            self._is_drawing = True
            self._drawing.start(self._draw_all(), f"snapshots of {self._name}")

    async def _draw_all(self) -> None:
        try:
            while (snapshot := self._waiting.take()) is not None:
                data = await self._threads.begin_tile(partial(_drawn, snapshot))
                topic = self._topics.frame(self._name, "snapshot")
                with suppress(NotConnected):
                    self._link.publish(topic, data, qos=1, retain=True, content_type="image/jpeg")
        finally:
            self._is_drawing = False


def _drawn(snapshot: _Snapshot) -> bytes:
    """Return a JPEG of a frame with the boxes of its events."""
    canvas = as_colour(snapshot.image)
    height, width = canvas.shape[:2]
    across, down = width / snapshot.size[1], height / snapshot.size[0]
    for event in snapshot.events:
        for left, top, right, bottom in event.boxes:
            x, y = np.array([left, right]) * across / 100, np.array([top, bottom]) * down / 100
            corners = np.array([[x[0], y[0]], [x[1], y[0]], [x[1], y[1]], [x[0], y[1]]])
            frame(canvas, corners, f"{event.label} {event.score / 10_000:.2f}", _COLOUR)
    return picture(canvas, SNAPSHOT_SIDE)
