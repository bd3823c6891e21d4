"""What others read of a job's course: the state of each tile now, and when each attempt was where.

All times are seconds since the job was submitted, on the gateway's clock.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from fogmqtt.core.geometry import Rect
from fogmqtt.wire.service_messages import TileStatus

#: The phases of an attempt, in order:
#: `wait` for a thread of the gateway, `cut`, `encode`, `queue` until its turn to be published,
#: `wire_out` to the device, `device_queue`, `start` of the worker, `decode`, `compute`,
#: `encode_result`, `device` for time there of which the device said nothing, `wire_back`, `check`,
#: `merge_queue` until the job's coroutine takes the result, `paste`.
PHASES: Final = (
    "wait",
    "cut",
    "encode",
    "queue",
    "wire_out",
    "device_queue",
    "start",
    "decode",
    "compute",
    "encode_result",
    "device",
    "wire_back",
    "check",
    "merge_queue",
    "paste",
)


class AttemptEnd(Enum):
    """What became of an attempt. After the five `retried` ones the tile waited again."""

    RUNNING = "running"
    KEPT = "kept"
    #: The result of a check tile, which is compared and not merged.
    CHECKED = "check"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    LOST = "device lost"
    #: The scheduler took it back, because the device did not accept it or another one has time.
    TAKEN_BACK = "taken back"
    #: A hedge or its original that lost: another result of the tile was first.
    OUTRUN = "another was first"
    #: The device was refuted, so its result does not count.
    REFUTED = "refuted"
    #: The job or its stage ended.
    CANCELLED = "cancelled"

    @property
    def is_retried(self) -> bool:
        return self in _RETRIED


_RETRIED: Final = frozenset(
    {
        AttemptEnd.FAILED,
        AttemptEnd.REJECTED,
        AttemptEnd.EXPIRED,
        AttemptEnd.LOST,
        AttemptEnd.TAKEN_BACK,
    }
)


class TileNow(msgspec.Struct, frozen=True):
    """A tile at this moment. `core` lies in the image that enters the stage.

    `running` means that a device has it, in its queue or in work.
    """

    index: int
    core: Rect
    status: TileStatus
    #: The device that has it, or did it; empty while it waits.
    device: str = ""
    #: The number of its newest attempt; 0 before the first. Over 1, it was sent again.
    attempt: int = 0
    #: The devices that have it now; 2 while a hedge runs.
    copies: int = 0
    #: It is done once more, to compare; another tile has the same core.
    is_check: bool = False


class TilesNow(msgspec.Struct, frozen=True):
    """The tiles of the present stage that changed after a version, and the version now.

    A new plan has a new number: then `tiles` are all there are, and those of before are gone.
    """

    #: The number of the stage or plan, from 1 on.
    number: int
    #: Height and width of the image that enters the stage.
    size: tuple[int, int]
    #: It grows with each change, from stage to stage too.
    version: int
    #: The number of all tiles of the stage, check tiles and halves included.
    count: int
    tiles: list[TileNow]


class TracedSpan(msgspec.Struct, frozen=True):
    """A step of the job. Steps with one `track` follow or contain each other."""

    name: str
    track: str
    begin_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s


class TracedAttempt(msgspec.Struct, frozen=True):
    """One attempt of a tile. Its phases follow each other from `begin_s` to `end_s`.

    Those on the device are placed by its own durations between sending and receiving, since its
    clock is another one.
    """

    #: The stage's key.
    stage: str
    tile: int
    attempt: int
    device: str
    #: The worker of the device, or -1: it has none, or did not tell.
    worker: int
    end: AttemptEnd
    #: It was sent while another device had the tile.
    is_hedge: bool
    core: Rect
    begin_s: float
    #: The seconds of each phase, in the order of PHASES.
    phases: tuple[float, ...]
    bytes_out: int = 0
    bytes_back: int = 0
    #: Why it failed.
    reason: str = ""

    @property
    def end_s(self) -> float:
        return self.begin_s + sum(self.phases)

    def phase(self, name: str) -> tuple[float, float]:
        """Return when a phase began and how long it took."""
        index = PHASES.index(name)
        return self.begin_s + sum(self.phases[:index]), self.phases[index]


class JobTraceSnapshot(msgspec.Struct, frozen=True):
    """The course of a job up to now."""

    job: str
    name: str
    pipeline: str
    #: Unix time in seconds.
    submitted_at: float
    #: Seconds since then; up to the end, once the job has ended.
    seconds: float
    spans: list[TracedSpan]
    attempts: list[TracedAttempt]
    #: Attempts that are not in the list, since a job keeps so many at most.
    left_out: int = 0
    #: The W3C trace context of whoever submitted the job; empty if there was none.
    traceparent: str = ""
