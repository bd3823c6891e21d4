"""`GET /api/events`: what the gateway says, as server-sent events for any number of pages.

Each event is encoded once and kept in a ring. A stream is a place in the ring, so a slow reader
costs nothing but its own socket; one that takes nothing for a while is closed, and its browser
connects again and continues with the event after the last one that it had.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from fogmqtt.dashboard.gateway_client import GatewayClient
from fogmqtt.dashboard.mirror import merged
from fogmqtt.dashboard.problems import Problem
from fogmqtt.wire.service_messages import Update

log = logging.getLogger(__name__)

#: Streams at once.
MOST_STREAMS: Final = 64
#: Events that are kept for streams that come back, and the bytes of them.
RING: Final = 1000
_RING_BYTES: Final = 16_000_000
#: Seconds between two updates, at least.
_EVERY_S: Final = 0.1
#: Seconds after which a comment shows that the stream lives.
COMMENT_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class _Event:
    id: str
    data: bytes


class _Link(msgspec.Struct, frozen=True):
    """Whether the gateway can be reached, for the page."""

    connected: bool
    sentence: str


class EventHub:
    """Makes events of what the gateway says. Listens to a client."""

    def __init__(self, client: GatewayClient) -> None:
        self.client = client
        self.streams = 0
        self._ring: deque[_Event] = deque()
        self._ring_bytes = 0
        #: The number of the first event in the ring.
        self._first = 0
        self._more = asyncio.Event()
        self._closing = False
        self._pending: Update | None = None
        self._published_at = 0.0
        self._flush: asyncio.TimerHandle | None = None
        client.listen(self)

    @property
    def end(self) -> int:
        """The number of the next event."""
        return self._first + len(self._ring)

    def close(self) -> None:
        """End all streams."""
        self._closing = True
        self._wake()

    # What the client tells.

    def snapshot(self) -> None:
        """Give all streams the whole again."""
        self._drop_pending()
        event = self.whole()
        if event is not None:
            self._add(event)

    def update(self, update: Update) -> None:
        """Give all streams an update, or what came in the last moment as one."""
        self._pending = update if self._pending is None else merged(self._pending, update)
        wait_s = self._published_at + _EVERY_S - time.monotonic()
        if wait_s <= 0:
            self._publish_pending()
        elif self._flush is None:
            loop = asyncio.get_running_loop()
            self._flush = loop.call_later(wait_s, self._publish_pending)

    def link(self, connected: bool, sentence: str) -> None:
        """Tell all streams whether the gateway can be reached."""
        self._add(_link_event(connected, sentence))

    # Streams.

    def whole(self) -> _Event | None:
        """Return an event with all that is known."""
        snapshot = self.client.mirror.snapshot()
        if snapshot is None:
            return None
        return _event("snapshot", f"{snapshot.boot}.{snapshot.sequence}", snapshot)

    def begin(self, last_id: str) -> tuple[list[_Event], int]:
        """Return what a new stream gets at once, and the number of its next event."""
        events = [_link_event(*self.client.link_state)]
        if not self.client.is_current:
            return events, self.end  # the snapshot comes
        for number in range(len(self._ring) - 1, -1, -1):
            if last_id and self._ring[number].id == last_id:
                return events, self._first + number + 1
        self._publish_pending()  # the whole includes it
        whole = self.whole()
        return (events if whole is None else [*events, whole]), self.end

    async def next(self, number: int) -> list[_Event] | None:
        """Wait for events from a number on; None: this stream must end."""
        while not self._closing and number >= self.end:
            self._more.clear()
            await self._more.wait()
        if self._closing or number < self._first:
            return None
        return [self._ring[at] for at in range(number - self._first, len(self._ring))]

    def _publish_pending(self) -> None:
        update = self._pending
        self._drop_pending()
        if update is None:
            return
        self._published_at = time.monotonic()
        self._add(_event("update", f"{update.boot}.{update.sequence}", update))

    def _drop_pending(self) -> None:
        self._pending = None
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None

    def _add(self, event: _Event) -> None:
        self._ring.append(event)
        self._ring_bytes += len(event.data)
        while len(self._ring) > RING or (self._ring_bytes > _RING_BYTES and len(self._ring) > 1):
            self._ring_bytes -= len(self._ring.popleft().data)
            self._first += 1
        self._wake()

    def _wake(self) -> None:
        self._more.set()


class EventStream:
    """The answer to one reader: an ASGI application."""

    def __init__(self, hub: EventHub, last_id: str) -> None:
        if hub.streams >= MOST_STREAMS:
            raise Problem(
                "too-many-streams",
                503,
                f"{MOST_STREAMS} pages read events already; close one, or try again later.",
                limit=MOST_STREAMS,
                retry_after_s=15.0,
                headers={"Connection": "close"},  # it must not keep others out
            )
        self._hub = hub
        self._last_id = last_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        self._hub.streams += 1
        try:
            with self._hub.client.watching():
                await self._serve(receive, send)
        finally:
            self._hub.streams -= 1

    async def _serve(self, receive: Receive, send: Send) -> None:
        writing = asyncio.create_task(self._write(send), name="event stream")
        leaving = asyncio.create_task(_left(receive), name="event reader")
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, leaving):
                task.cancel()
            await asyncio.gather(writing, leaving, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # nginx would keep events back
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        events, number = self._hub.begin(self._last_id)
        await _send(send, b"retry: 1000\n\n" + b"".join(event.data for event in events))
        while True:
            try:
                async with asyncio.timeout(COMMENT_S):
                    more = await self._hub.next(number)
            except TimeoutError:
                await _send(send, b": still here\n\n")
                continue
            if more is None:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            await _send(send, b"".join(event.data for event in more))
            number += len(more)


async def _left(receive: Receive) -> None:
    """Wait until the reader is gone."""
    while (await receive())["type"] != "http.disconnect":
        continue


async def _send(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


def _link_event(connected: bool, sentence: str) -> _Event:
    return _event("link", "", _Link(connected, sentence))


def _event(kind: str, event_id: str, value: object) -> _Event:
    name = f"id: {event_id}\n" if event_id else ""
    head = f"event: {kind}\n{name}data: ".encode()
    return _Event(event_id, head + msgspec.json.encode(value) + b"\n\n")
