"""A tile in the agent's hands."""

from __future__ import annotations

from dataclasses import dataclass

from fogmqtt.core.device_queue import TileKey
from fogmqtt.wire.messages import Encoding, TileTask

#: Seconds; a lease of no sensible length counts as this.
LONGEST_LEASE_S = 3600.0


@dataclass(frozen=True, slots=True)
class TileAddress:
    """Whom to answer about what, and in which encoding."""

    gateway: str
    job: str
    tile: int
    attempt: int
    encoding: Encoding
    #: Monotonic seconds: when the gateway has given up waiting for the answer.
    until: float


@dataclass(frozen=True, slots=True)
class TileLease:
    """A task and when it came, in monotonic seconds."""

    task: TileTask
    address: TileAddress
    received_at: float

    @property
    def key(self) -> TileKey:
        return TileKey(self.task.gateway, self.task.job, self.task.tile)
