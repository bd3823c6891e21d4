"""How far a job is: what is told of a running one, and kept of one that ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class JobState(Enum):
    """How far a job is."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DeviceProgress:
    """What one device contributed: kept results only."""

    tiles: int = 0
    pixels: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """A job at one moment.

    `devices` has those whose results were kept. `retries` counts leases after a tile's first,
    `hedges` those given beside a live one, `duplicates` results that came second. `checked`
    tiles were found right by a second device or by the gateway; no other figure has twins in it.
    """

    job: str
    state: JobState
    done: int
    total: int
    devices: Mapping[str, DeviceProgress]
    retries: int
    hedges: int
    duplicates: int
    checked: int = 0


@dataclass(slots=True)
class Ended:
    """What is kept of a job after its end."""

    progress: Progress
    event_log: tuple[str, ...]
