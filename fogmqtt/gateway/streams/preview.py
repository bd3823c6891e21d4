"""The preview of a stream: a small retained JPEG of its newest result, as often as asked at most.

Of a measuring pipeline it is the frame itself.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from fogmqtt.config import PreviewSettings
from fogmqtt.errors import NotConnected
from fogmqtt.gateway.broker_link import BrokerLink
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.streams.outputs import PublishedFrame
from fogmqtt.gateway.threads import Threads
from fogmqtt.images.pictures import picture, side_for
from fogmqtt.images.spec import Image
from fogmqtt.wire.topics import Topics


class PreviewOutput:
    """Publishes on `frames/<name>/preview`. Between two previews a frame costs nothing."""

    def __init__(
        self,
        name: str,
        settings: PreviewSettings,
        link: BrokerLink,
        topics: Topics,
        threads: Threads,
        *,
        measures: bool,
    ) -> None:
        self._topic = topics.frame(name, "preview")
        self._settings = settings
        self._link = link
        self._threads = threads
        self._measures = measures
        self._due_at = float("-inf")

    @property
    def needs_original(self) -> bool:
        return self._measures and self._is_due

    @property
    def _is_due(self) -> bool:
        return self._settings.fps > 0 and now() >= self._due_at

    async def publish(self, frame: PublishedFrame) -> None:
        """Publish a preview if it is time for one. Raises ImageError, TooLarge."""
        image = frame.original if frame.image is None else frame.image
        if image is None or not self._is_due:
            return
        self._due_at = now() + 1 / self._settings.fps
        data = await self._threads.begin_tile(partial(_preview, image, self._settings))
        with suppress(NotConnected):  # nobody is there to see it
            self._link.publish(self._topic, data, qos=0, retain=True, content_type="image/jpeg")

    async def close(self) -> None:
        """Nothing is open."""


def _preview(image: Image, settings: PreviewSettings) -> bytes:
    return picture(image, side_for(image, height=settings.height), quality=settings.quality)
