"""Streams whose frames are pushed: by a device with a camera, or any client that sends JPEGs.

A gateway says every two seconds that it wants frames. A camera that hears nothing any more stops
sending, so no retained message keeps it busy after the gateway is gone.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from fogmqtt.errors import NotConnected, WireError
from fogmqtt.gateway.broker_link import BrokerLink
from fogmqtt.streams.frame import Clock, FrameSource
from fogmqtt.streams.settings import SourceSettings
from fogmqtt.streams.supervisor import PushFeed
from fogmqtt.transport.base import Received
from fogmqtt.wire.messages import FramesWanted, encode
from fogmqtt.wire.stream_messages import read_capture
from fogmqtt.wire.topics import Topics

#: Seconds between two messages that say that frames are wanted, and how long each is valid.
_SAY_S: Final = 2.0
_WANTED_S: Final = 10.0
_CLOCKS: Final[dict[str, Clock]] = {"sensor": "sensor", "rtcp": "rtcp"}


class PushedFrames:
    """The streams with `source: mqtt` that are under way. It belongs to the event loop."""

    def __init__(self, link: BrokerLink, topics: Topics) -> None:
        self._link = link
        self._topics = topics
        self._feeds: dict[str, PushFeed] = {}
        self._fps: dict[str, float] = {}
        self._said_at = float("-inf")

    def open(self, name: str, settings: SourceSettings, *, records: bool) -> FrameSource:
        """Open the source of a stream. Raises UsageError."""
        from fogmqtt.streams.open import open_source  # few gateways have streams

        feed = PushFeed()
        source = open_source(name, settings, feed, records=records)
        self._feeds[name], self._fps[name] = feed, settings.fps
        self._said_at = float("-inf")
        return source

    def close(self, name: str) -> None:
        """A stream has ended: its frames are no longer wanted."""
        self._feeds.pop(name, None)

    def received(self, name: str, message: Received) -> None:
        """Take a frame. Raises WireError."""
        if message.retained:
            raise WireError("a frame must not be retained: it is old")
        feed = self._feeds.get(name)
        if feed is None:
            return  # the stream is switched off; the camera stops soon
        captured, clock = read_capture(message.properties.user)
        feed.offer(message.payload, captured, _CLOCKS.get(clock, "arrival"))

    def say(self, now: float) -> None:
        """Say whose frames are wanted, if it is time. Call it often."""
        if now < self._said_at + _SAY_S:
            return
        self._said_at = now
        for name in self._feeds:
            message = encode(FramesWanted(for_s=_WANTED_S, fps=self._fps[name]), "base64")
            with suppress(NotConnected):
                self._link.publish(self._topics.frame(name, "wanted"), message, qos=0)
