"""A device as the scheduler knows it: what it may hold, what it holds, how fast it proved to be."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from fogmqtt.core.scheduling.state import ActiveJob, Lease, TileState


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """What a tile took of late, and how large it was: means with the same weights.

    So a large tile tells more than a small one, most of whose time may be the way.
    """

    seconds: float
    pixels: float
    #: The last tile took much longer than those before: a straggler, or the first of many.
    outlier: bool = False

    @property
    def rate(self) -> float:
        """Seconds per pixel."""
        return self.seconds / self.pixels


@dataclass(slots=True, eq=False)
class DeviceState:
    """One device, for as long as we remember it: rates and quarantine survive a restart."""

    id: str
    #: Breaks ties: the order of joining.
    serial: int
    boot: str
    workers: int
    operators: frozenset[str]
    #: Why it does not offer what it does not, by operator.
    lacks: Mapping[str, str] = field(default_factory=dict)
    #: No larger tile fits into its memory.
    max_tile_pixels: float = math.inf
    online: bool = True
    draining: bool = False
    quarantined: bool = False
    #: After a quarantine: one tile at a time until one succeeds.
    probation: bool = False
    #: Handed a tile back a moment ago.
    paused: bool = False
    #: The end of the quarantine or pause.
    wake_at: float | None = None
    #: What it holds, oldest first.
    leases: dict[TileState, Lease] = field(default_factory=dict)
    #: It holds a tile that others died of, and gets nothing beside it.
    exclusive: bool = False
    #: The start in which it claimed impossible timings.
    distrusted: str | None = None
    #: Mishaps in a row, and quarantines in a row, without a result in between.
    strikes: int = 0
    quarantines: int = 0
    #: Tiles handed back in a row, without one accepted in between.
    returns: int = 0
    #: Silences in a row: a tile was not even accepted.
    silences: int = 0
    silent_since: float = -math.inf
    #: What it needed to accept a tile: the longest of late, for tiles sent to it while idle too.
    accept_time_s: float = math.inf
    #: What a tile needs to reach it and its word to come back, where nothing else was on the way.
    round_trip_s: float = math.inf
    #: What a tile took it of late, of whatever kind; 0 before its first result.
    tile_s: float = 0.0
    #: Starts of its workers that were believed, in this life of its own: one for each.
    starts: int = 0
    #: When it last said anything about a tile.
    heard_at: float = -math.inf
    #: When its last results came, as many as it has workers.
    result_times: deque[float] = field(default_factory=deque)
    #: What it held when we lost the broker, oldest first.
    held_before_outage: list[TileState] = field(default_factory=list)
    #: How fast it is, by kind.
    service_times: dict[str, ServiceTime] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """It may be given tiles, if its window allows."""
        return self.online and not self.draining and not self.quarantined

    def suits(self, job: ActiveJob) -> bool:
        """It has the operators, room for the smallest parts of all tiles, and is believed."""
        fits = job.required_pixels <= self.max_tile_pixels
        return fits and job.operators <= self.operators and self.id not in job.refuted

    def freed_at(self, lease: Lease) -> float:
        """From when on a worker can have had this tile in its hands."""
        if lease.begun_at is not None:
            return lease.begun_at
        if len(self.result_times) < self.workers:
            return lease.granted_at
        return max(lease.granted_at, self.result_times[-self.workers])

    def begun_at(self, lease: Lease, place: int) -> float:
        """When a worker should have begun with what it holds in this place, from 0."""
        if lease.begun_at is not None:
            return lease.begun_at
        spare = self.workers - len(self.result_times)
        if place < spare:
            return lease.granted_at
        return max(lease.granted_at, self.result_times[place - spare])

    def begin(self) -> None:
        """Take note of what came into a worker's hands, after any change of what it holds."""
        for place, lease in enumerate(islice(self.leases.values(), self.workers)):
            # Not later: then the answers of other workers would be taken for this one's.
            lease.begun_at = self.begun_at(lease, place)

    def free_from(self) -> list[float]:
        """From when on each worker was free for what it has now, or is for what comes."""
        return [-math.inf] * (self.workers - len(self.result_times)) + list(self.result_times)

    def in_service(self) -> list[Lease]:
        """What its workers should have in their hands now."""
        return [lease for lease in self.leases.values() if lease.accepted][: self.workers]
