"""Actions: what the gateway must do for the scheduler."""

from __future__ import annotations

from msgspec import Struct

from fogmqtt.core.scheduling.events import Attempt


class SendTile(Attempt, frozen=True):
    """Cut, encode and publish a tile. The message may expire after `lease_s` seconds."""

    lease_s: float


class CancelTile(Attempt, frozen=True):
    """Tell the device to drop a tile; best effort."""

    #: The lease ran out. The device may finish a tile that it has begun: a late result counts.
    expired: bool = False


class ConfirmLink(Struct, frozen=True):
    """Something is late. Answer with `LinkConfirmed` when all that arrived before now is handled:
    the reason may be the gateway's own link.
    """


class SplitTile(Struct, frozen=True):
    """Replace a waiting tile by its two halves."""

    job: str
    tile: int
    first: int
    second: int


class KeepResult(Attempt, frozen=True):
    """Merge this result: it is the one that counts for its tile."""


class DropResult(Attempt, frozen=True):
    """Discard this result."""

    reason: str


class RevokeResult(Attempt, frozen=True):
    """Undo the merge of a result: its device is refuted. Another result follows."""


class Arbitrate(Struct, frozen=True):
    """Two devices differ in this tile: recompute it and answer with `TileArbitrated`.

    The job does not end before the answer.
    """

    job: str
    tile: int


class FinishJob(Struct, frozen=True):
    """Every tile has its result."""

    job: str
    makespan_s: float


class FailJob(Struct, frozen=True):
    """The job ends without a result; `reason` is for the user."""

    job: str
    reason: str


class ReportStarved(Struct, frozen=True):
    """No able device has been there for `waited_s` seconds. Reported once per wait."""

    job: str
    waited_s: float
    reason: str


class Quarantine(Struct, frozen=True):
    """The device gets no new tiles for `seconds`; for the log and the dashboard."""

    device: str
    seconds: float
    reason: str


class DistrustTimings(Struct, frozen=True):
    """The device reports impossible timings, which are ignored. Reported once per start."""

    device: str
    claim: str


Action = (
    SendTile
    | ConfirmLink
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
