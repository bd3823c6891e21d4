"""What the world tells the scheduler: facts, in the past tense.

`attempt` numbers the leases of one tile from 1. All times are seconds of a monotonic clock and
travel beside the event, never in it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """Tiles to do, all with the same operators.

    `tiles[i]` is the number of pixels that a device handles for tile i (halo included).
    `kind` names the work: service times are learned per device and kind.
    """

    job: str
    kind: str
    tiles: tuple[int, ...]
    operators: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class JobCancelled:
    job: str


@dataclass(frozen=True, slots=True)
class DeviceJoined:
    """A device is online, or announced itself anew.

    Another `boot` than before means that it restarted and holds nothing of what it was sent.
    """

    device: str
    boot: str
    workers: int
    operators: frozenset[str] = frozenset()


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

    `compute_s` is what the device says the work itself took; None where it did not say.
    """

    job: str
    tile: int
    attempt: int
    device: str
    compute_s: float | None = None


@dataclass(frozen=True, slots=True)
class TileFailed:
    """The operator raised, or the answer was garbage."""

    job: str
    tile: int
    attempt: int
    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class TileReturned:
    """The device hands a tile back undone: it is full, draining or stopping. Nobody's fault."""

    job: str
    tile: int
    attempt: int
    device: str


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
    | TileReturned
    | Tick
)
