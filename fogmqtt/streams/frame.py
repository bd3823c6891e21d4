"""A frame and its source, as the gateway sees them.

A source gives the newest frame when it is asked for one. What it leaves out before, it counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from fogmqtt.core.streaming.source_steps import SourceStep

if TYPE_CHECKING:  # a device with a camera has no pixels, and does not load numpy
    from fogmqtt.images.spec import Image

#: Where the time of a capture is from, best first: the sensor, the camera's clock (RTCP), or the
#: arrival of the frame's last packet.
Clock = Literal["sensor", "rtcp", "arrival"]
#: What the link to the camera is doing.
SourceState = Literal["connecting", "connected", "lost", "ended"]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a stream.

    `image` is uint8, shape (height, width) for gray or (height, width, 3) for blue, green and red;
    nobody may write to it. It stays valid until `release` is called, once, which gives its memory
    back to the source.
    """

    #: How many frames the source received before this one, since the stream began.
    number: int
    #: When it was captured, in monotonic seconds of this machine.
    captured_at: float
    #: The same moment in seconds since 1970, UTC.
    captured_utc: float
    clock: Clock
    image: Image
    #: The JPEG file that the camera sent, if it sends files.
    original: bytes | None
    release: Callable[[], None]
    #: Seconds of decoding since the frame before, also of those that were not given.
    decode_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """Frames since the stream began. Received = given + the others + at most one that waits."""

    received: int = 0
    given: int = 0
    #: Left out because of the limit `fps`, or because `keep: keys` decodes key frames only.
    decimated: int = 0
    #: Left out because a newer one arrived before it was asked for.
    superseded: int = 0
    #: Damaged, or lost with the process that reads the source.
    gap: int = 0


@dataclass(frozen=True, slots=True)
class SourceAccount:
    """The counts of a moment, and the steps since the last account that led to them.

    There are no steps if the source is not recorded.
    """

    counts: SourceCounts
    steps: tuple[SourceStep, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What a stream says of its source."""

    state: SourceState
    #: Why it is not connected, in one sentence; empty while it is.
    reason: str = ""
    width: int = 0
    height: int = 0
    codec: str = ""
    #: How often the source was opened anew since the stream began.
    reconnects: int = 0


class FrameSource(Protocol):
    """A camera, file or topic that a stream reads. It opens itself again when it is lost."""

    @property
    def counts(self) -> SourceCounts: ...

    @property
    def status(self) -> SourceStatus: ...

    def account(self) -> SourceAccount:
        """Return the counts, with the steps since the last call."""
        ...

    async def next_frame(self) -> Frame:
        """Wait for the newest frame that was not given yet.

        A camera that is away is waited for. Raises SourceEnded after the last frame of a file.
        """
        ...

    async def close(self) -> None:
        """End the processes and give back the memory. Frames in hand stay valid until released."""
        ...
