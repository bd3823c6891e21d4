"""Actions: what the gateway must do for the scheduler."""

from __future__ import annotations

from dataclasses import dataclass

from fogmqtt.core.scheduling.events import Attempt


@dataclass(frozen=True, slots=True)
class SendTile(Attempt):
    """Cut, encode and publish a tile. The message may expire after `lease_s` seconds."""

    lease_s: float


@dataclass(frozen=True, slots=True)
class CancelTile(Attempt):
    """Tell the device to drop a tile; best effort."""

    #: The lease ran out. The device may finish a tile that it has begun: a late result counts.
    expired: bool = False


@dataclass(frozen=True, slots=True)
class SplitTile:
    """Replace a waiting tile by its two halves."""

    job: str
    tile: int
    first: int
    second: int


@dataclass(frozen=True, slots=True)
class KeepResult(Attempt):
    """Merge this result: it is the one that counts for its tile."""


@dataclass(frozen=True, slots=True)
class DropResult(Attempt):
    """Discard this result."""

    reason: str


@dataclass(frozen=True, slots=True)
class RevokeResult(Attempt):
    """Undo the merge of a result: its device is refuted. Another result follows."""


@dataclass(frozen=True, slots=True)
class Arbitrate:
    """Two devices differ in this tile: recompute it and answer with `TileArbitrated`.

    The job does not end before the answer.
    """

    job: str
    tile: int


@dataclass(frozen=True, slots=True)
class FinishJob:
    """Every tile has its result."""

    job: str
    makespan_s: float


@dataclass(frozen=True, slots=True)
class FailJob:
    """The job ends without a result; `reason` is for the user."""

    job: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReportStarved:
    """No able device has been there for `waited_s` seconds. Reported once per wait."""

    job: str
    waited_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The device gets no new tiles for `seconds`; for the log and the dashboard."""

    device: str
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class DistrustTimings:
    """The device reports impossible timings, which are ignored. Reported once per start."""

    device: str
    claim: str


Action = (
    SendTile
    | SplitTile
    | CancelTile
    | KeepResult
    | DropResult
    | RevokeResult
    | Arbitrate
    | FinishJob
    | FailJob
    | ReportStarved
    | Quarantine
    | DistrustTimings
)
