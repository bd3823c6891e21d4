"""A device as the scheduler knows it: its limits, the tiles that it holds, and its speed."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from msgspec import Struct

from fogmqtt.core.scheduling.state import ActiveJob, Lease, TileState


class ServiceTime(Struct, frozen=True):
    """The mean time and the mean size of recent tiles, with the same weights.

    A large tile weighs more than a small one, whose time is mostly latency.
    """

    seconds: float
    pixels: float
    #: The last tile took much longer than expected: a straggler, or the first of many.
    outlier: bool = False

    @property
    def rate(self) -> float:
        """Seconds per pixel."""
        return self.seconds / self.pixels


@dataclass(slots=True, eq=False)
class DeviceState:
    """One device, for as long as it is known. Rates and quarantine survive a restart."""

    id: str
    #: The order of joining. It breaks ties.
    serial: int
    boot: str
    workers: int
    operators: frozenset[str]
    #: Why it does not offer an operator, by operator.
    lacks: Mapping[str, str] = field(default_factory=dict)
    #: Larger tiles do not fit into its memory.
    max_tile_pixels: float = math.inf
    #: It is a part of the gateway, and needs no link.
    is_local: bool = False
    online: bool = True
    draining: bool = False
    quarantined: bool = False
    #: After a quarantine: one tile at a time until one succeeds.
    probation: bool = False
    #: It rejected a tile a moment ago.
    paused: bool = False
    #: The end of the quarantine or pause.
    wake_at: float | None = None
    #: Tiles of other gateways that it held when it last reported.
    held_for_others: int = 0
    #: Until then it may still hold tiles that were cancelled.
    cancelling_until: float = -math.inf
    #: The tiles that it holds, oldest first.
    leases: dict[TileState, Lease] = field(default_factory=dict)
    #: It holds a tile that other devices died of, and gets no other beside it.
    exclusive: bool = False
    #: The boot id under which it claimed impossible timings.
    distrusted: str | None = None
    #: Faults in a row, and quarantines in a row, without a result in between.
    faults: int = 0
    quarantines: int = 0
    #: How many of the faults are silences, and whether it is in quarantine for these alone. Both
    #: are cleared when it comes back with the same boot id: its link was down.
    silent_faults: int = 0
    is_forgivable: bool = False
    #: Rejected tiles in a row, without an accepted one in between.
    returns: int = 0
    #: Silences in a row. A silence is a tile that was not accepted in time.
    silences: int = 0
    silent_since: float = -math.inf
    #: The longest recent time to accept a tile.
    accept_time_s: float = math.inf
    #: The time to send a tile and receive its `accepted`, when nothing else was in transit.
    round_trip_s: float = math.inf
    #: The mean time of its recent tiles of any kind; 0 before its first result.
    tile_s: float = 0.0
    #: Worker starts since its boot that were subtracted from a service time: one per worker.
    starts: int = 0
    #: When it last sent a message about a tile.
    heard_at: float = -math.inf
    #: When it last checked in.
    checked_in_at: float = -math.inf
    #: When its last results came, as many as it has workers.
    result_times: deque[float] = field(default_factory=deque)
    #: What it had accepted when it was lost, or when the gateway lost the broker, oldest first.
    held_before_loss: list[Lease] = field(default_factory=list)
    #: Why it was lost with tiles; empty if it was not. It died if it comes back with another boot.
    lost_with_tiles: str = ""
    #: Its service time by kind of work.
    service_times: dict[str, ServiceTime] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether it may be given tiles, if its window allows."""
        return self.online and not self.draining and not self.quarantined

    @property
    def has_answered(self) -> bool:
        """Whether it ever sent a message about a tile."""
        return self.heard_at > -math.inf

    @property
    def mute(self) -> bool:
        """Whether it was given a tile and has never sent a message about one."""
        return self.silences > 0 and not self.has_answered

    @property
    def doubtful(self) -> bool:
        """Whether it has never answered, or did not accept the last tile: it may be mute."""
        return self.silences > 0 or not self.has_answered

    def suits(self, job: ActiveJob) -> bool:
        """Whether it has the operators and room for the smallest parts of all tiles, and is
        trusted.
        """
        fits = job.required_pixels <= self.max_tile_pixels
        return fits and job.operators <= self.operators and self.id not in job.refuted

    def freed_at(self, lease: Lease) -> float:
        """When a worker could begin with this tile."""
        if lease.begun_at is not None:
            return lease.begun_at
        if len(self.result_times) < self.workers:
            return lease.starts_at
        return max(lease.starts_at, self.result_times[-self.workers])

    def begun_at(self, lease: Lease, place: int) -> float:
        """When a worker could begin with the tile at this position, from 0."""
        if lease.begun_at is not None:
            return lease.begun_at
        spare = self.workers - len(self.result_times)
        if place < spare:
            return lease.starts_at
        return max(lease.starts_at, self.result_times[place - spare])

    def begin(self) -> None:
        """Record which tiles a worker has begun. Call this after any change of what it holds."""
        for place, lease in enumerate(islice(self.leases.values(), self.workers)):
            # Later on, results of other workers would be mistaken for this one's.
            lease.begun_at = self.begun_at(lease, place)

    def free_from(self) -> list[float]:
        """When each worker was or will be free for its current tile."""
        return [-math.inf] * (self.workers - len(self.result_times)) + list(self.result_times)

    def in_service(self) -> list[Lease]:
        """The tiles that its workers are expected to work on now."""
        return [lease for lease in self.leases.values() if lease.accepted][: self.workers]
