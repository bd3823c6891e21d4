"""Where the results of a stream go. An output that is slow delays no frame and no other output."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

import msgspec
import xxhash
from msgspec import Struct

from fogmqtt.core.streaming.cadence import Slot
from fogmqtt.gateway.clock import now
from fogmqtt.images.spec import Image
from fogmqtt.log import CountedWarnings
from fogmqtt.operators.api.base import Facts, StageOutput
from fogmqtt.streams.frame import Clock

log = logging.getLogger(__name__)

#: Seconds that an output has to take its last frame when the stream ends.
_LAST_S: Final = 5.0


class PublishedFrame(Struct, frozen=True, eq=False):
    """The result of one frame: an image, or the facts of a measuring pipeline.

    Nobody may write to the images.
    """

    stream: str
    #: The number of the frame among those that were begun, from 1 on. It grows from frame to frame.
    seq: int
    #: The number of the frame among those that the source received.
    number: int
    #: When it was captured: in seconds of the monotonic clock, and since 1970.
    captured_at: float
    captured_utc: float
    clock: Clock
    #: A new epoch begins where the frames before do not count any more for this one.
    epoch: int
    image: Image | None
    facts: Facts | None
    #: Height and width of the picture that the result is of: facts have its pixels.
    size: tuple[int, int]
    #: A copy of the frame itself, if an output needs it.
    original: Image | None = None

    @property
    def age_s(self) -> float:
        """The seconds since the capture, now."""
        return now() - self.captured_at

    def digest(self) -> str:
        """Return the XXH3-64 of the result's pixels or facts, as 16 hex digits."""
        return digest_of(self.facts or {} if self.image is None else self.image)


def digest_of(result: StageOutput) -> str:
    """Return the XXH3-64 of a result's pixels or facts, as 16 hex digits."""
    if isinstance(result, dict):
        return xxhash.xxh3_64_hexdigest(msgspec.json.encode(result))
    return xxhash.xxh3_64_hexdigest(result.data.cast("B"))


def digest_of_file(data: bytes) -> str:
    """Return the XXH3-64 of a file, as 16 hex digits."""
    return xxhash.xxh3_64_hexdigest(data)


class FrameObserver(Protocol):
    """Sees each result before it goes out, in order, and none is left out."""

    @property
    def needs_original(self) -> bool:
        """Whether `PublishedFrame.original` of the next frame is needed, which costs a copy."""
        ...

    def take(self, result: PublishedFrame, /) -> None:
        """Take a result. It must not block the event loop."""
        ...

    async def close(self) -> None:
        """No result follows."""
        ...


class StreamOutput(Protocol):
    """One place to which the results of a stream go."""

    @property
    def needs_original(self) -> bool:
        """Whether `PublishedFrame.original` of the next frame is needed, which costs a copy."""
        ...

    async def publish(self, frame: PublishedFrame, /) -> None:
        """Take a result. Meanwhile a newer one may take the place of the next.

        What it raises is logged, and the next frame is tried again.
        """
        ...

    async def close(self) -> None:
        """The stream ends: finish what was begun."""
        ...


class OutputLane:
    """Brings results to one output. With `drops`, the newest one replaces one that waits."""

    def __init__(
        self, name: str, output: StreamOutput, warnings: CountedWarnings, *, drops: bool
    ) -> None:
        self.output = output
        self._name = name
        self._warnings = warnings
        self._drops = drops
        self._slot: Slot[PublishedFrame] = Slot()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._closing = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"output {name}")

    async def put(self, frame: PublishedFrame) -> None:
        """Give a result. Waits only if no frame may be dropped."""
        while not self._drops and not self._emptied.is_set():
            await self._emptied.wait()
        self._emptied.clear()
        self._slot.put(frame)
        self._filled.set()

    async def close(self) -> None:
        """Publish what waits, and close the output."""
        self._closing = True
        self._filled.set()
        done, _ = await asyncio.wait({self._task}, timeout=_LAST_S)
        if not done:
            self._task.cancel()
            log.warning("%s did not take its last frame within %g s", self._name, _LAST_S)
        await asyncio.gather(self._task, return_exceptions=True)
        try:
            await self.output.close()
        except Exception as problem:  # noqa: BLE001  # one output must not keep others open
            self._warn(problem)

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            frame = self._slot.take()
            self._emptied.set()
            if frame is None:
                if self._closing:
                    return
                continue
            try:
                await self.output.publish(frame)
            except Exception as problem:  # noqa: BLE001  # the next frame is tried again
                self._warn(problem)
            if self._closing:
                self._filled.set()

    def _warn(self, problem: Exception) -> None:
        text = str(problem) or type(problem).__name__
        self._warnings.add(self._name, text, now())
