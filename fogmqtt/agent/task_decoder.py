"""Decodes tasks and checks everything that a device can check before it works on a tile."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fogmqtt.agent.tile_lease import LONGEST_LEASE_S, ReplyAddress, TileLease
from fogmqtt.core.geometry import Rect
from fogmqtt.errors import WireError
from fogmqtt.wire.messages import (
    Attempt,
    Decoder,
    Encoding,
    Id,
    Index,
    Message,
    TileTask,
    check_digest,
)
from fogmqtt.wire.topics import is_id

_ITEM_BYTES = {
    "uint8": 1,
    "int8": 1,
    "uint16": 2,
    "int16": 2,
    "int32": 4,
    "float32": 4,
    "float64": 8,
}


class _Envelope(Message, frozen=True, kw_only=True, tag="tile"):
    """The fields of a task that a failure needs. They may be valid although others are not."""

    job: Id
    tile: Index
    attempt: Attempt
    gateway: Id


@dataclass(frozen=True, slots=True)
class InvalidTask:
    """Why a payload is no task for this device.

    `reason` is one of a few fixed words, for counting. `text` is the full sentence. `address` is
    None if the payload does not name a gateway and a tile.
    """

    reason: str
    text: str
    address: ReplyAddress | None = None


class TaskDecoder:
    """Decodes the payloads on a device's `tiles` topic.

    `max_tile_pixels` is the largest accepted tile with its halo; 0 means any size.
    """

    def __init__(self, max_tile_pixels: int = 0) -> None:
        self._max_tile_pixels = max_tile_pixels
        self._tasks = Decoder(TileTask)
        self._envelopes = Decoder(_Envelope)

    def decode(self, payload: bytes | memoryview, now: float) -> TileLease | InvalidTask:
        """Return the task with checked pixels, or why it is invalid. `now` is monotonic seconds."""
        try:
            task = self._tasks.decode(payload)
        except WireError as problem:
            return InvalidTask("not a tile", str(problem), self._envelope_address(payload, now))
        if not is_id(task.gateway):
            return InvalidTask("not a tile", f"{task.gateway!r} is not the id of a gateway")
        address = _address(task, task.lease_s, payload, now)
        fault = self._check_size(task) or _check_pixels(task)
        if fault is not None:
            return InvalidTask(*fault, address)
        return TileLease(task, address, now)

    def _check_size(self, task: TileTask) -> tuple[str, str] | None:
        height, width, _ = task.shape
        if not 0 < self._max_tile_pixels < height * width:
            return None
        text = (
            f"{height}x{width} are {height * width:,} pixels, this device accepts "
            f"{self._max_tile_pixels:,} (device.max_tile_pixels); cut smaller tiles"
        )
        return "too large", text

    def _envelope_address(self, payload: bytes | memoryview, now: float) -> ReplyAddress | None:
        try:
            envelope = self._envelopes.decode(payload)
        except WireError:
            return None
        if not is_id(envelope.gateway):
            return None
        return _address(envelope, LONGEST_LEASE_S, payload, now)


def _address(
    message: TileTask | _Envelope, lease_s: float, payload: bytes | memoryview, now: float
) -> ReplyAddress:
    encoding: Encoding = "base64" if payload[:1] == b"{" else "binary"
    if not 0 < lease_s < LONGEST_LEASE_S:  # also true for NaN
        lease_s = LONGEST_LEASE_S
    return ReplyAddress(
        message.gateway,
        message.job,
        message.tile,
        message.attempt,
        encoding,
        now + lease_s,
        message.traceparent if isinstance(message, TileTask) else "",
        message.tracestate if isinstance(message, TileTask) else "",
    )


def _check_pixels(task: TileTask) -> tuple[str, str] | None:
    height, width, channels = task.shape
    if not Rect(0, 0, height, width).contains(Rect(*task.core)):
        return "core outside", f"the core {task.core} is not within the tile's {height}x{width}"
    expected = math.prod((height, width, channels, _ITEM_BYTES[task.dtype]))
    if task.codec == "raw" and len(task.pixels) != expected:
        return (
            "wrong length",
            f"the tile has {len(task.pixels)} bytes of pixels, "
            f"but {task.shape} {task.dtype} needs {expected}",
        )
    try:
        check_digest(task)
    except WireError as problem:
        return "wrong digest", str(problem)
    return None
