"""Events: what happened outside, for the scheduler to handle.

`attempt` numbers the leases of one tile from 1. All times are seconds of a monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from msgspec import Struct, field


class Attempt(Struct, frozen=True):
    """The n-th lease of a tile, which the device held."""

    job: str
    tile: int
    attempt: int
    device: str


class JobSubmitted(Struct, frozen=True):
    """A job's tiles, all with the same operators.

    `tiles[i]` is the number of pixels that a device handles for tile i, halo included. `kind` names
    the work: service times are learned per device and kind.

    `check_tiles` asks for spot checks: tile `len(tiles) + i` is tile `check_tiles[i]` once more,
    for another device. A tile has at most one check tile.

    `done` tiles need no work: their results are in the gateway's journal. They have no check tiles.
    A job whose tiles are all done finishes at once.

    `halves[i]` are the pixels of a part of tile i, halo included, after one halving, two, … (the
    largest, where they differ). An empty tuple means that the tile cannot be halved.

    Each step of `priority` doubles the job's share of the fleet's time. `pixel_bytes` is the size
    of a tile's message over its pixels: the scheduler limits the bytes that are in flight.
    """

    job: str
    kind: str
    tiles: tuple[int, ...]
    operators: frozenset[str] = frozenset()
    check_tiles: tuple[int, ...] = ()
    done: frozenset[int] = frozenset()
    halves: tuple[tuple[int, ...], ...] = ()
    priority: int = 0
    pixel_bytes: float = 0.0


class JobCancelled(Struct, frozen=True):
    """Nobody wants the job any more. `is_late`: because its results were not there in time."""

    job: str
    is_late: bool = False


class DeviceJoined(Struct, frozen=True):
    """A device came online, or sent its description again.

    A new `boot` means that it restarted and holds none of its former tiles. `lacks` says why it
    does not offer an operator. Tiles of more than `max_tile_pixels`, halo included, do not fit into
    its memory.
    """

    device: str
    boot: str
    workers: int
    operators: frozenset[str] = frozenset()
    lacks: Mapping[str, str] = field(default_factory=dict)
    max_tile_pixels: float = math.inf
    #: It is a part of the gateway, and needs no link.
    is_local: bool = False


class DeviceLost(Struct, frozen=True):
    """The device is gone: its last will, its goodbye, or its silence."""

    device: str
    reason: str


class DeviceDraining(Struct, frozen=True):
    """The device finishes what it holds and takes nothing more."""

    device: str


class DeviceReported(Struct, frozen=True):
    """The device checked in: it holds so many tiles, those of other gateways included."""

    device: str
    held: int


class BrokerLost(Struct, frozen=True):
    """The gateway lost the broker. This says nothing about any device."""


class LinkConfirmed(Struct, frozen=True):
    """The broker answers, and everything that it had sent before `at` is handled.

    The answer to `ConfirmLink`.
    """

    at: float


class TileSent(Attempt, frozen=True):
    """The tile is on the wire: the device's time to accept it starts now.

    Only for a Scheduler with `sends_reported`.
    """


class TileAccepted(Attempt, frozen=True):
    """The device has the tile. (A PUBACK of the broker does not say that.)

    It arrived at `at`, if the gateway handles it later than that.
    """

    at: float | None = None


class ResultArrived(Attempt, frozen=True):
    """A complete, valid result. The gateway keeps it until KeepResult or DropResult.

    `compute_s` is the time of the work itself, and `start_s` the time to start its worker process,
    as the device reports them; None if it does not. `digest` identifies the pixels: two results of
    a tile are the same if their digests are. Only jobs with check tiles need it. It
    arrived at `at`, if the gateway handles it later than that.
    """

    compute_s: float | None = None
    digest: int | None = None
    start_s: float | None = None
    at: float | None = None


class TileFailed(Attempt, frozen=True):
    """The operator raised, or the result was invalid."""

    reason: str


class TileRejected(Attempt, frozen=True):
    """The device rejects a tile: it is full, draining or stopping. Nobody is to blame."""


class TileArbitrated(Struct, frozen=True):
    """The gateway has recomputed a tile: the answer to `Arbitrate`.

    `digest` is that of the right result; None if the gateway failed, too.
    """

    job: str
    tile: int
    digest: int | None


class DeviceRefuted(Struct, frozen=True):
    """The device gave a wrong result for this job, which may have ended."""

    job: str
    device: str
    reason: str


class Tick(Struct, frozen=True):
    """Nothing happened but the passing of time."""


Event = (
    JobSubmitted
    | JobCancelled
    | DeviceJoined
    | DeviceLost
    | DeviceDraining
    | DeviceReported
    | BrokerLost
    | LinkConfirmed
    | TileSent
    | TileAccepted
    | ResultArrived
    | TileFailed
    | TileRejected
    | TileArbitrated
    | DeviceRefuted
    | Tick
)
