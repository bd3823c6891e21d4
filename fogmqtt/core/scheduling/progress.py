"""The progress of a job: of a running one, and the last one of an ended job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from msgspec import Struct


class JobState(Enum):
    """The state of a job."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


class DeviceProgress(Struct, frozen=True):
    """What one device contributed: kept results only."""

    tiles: int = 0
    pixels: int = 0


class Progress(Struct, frozen=True):
    """A job at one moment.

    `devices` are those whose results were kept. `retries` counts leases after a tile's first,
    `hedges` those granted beside a live one, `duplicates` results that came second. `checked` tiles
    were found right by a second device or by the gateway. No other figure includes check tiles.
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
    """What is kept of an ended job."""

    progress: Progress
    event_log: tuple[str, ...]
