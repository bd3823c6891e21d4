"""A tile that the agent has queued or runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fogmqtt.core.device_queue import TileKey
from fogmqtt.wire.messages import Encoding, TileTask

#: Seconds of a lease whose length is invalid, and the maximum of all others.
LONGEST_LEASE_S = 3600.0


@dataclass(frozen=True, slots=True)
class ReplyAddress:
    """The gateway and the tile of a reply, and the encoding that the gateway used."""

    gateway: str
    job: str
    tile: int
    attempt: int
    encoding: Encoding
    #: The end of the lease in monotonic seconds. The gateway has given up the tile by then.
    expires_at: float
    #: The trace of the tile, which the result repeats.
    traceparent: str = ""
    tracestate: str = ""


@dataclass(frozen=True, slots=True)
class TileLease:
    """A task, its reply address, and its arrival in monotonic seconds."""

    task: TileTask
    address: ReplyAddress
    received_at: float

    def is_overdue(self, now: float) -> bool:
        """Whether nobody wants the result any more, at `now` in monotonic seconds."""
        budget_s = self.task.budget_s
        return budget_s > 0 and now > self.received_at + budget_s

    @property
    def deadline(self) -> float:
        """When a frame needs the result, in monotonic seconds; never for a tile of a job."""
        if self.task.budget_s > 0:
            return self.received_at + self.task.budget_s
        return math.inf if self.task.memory is None else self.received_at

    @property
    def key(self) -> TileKey:
        """The key that all attempts of the tile share."""
        return TileKey(self.task.gateway, self.task.job, self.task.tile)
