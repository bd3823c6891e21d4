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
from typing import Final, Protocol

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


class EventsRecorder(Protocol):
    """Records the events of a stream."""

    def saw(self, seq: int, events: Sequence[StreamEvent], *, active: bool) -> None:
        """A frame was looked at, and something is there or not; `seq` 0: all events end."""
        ...

    def drew(self, seq: int, jpeg: bytes) -> None:
        """The picture of a frame's events was made."""
        ...


class EventPicture(msgspec.Struct, frozen=True, eq=False):
    """What is drawn: a frame, and what was seen in it."""

    seq: int
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
        self._recorder: EventsRecorder | None = None
        self._waiting: Slot[EventPicture] = Slot()
        self._drawing = BackgroundTasks()
        self._is_drawing = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def active(self) -> bool:
        """Whether something is there."""
        return self._decided.active

    def record_to(self, recorder: EventsRecorder) -> None:
        """Tell `recorder` what each frame leads to."""
        self._recorder = recorder

    def take(self, result: PublishedFrame) -> None:
        """Take the next result of the stream."""
        found = self._decided.take(
            result.facts or {}, result.size, result.epoch, result.captured_utc
        )
        self._record(result.seq, found)
        for event in found:
            self._publish(event, result.seq)
        self._say_motion(self.active)
        snapshot = snapshot_of(result.seq, result.original, result.size, found)
        if snapshot is not None:
            self._draw(snapshot)
        self._wait_for_next()

    async def close(self) -> None:
        """End all events: no frame follows."""
        if self._timer is not None:
            self._timer.cancel()
        self._end_all()
        await self._drawing.finish()

    def _record(self, seq: int, found: Sequence[StreamEvent]) -> None:
        if self._recorder is not None:
            self._recorder.saw(seq, found, active=self.active)

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

    def _draw(self, snapshot: EventPicture) -> None:
        self._waiting.put(snapshot)
        if not self._is_drawing:
            self._is_drawing = True
            self._drawing.start(self._draw_all(), f"snapshots of {self._name}")

    async def _draw_all(self) -> None:
        try:
            while (snapshot := self._waiting.take()) is not None:
                data = await self._threads.begin_tile(partial(drawn, snapshot))
                if self._recorder is not None:
                    self._recorder.drew(snapshot.seq, data)
                topic = self._topics.frame(self._name, "snapshot")
                with suppress(NotConnected):
                    self._link.publish(topic, data, qos=1, retain=True, content_type="image/jpeg")
        finally:
            self._is_drawing = False


def snapshot_of(
    seq: int, image: Image | None, size: tuple[int, int], events: Sequence[StreamEvent]
) -> EventPicture | None:
    """Return what is drawn of a frame; None if none of its events is seen best in it."""
    best = tuple(event for event in events if event.is_best)
    return None if image is None or not best else EventPicture(seq, image, size, best)


def drawn(snapshot: EventPicture) -> bytes:
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
