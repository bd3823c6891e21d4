"""What the scheduler tells the world to do: commands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SendTile:
    """Cut, encode and publish; the message may expire after `lease_s` seconds."""

    job: str
    tile: int
    attempt: int
    device: str
    lease_s: float


@dataclass(frozen=True, slots=True)
class CancelTile:
    """No longer wanted from this device; best effort."""

    job: str
    tile: int
    attempt: int
    device: str
    #: Only its lease ran out: what is at work on it already may finish, and late is not wrong.
    expired: bool = False


@dataclass(frozen=True, slots=True)
class SplitTile:
    """Cut a tile that nobody has into two halves; it is done with, they take its place."""

    job: str
    tile: int
    first: int
    second: int


@dataclass(frozen=True, slots=True)
class KeepResult:
    """Merge the result that waits at the door: it is the one that counts for this tile."""

    job: str
    tile: int
    attempt: int
    device: str


@dataclass(frozen=True, slots=True)
class DropResult:
    """Forget the result that waits at the door."""

    job: str
    tile: int
    attempt: int
    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class RevokeResult:
    """What was kept does not count any more: the device is disproved. Another result will come."""

    job: str
    tile: int
    attempt: int
    device: str


@dataclass(frozen=True, slots=True)
class Arbitrate:
    """Two devices differ in this tile: do it here, and answer with `TileArbitrated`.

    The job does not end before the answer, whatever else happens.
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
    """The job ends without a result; `reason` is the story for the user."""

    job: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReportStarved:
    """No device that could do this job has been there for `waited_s` seconds. Said once a wait."""

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
    """What the device says of its own work cannot be; ours is used. Said once per start."""

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
