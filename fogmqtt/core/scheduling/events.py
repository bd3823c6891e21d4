"""What the world tells the scheduler: facts, in the past tense.

`attempt` numbers the leases of one tile from 1. All times are seconds of a monotonic clock and
travel beside the event, never in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """Tiles to do, all with the same operators.

    `tiles[i]` is the number of pixels that a device handles for tile i (halo included).
    `kind` names the work: service times are learned per device and kind.
    `twins` asks for second opinions: tile `len(tiles) + i` is tile `twins[i]` once more, to be
    done by another device (see `core.checks`). No tile may have two.
    `done` tiles need no work: an earlier life of the gateway has their results. They have no
    twins. A job all of whose tiles are done finishes at once.
    `halves[i]` are the pixels that a part of tile i has, halo included, after one halving, two, …
    (the largest, where they differ); empty where it cannot be halved, or none can.
    Each step of `priority` doubles the share of the fleet's time that the job has beside others.
    """

    job: str
    kind: str
    tiles: tuple[int, ...]
    operators: frozenset[str] = frozenset()
    check_tiles: tuple[int, ...] = ()
    done: frozenset[int] = frozenset()
    halves: tuple[tuple[int, ...], ...] = ()
    priority: int = 0


@dataclass(frozen=True, slots=True)
class JobCancelled:
    job: str


@dataclass(frozen=True, slots=True)
class DeviceJoined:
    """A device is online, or announced itself anew.

    Another `boot` than before means that it restarted and holds nothing of what it was sent.
    `lacks` says of operators that it does not offer why not, as a user should read it.
    No tile of more than `max_tile_pixels`, halo included, fits into its memory.
    """

    device: str
    boot: str
    workers: int
    operators: frozenset[str] = frozenset()
    lacks: Mapping[str, str] = field(default_factory=dict, hash=False)
    max_tile_pixels: float = math.inf


@dataclass(frozen=True, slots=True)
class DeviceLost:
    """Its last will, its goodbye, or its silence."""

    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceDraining:
    """It finishes what it holds and takes nothing more."""

    device: str


@dataclass(frozen=True, slots=True)
class BrokerLost:
    """We lost the broker ourselves: this says nothing about any device."""


@dataclass(frozen=True, slots=True)
class TileAccepted:
    """The device has the tile in its hands. (A broker's PUBACK is no such promise.)"""

    job: str
    tile: int
    attempt: int
    device: str


@dataclass(frozen=True, slots=True)
class ResultArrived:
    """A whole, valid result; its pixels wait at the door for KeepResult or DropResult.

    `compute_s` is what the device says the work itself took, and `start_s` what it took to start
    the process that does such work, which happens once; None where it did not say.
    `digest` stands for the pixels: two results of one tile are the same if theirs are. Only jobs
    with twins need it.
    """

    job: str
    tile: int
    attempt: int
    device: str
    compute_s: float | None = None
    digest: int | None = None
    start_s: float | None = None


@dataclass(frozen=True, slots=True)
class TileFailed:
    """The operator raised, or the answer was garbage."""

    job: str
    tile: int
    attempt: int
    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class TileRejected:
    """The device hands a tile back undone: it is full, draining or stopping. Nobody's fault."""

    job: str
    tile: int
    attempt: int
    device: str


@dataclass(frozen=True, slots=True)
class TileArbitrated:
    """The gateway has done a tile itself: the answer to `Arbitrate`.

    `digest` is that of the right result; None where the gateway could not tell.
    """

    job: str
    tile: int
    digest: int | None


@dataclass(frozen=True, slots=True)
class DeviceRefuted:
    """Somebody knows that the device gave a wrong result for this job, running or not."""

    job: str
    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Only time passed."""


Event = (
    JobSubmitted
    | JobCancelled
    | DeviceJoined
    | DeviceLost
    | DeviceDraining
    | BrokerLost
    | TileAccepted
    | ResultArrived
    | TileFailed
    | TileRejected
    | TileArbitrated
    | DeviceRefuted
    | Tick
)
