"""Jobs, tiles and leases: who was given what, and what came of it.

The ledger keeps every lease of a running job, ended ones too, because a late result is as good
as any other: it counts if that device was ever granted that attempt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from fogmqtt.core.events import JobSubmitted
from fogmqtt.core.story import Story, short

#: So many of a tile's mishaps are kept for the story.
_MISHAPS = 8


class JobState(Enum):
    """How far a job is."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Share:
    """What one device contributed: kept results only."""

    tiles: int = 0
    pixels: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """A job at one moment.

    `devices` has those whose results were kept. `retries` counts leases after a tile's first,
    `hedges` those given beside a live one, `duplicates` results that came second.
    """

    job: str
    state: JobState
    done: int
    total: int
    devices: Mapping[str, Share]
    retries: int
    hedges: int
    duplicates: int


@dataclass(slots=True, eq=False)
class Lease:
    """The promise that one device has one tile until it expires (`wake_at`)."""

    tile: Tile
    attempt: int
    device: str
    granted_at: float
    #: How long the device may take to accept it.
    patience_s: float
    #: The device holds nothing else while it holds this.
    alone: bool = False
    accepted: bool = False
    #: The device said how it ended: a result, a failure or a return.
    answered: bool = False
    wake_at: float | None = None

    @property
    def live(self) -> bool:
        return self in self.tile.leases


@dataclass(slots=True, eq=False)
class Tile:
    """WAITING while it has neither lease nor result, LEASED, or DONE."""

    job: Job
    index: int
    pixels: int
    done: bool = False
    #: Every lease ever granted; attempt n is at n - 1.
    grants: list[Lease] = field(default_factory=list)
    #: The live ones: at most two, on different devices.
    leases: list[Lease] = field(default_factory=list)
    failures: int = 0
    losses: int = 0
    expiries: int = 0
    failed_on: frozenset[str] = frozenset()
    #: Devices that failed it or let it expire: others are asked first.
    shunned: frozenset[str] = frozenset()
    mishaps: tuple[str, ...] = ()
    #: The end of its back-off.
    wake_at: float | None = None

    def lease(self, attempt: int, device: str) -> Lease | None:
        """What this device was granted under this attempt, ended or not."""
        if not 1 <= attempt <= len(self.grants):
            return None
        lease = self.grants[attempt - 1]
        return lease if lease.device == device else None

    def blame_failure(self, device: str, reason: str) -> None:
        self.failures += 1
        self.failed_on |= {device}
        self.shunned |= {device}
        self._remember(device, reason)

    def blame_loss(self, device: str, reason: str) -> None:
        self.losses += 1
        self._remember(device, reason)

    def blame_expiry(self, device: str, after_s: float) -> None:
        self.expiries += 1
        self.shunned |= {device}
        self._remember(device, f"no answer within {after_s:.1f} s")

    def _remember(self, device: str, what: str) -> None:
        self.mishaps = (*self.mishaps, f"{device}: {short(what)}")[-_MISHAPS:]

    def __str__(self) -> str:
        return f"tile {self.index}"


@dataclass(slots=True, eq=False)
class Job:
    """A running job. Every waiting tile is in one of three queues or has a back-off timer."""

    id: str
    kind: str
    operators: frozenset[str]
    submitted_at: float
    story: Story
    tiles: tuple[Tile, ...] = ()
    remaining: int = 0
    #: Waiting for any able device. Ordered for its popitem: a dict's head is slow to find again.
    ready: OrderedDict[Tile, None] = field(default_factory=OrderedDict)
    #: Waiting, and some device is shunned.
    choosy: OrderedDict[Tile, None] = field(default_factory=OrderedDict)
    #: Waiting for a device that holds nothing else: devices died of these.
    suspects: OrderedDict[Tile, None] = field(default_factory=OrderedDict)
    shares: dict[str, Share] = field(default_factory=dict)
    #: Tiles that were sent at least once.
    started: int = 0
    leased: int = 0
    hedges: int = 0
    duplicates: int = 0
    #: Since when no able device is there; None while one is.
    starved_since: float | None = None
    #: When that is reported.
    wake_at: float | None = None

    @classmethod
    def submitted(cls, event: JobSubmitted, now: float) -> Job:
        """Raises ValueError for a job without tiles, or a tile without pixels."""
        if not event.tiles:
            raise ValueError(f"job {event.job!r} has no tiles; cut the image first")
        if min(event.tiles) < 1:
            raise ValueError(f"job {event.job!r} has a tile without pixels: {min(event.tiles)}")
        job = cls(event.job, event.kind, event.operators, now, Story(now))
        job.tiles = tuple(Tile(job, index, pixels) for index, pixels in enumerate(event.tiles))
        job.ready.update(dict.fromkeys(job.tiles))
        job.remaining = len(job.tiles)
        return job

    @property
    def waits(self) -> bool:
        """Some tile could be sent at once."""
        return bool(self.ready or self.choosy or self.suspects)

    def tile(self, index: int) -> Tile | None:
        return self.tiles[index] if 0 <= index < len(self.tiles) else None

    def enqueue(self, tile: Tile, *, alone: bool) -> None:
        """Let a tile wait for a device, ahead of those that were never sent."""
        queue = self.suspects if alone else self.choosy if tile.shunned else self.ready
        queue[tile] = None
        if queue is self.ready:
            queue.move_to_end(tile, last=False)

    def dequeue(self, tile: Tile) -> bool:
        """Whether it waited in one of the queues; now it does not."""
        for queue in (self.ready, self.choosy, self.suspects):
            if tile in queue:
                del queue[tile]
                return True
        return False

    def grant(self, lease: Lease) -> None:
        """Book a lease, the tile's first or a further one."""
        tile = lease.tile
        self.dequeue(tile)
        self.leased += 1
        self.started += not tile.grants
        self.hedges += bool(tile.leases)
        tile.grants.append(lease)
        tile.leases.append(lease)

    def credit(self, lease: Lease) -> None:
        """The lease's result is the one that counts."""
        share = self.shares.get(lease.device, Share())
        self.shares[lease.device] = Share(share.tiles + 1, share.pixels + lease.tile.pixels)
        lease.tile.done = True
        self.remaining -= 1

    def live_leases(self) -> Iterator[Lease]:
        for tile in self.tiles:
            yield from tile.leases

    def progress(self, state: JobState = JobState.RUNNING) -> Progress:
        return Progress(
            job=self.id,
            state=state,
            done=len(self.tiles) - self.remaining,
            total=len(self.tiles),
            devices=dict(self.shares),
            retries=self.leased - self.started - self.hedges,
            hedges=self.hedges,
            duplicates=self.duplicates,
        )


@dataclass(slots=True)
class Ended:
    """What is kept of a job after its end."""

    progress: Progress
    story: tuple[str, ...]
