"""Payloads to tasks, distrusting everything: what a device refuses before it works on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fogmqtt.agent.tile_lease import LONGEST_LEASE_S, TileAddress, TileLease
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
    """What can be answered of a task, even where the rest of it makes no sense."""

    job: Id
    tile: Index
    attempt: Attempt
    gateway: Id


@dataclass(frozen=True, slots=True)
class Unfit:
    """No task for us. `reason` is one of few words; `address` is None where it is illegible."""

    reason: str
    text: str
    address: TileAddress | None = None


class TaskDecoder:
    """Reads what arrives on a device's `tiles` topic; `max_tile_pixels` as in `Settings`."""

    def __init__(self, max_tile_pixels: int = 0) -> None:
        self._most = max_tile_pixels
        self._tasks = Decoder(TileTask)
        self._envelopes = Decoder(_Envelope)

    def read(self, payload: bytes, now: float) -> TileLease | Unfit:
        """The task with its pixels checked against its header, or what is wrong with it."""
        try:
            task = self._tasks.decode(payload)
        except WireError as problem:
            return Unfit("not a tile", str(problem), self._address(payload, now))
        if not is_id(task.gateway):
            return Unfit("not a tile", f"{task.gateway!r} is no gateway's id")
        address = _address(task, task.lease_s, payload, now)
        unfit = self._too_large(task) or _unfit(task)
        if unfit is not None:
            return Unfit(*unfit, address)
        return TileLease(task, address, now)

    def _too_large(self, task: TileTask) -> tuple[str, str] | None:
        height, width, _ = task.shape
        if not 0 < self._most < height * width:
            return None
        text = (
            f"{height}x{width} are {height * width:,} pixels where this device takes "
            f"{self._most:,} (device.max_tile_pixels); cut smaller tiles"
        )
        return "too large", text

    def _address(self, payload: bytes, now: float) -> TileAddress | None:
        try:
            envelope = self._envelopes.decode(payload)
        except WireError:
            return None
        if not is_id(envelope.gateway):
            return None
        return _address(envelope, LONGEST_LEASE_S, payload, now)


def _address(
    message: TileTask | _Envelope, lease_s: float, payload: bytes, now: float
) -> TileAddress:
    encoding: Encoding = "base64" if payload[:1] == b"{" else "binary"
    if not 0 < lease_s < LONGEST_LEASE_S:  # NaN is not between them either
        lease_s = LONGEST_LEASE_S
    return TileAddress(
        message.gateway, message.job, message.tile, message.attempt, encoding, now + lease_s
    )


def _unfit(task: TileTask) -> tuple[str, str] | None:
    height, width, channels = task.shape
    if not Rect(0, 0, height, width).contains(Rect(*task.core)):
        return "core outside", f"the core {task.core} is not within the tile's {height}x{width}"
    expected = math.prod((height, width, channels, _ITEM_BYTES[task.dtype]))
    if task.codec == "raw" and len(task.pixels) != expected:
        return (
            "wrong length",
            f"{len(task.pixels)} bytes of pixels where {task.shape} {task.dtype} has {expected}",
        )
    try:
        check_digest(task)
    except WireError as problem:
        return "wrong digest", str(problem)
    return None
