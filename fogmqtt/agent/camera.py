"""The camera of a device: a source of frames for the whole fleet.

The camera runs in its process. The agent publishes what that process gives, as JPEGs, and only
while a gateway wants them. One frame is under way at a time, so that the newest wins on a slow
link, too.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Final

from fogmqtt.agent.service import CallSoon
from fogmqtt.errors import NotConnected, TooLarge
from fogmqtt.streams.settings import SourceSettings
from fogmqtt.streams.supervisor import GivenPicture, SourceSupervisor
from fogmqtt.transport.base import MessageProperties, Transport
from fogmqtt.wire.messages import Decoder, FramesWanted
from fogmqtt.wire.stream_messages import capture_properties
from fogmqtt.wire.topics import Topics

log = logging.getLogger(__name__)

#: A frame waits so many seconds at the broker for a gateway, at most.
_EXPIRES_S: Final = 1.0


class DeviceCamera:
    """Publishes the frames of a camera. It belongs to the agent's thread.

    `call_soon` has that thread call something.
    """

    token: object = "camera"  # noqa: S105  # of a message

    def __init__(
        self,
        device: str,
        settings: SourceSettings,
        topics: Topics,
        transport: Transport,
        call_soon: CallSoon,
    ) -> None:
        self._device = device
        self._settings = settings
        self._topic = topics.frame(device, "in")
        self.wanted_topic = topics.frame(device, "wanted")
        self._transport = transport
        self._call_soon = call_soon
        self._decoder: Decoder[FramesWanted] = Decoder(FramesWanted)
        self._supervisor: SourceSupervisor | None = None
        #: Until when somebody wants frames, and how many a second; 0: all.
        self._wanted_until = float("-inf")
        self._fps = 0.0
        #: The camera is asked for a frame, or one is on its way to the broker.
        self._is_busy = False
        self._next_at = float("-inf")

    @property
    def due_at(self) -> float:
        """When to call `step`."""
        if self._supervisor is None:
            return float("inf")
        return self._wanted_until if self._is_busy else min(self._wanted_until, self._next_at)

    def wanted(self, payload: bytes | memoryview) -> None:
        """A gateway wants frames for some seconds. Raises WireError."""
        message = self._decoder.decode(payload)
        now = time.monotonic()
        self._wanted_until = max(self._wanted_until, now + message.for_s)
        self._fps = message.fps
        if self._supervisor is None:
            self._open()
        self.step(now)

    def step(self, now: float) -> None:
        """Ask for the next frame when it is due, and close a camera that nobody wants any more."""
        if self._supervisor is None:
            return
        if now >= self._wanted_until:
            self.close()
            log.info("%s: nobody wants the camera's frames", self._device)
        elif not self._is_busy and now >= self._next_at:
            self._is_busy = True
            self._supervisor.want("jpeg")

    def _gave(self, picture: GivenPicture) -> None:
        """Publish a picture."""
        picture.release()
        self._is_busy = False
        if self._supervisor is None or picture.jpeg is None:
            return
        now = time.monotonic()
        if self._fps > 0:
            # Not from now on: a late frame must not make all later ones late.
            self._next_at = max(self._next_at + 1 / self._fps, now - 1 / self._fps)
        try:
            self._transport.publish(
                self._topic,
                picture.jpeg,
                qos=0,
                expires_s=_EXPIRES_S,
                content_type="image/jpeg",
                properties=MessageProperties(
                    user=capture_properties(picture.captured_utc, picture.clock)
                ),
                token=self.token,
            )
            self._is_busy = True
        except NotConnected:
            self._next_at = now + 1.0
        except TooLarge as problem:
            log.warning("%s: a frame of the camera is not sent: %s", self._device, problem)
            self._next_at = now + 1.0

    def sent(self) -> None:
        """The frame is with the broker: the next one may go."""
        self._is_busy = False
        self.step(time.monotonic())

    def _ended(self) -> None:
        """Begin a file again."""
        if self._supervisor is not None:
            self.close()
            self._open()
            self.step(time.monotonic())

    def close(self) -> None:
        """End the camera's process."""
        supervisor, self._supervisor = self._supervisor, None
        self._is_busy = False
        if supervisor is not None:
            supervisor.close()

    def _open(self) -> None:
        log.info("%s: a gateway wants the camera's frames", self._device)
        self._supervisor = SourceSupervisor(
            self._device,
            self._settings,
            lambda picture: self._call_soon(partial(self._gave, picture)),
            lambda: self._call_soon(self._ended),
        )
        self._supervisor.start()
