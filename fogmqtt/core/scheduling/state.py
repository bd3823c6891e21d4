"""Jobs, tiles and leases: which device was given which tile, and with what result.

A running job keeps every lease, ended ones too, because a late result counts if that device was
ever granted that attempt.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from fogmqtt.core.fair_queue import weight
from fogmqtt.core.scheduling.event_log import EventLog, short
from fogmqtt.core.scheduling.events import JobSubmitted
from fogmqtt.core.scheduling.progress import DeviceProgress, JobState, Progress
from fogmqtt.core.scheduling.waiting_tiles import WaitingTiles

#: Faults of a tile that are kept for the failure report.
_FAULTS = 8


class SpotCheckState(Enum):
    """The progress of a spot check."""

    #: No second device has answered yet.
    OPEN = auto()
    #: The two results differ, and the gateway recomputes the tile.
    DISPUTED = auto()
    AGREED = auto()
    #: No second device is available, or the gateway could not decide.
    GIVEN_UP = auto()


@dataclass(slots=True, eq=False)
class SpotCheck:
    """A tile and its check tile: the same pixels, for another device."""

    tile: TileState
    check_tile: TileState
    state: SpotCheckState = SpotCheckState.OPEN
    #: The digest of the right result, once the gateway has recomputed the tile.
    correct_digest: int | None = None

    @property
    def undecided(self) -> bool:
        return self.state is SpotCheckState.OPEN or self.state is SpotCheckState.DISPUTED

    def decide(self, state: SpotCheckState) -> None:
        """Change the state. Only an open check needs a device."""
        self.state = state
        self.check_tile.done = state is not SpotCheckState.OPEN


@dataclass(slots=True, eq=False)
class Lease:
    """One device holds one tile until the lease expires at `wake_at`."""

    tile: TileState
    attempt: int
    device: str
    granted_at: float
    #: How long the device may take to accept the tile.
    accept_timeout_s: float
    #: The device holds no other tile beside this one.
    exclusive: bool = False
    #: When its message was on the wire; infinity before that.
    sent_at: float = math.inf
    accepted: bool = False
    accepted_at: float = -math.inf
    #: No other tile was in transit to the device when this one was sent.
    first: bool = False
    #: The device answered: with a result, a failure or a rejection.
    answered: bool = False
    #: Its end was counted against its tile, and against its device. Each counts once.
    blamed: bool = False
    counted: bool = False
    #: The tile failed here. Whether the tile or the device is at fault is not known yet.
    failed: bool = False
    #: Its device was lost and came back with the same boot id.
    survived: bool = False
    #: When a worker could begin with the tile; None while it waits for one.
    begun_at: float | None = None
    #: When it ran out, while that may be due to the gateway's own link.
    overdue_since: float | None = None
    #: When the device accepted a tile that was sent later.
    overtaken_at: float = math.inf
    #: The digest of its result, if that result counts.
    digest: int | None = None
    wake_at: float | None = None

    @property
    def is_sent(self) -> bool:
        return self.sent_at < math.inf

    @property
    def starts_at(self) -> float:
        """From when on the device's time counts."""
        return self.sent_at if self.is_sent else self.granted_at

    @property
    def live(self) -> bool:
        return self in self.tile.leases


@dataclass(slots=True, eq=False)
class TileState:
    """A tile is WAITING while it has neither lease nor result, LEASED, or DONE.

    A check tile is dormant until its tile is DONE. It is DONE itself when its check is decided or
    given up.
    """

    job: ActiveJob
    index: int
    pixels: int
    #: The pixels of each part after one halving, two, …; empty if it cannot be halved.
    halves: tuple[int, ...] = ()
    #: Its halves replace it; it counts as done.
    split: bool = False
    done: bool = False
    #: It was done before the job was submitted.
    done_before: bool = False
    #: The lease whose result counts; None if it was done before.
    kept: Lease | None = None
    #: Shared by a tile and its check tile.
    check: SpotCheck | None = None
    #: Every lease ever granted; attempt n is at n - 1.
    grants: list[Lease] = field(default_factory=list)
    #: The live leases: at most two, on different devices.
    leases: list[Lease] = field(default_factory=list)
    failures: int = 0
    #: The leases under which a device died. One that came back with the same boot id survived.
    deaths: tuple[Lease, ...] = ()
    expiries: int = 0
    failed_on: frozenset[str] = frozenset()
    #: Devices that failed it or let it expire. Other devices are preferred.
    excluded: frozenset[str] = frozenset()
    faults: tuple[str, ...] = ()
    #: The end of its back-off.
    wake_at: float | None = None

    @property
    def nbytes(self) -> int:
        """The size of its message."""
        return math.ceil(self.pixels * self.job.pixel_bytes)

    @property
    def losses(self) -> int:
        """How often a device died while it worked on the tile."""
        return sum(not lease.survived for lease in self.deaths)

    @property
    def lost_on(self) -> frozenset[str]:
        """The devices that died while they worked on the tile."""
        return frozenset(lease.device for lease in self.deaths if not lease.survived)

    @property
    def least(self) -> int:
        """The pixels of its smallest part."""
        return self.halves[-1] if self.halves else self.pixels

    def halve(self, index: int) -> TileState:
        """One of its halves, with the same faults."""
        return replace(
            self, index=index, pixels=self.halves[0], halves=self.halves[1:], grants=[], leases=[]
        )

    @property
    def is_check_tile(self) -> bool:
        return self.check is not None and self.check.check_tile is self

    @property
    def is_dormant(self) -> bool:
        """Whether it is a check tile whose tile has no result yet."""
        return self.check is not None and self.check.check_tile is self and not self.check.tile.done

    @property
    def excluded_devices(self) -> frozenset[str]:
        """Devices that must not get it, even if there are no others."""
        check = self.check
        if check is None or check.tile is self:
            return self.job.refuted
        first = check.tile.kept
        return self.job.refuted | self.excluded | ({first.device} if first else frozenset())

    def first_granted(self, device: str) -> float:
        """When this device first got the tile; infinity if never."""
        return min(
            (one.granted_at for one in self.grants if one.device == device), default=math.inf
        )

    def lease(self, attempt: int, device: str) -> Lease | None:
        """The lease of this attempt if this device held it, ended or not."""
        if not 1 <= attempt <= len(self.grants):
            return None
        lease = self.grants[attempt - 1]
        return lease if lease.device == device else None

    def blame_failure(self, device: str, reason: str) -> None:
        self.failures += 1
        self.failed_on |= {device}
        self.excluded |= {device}
        self._remember(device, reason)

    def blame_loss(self, lease: Lease, reason: str) -> None:
        self.deaths += (lease,)
        self._remember(lease.device, reason)

    def blame_expiry(self, device: str, after_s: float) -> None:
        self.expiries += 1
        self.excluded |= {device}
        self._remember(device, f"no answer within {after_s:.1f} s")

    def _remember(self, device: str, what: str) -> None:
        self.faults = (*self.faults, f"{device}: {short(what)}")[-_FAULTS:]

    def __str__(self) -> str:
        return f"tile {self.index}"


@dataclass(slots=True, eq=False)
class ActiveJob:
    """A running job. Every waiting tile is in one of four queues or has a back-off timer."""

    id: str
    kind: str
    operators: frozenset[str]
    submitted_at: float
    event_log: EventLog
    #: The weight of its share of the fleet's time.
    weight: float = 1.0
    #: The bytes of a tile's message per pixel.
    pixel_bytes: float = 0.0
    #: The image's tiles, then their check tiles, then the halves of split tiles.
    tiles: list[TileState] = field(default_factory=list)
    #: Of the tiles that are neither check tiles nor split: their number, how many are not done, and
    #: the pixels of those.
    total: int = 0
    remaining: int = 0
    pixels_left: int = 0
    #: The room in pixels that a device must have for this job: the largest of the smallest parts.
    required_pixels: int = 0
    checks: list[SpotCheck] = field(default_factory=list)
    #: Devices whose results do not count any more.
    refuted: frozenset[str] = frozenset()
    #: Tiles that wait for any able device.
    waiting: WaitingTiles[TileState] = field(default_factory=WaitingTiles)
    #: Tiles that wait while some devices are excluded.
    with_exclusions: OrderedDict[TileState, None] = field(default_factory=OrderedDict)
    #: Tiles that devices died of. Each waits for a device that holds no other tile.
    suspects: OrderedDict[TileState, None] = field(default_factory=OrderedDict)
    #: Check tiles that wait for a device that may have them.
    check_tiles: OrderedDict[TileState, None] = field(default_factory=OrderedDict)
    hedges: int = 0
    duplicates: int = 0
    #: Since when no able device is there; None while one is.
    starved_since: float | None = None
    #: When starvation is reported.
    wake_at: float | None = None

    @classmethod
    def submitted(cls, event: JobSubmitted, now: float) -> ActiveJob:
        """The job of an event, with its tiles waiting.

        Raises ValueError for a job without tiles, a tile without pixels, an invalid check tile, or
        a done tile that does not exist.
        """
        if not event.tiles:
            raise ValueError(f"job {event.job!r} has no tiles; cut the image first")
        if min(event.tiles) < 1:
            raise ValueError(f"job {event.job!r} has a tile without pixels: {min(event.tiles)}")
        job = cls(event.job, event.kind, event.operators, now, EventLog(now))
        job.weight, job.pixel_bytes = weight(event.priority), event.pixel_bytes
        parts = event.halves or ((),) * len(event.tiles)
        for index, (pixels, halves) in enumerate(zip(event.tiles, parts, strict=True)):
            job.tiles.append(TileState(job, index, pixels, halves))
        job.total = len(job.tiles)
        job._mark_done_before(event.done)
        for tile in job.tiles:
            if not tile.done:
                job.waiting.add(tile)
        job.remaining = len(job.waiting)
        job.pixels_left = sum(tile.pixels for tile in job.waiting)
        job._add_check_tiles(event.check_tiles)
        job.required_pixels = max((tile.least for tile in job.waiting), default=0)
        return job

    def _mark_done_before(self, done: frozenset[int]) -> None:
        if strange := done - set(range(self.total)):
            raise ValueError(f"job {self.id!r} has {self.total} tiles, and {strange} are done")
        for index in done:
            self.tiles[index].done = self.tiles[index].done_before = True

    def _add_check_tiles(self, check_tiles: tuple[int, ...]) -> None:
        if not check_tiles:
            return
        possible = {tile.index for tile in self.tiles if not tile.done_before}
        if set(check_tiles) - possible or len(set(check_tiles)) < len(check_tiles):
            raise ValueError(
                f"job {self.id!r} has {self.total} tiles and the check tiles {check_tiles}"
            )
        for tile in [self.tiles[index] for index in check_tiles]:
            check_tile = TileState(self, len(self.tiles), tile.pixels)
            tile.check = check_tile.check = SpotCheck(tile, check_tile)
            tile.halves = ()  # both do the same pixels
            self.tiles.append(check_tile)
            self.checks.append(tile.check)

    @property
    def undecided(self) -> bool:
        """Whether some check is undecided."""
        return any(check.undecided for check in self.checks)

    @property
    def has_waiting_tiles(self) -> bool:
        """Whether some tile could be sent at once."""
        return bool(self.waiting or self.with_exclusions or self.suspects or self.check_tiles)

    def tile(self, index: int) -> TileState | None:
        return self.tiles[index] if 0 <= index < len(self.tiles) else None

    def enqueue(self, tile: TileState, *, exclusive: bool, later: bool = False) -> None:
        """Let a tile wait, ahead of tiles that were never sent or, if `later`, behind them."""
        if tile.is_check_tile:
            self.check_tiles[tile] = None
            return
        if not exclusive and not tile.excluded:
            self.waiting.add(tile, first=not later)
            return
        queue = self.suspects if exclusive else self.with_exclusions
        queue[tile] = None

    def dequeue(self, tile: TileState) -> bool:
        """Take a tile out of its queue. Returns whether it was in one."""
        if tile in self.waiting:
            self.waiting.remove(tile)
            return True
        for queue in (self.with_exclusions, self.suspects, self.check_tiles):
            if tile in queue:
                del queue[tile]
                return True
        return False

    def split(self, tile: TileState, *, exclusive: bool) -> tuple[TileState, TileState]:
        """Replace a waiting tile by its two halves, which inherit its faults."""
        self.dequeue(tile)
        first, second = tile.halve(len(self.tiles)), tile.halve(len(self.tiles) + 1)
        tile.done = tile.split = True
        self.tiles += first, second
        self.enqueue(second, exclusive=exclusive)
        self.enqueue(first, exclusive=exclusive)
        self.total += 1
        self.remaining += 1
        self.pixels_left += first.pixels + second.pixels - tile.pixels
        return first, second

    def grant(self, lease: Lease) -> None:
        """Record a lease, the tile's first or a further one."""
        tile = lease.tile
        self.dequeue(tile)
        if not tile.is_check_tile:
            self.hedges += bool(tile.leases)
        tile.grants.append(lease)
        tile.leases.append(lease)

    def credit(self, lease: Lease) -> None:
        """Record that this lease's result counts."""
        lease.tile.done = True
        lease.tile.kept = lease
        self.remaining -= 1
        self.pixels_left -= lease.tile.pixels

    def uncredit(self, lease: Lease) -> None:
        """Record that this lease's result counts no more and that its tile must be done again."""
        lease.tile.done = False
        lease.tile.kept = None
        # The gateway has merged the tile as a whole, so it cannot be split now.
        lease.tile.halves = ()
        self.required_pixels = max(self.required_pixels, lease.tile.pixels)
        self.remaining += 1
        self.pixels_left += lease.tile.pixels

    def live_leases(self) -> Iterator[Lease]:
        for tile in self.tiles:
            yield from tile.leases

    def progress(self, state: JobState = JobState.RUNNING) -> Progress:
        ordinary = [tile for tile in self.tiles if not tile.is_check_tile]
        devices: dict[str, DeviceProgress] = {}
        for tile in ordinary:
            if tile.kept is not None:
                before = devices.get(tile.kept.device, DeviceProgress())
                more = DeviceProgress(before.tiles + 1, before.pixels + tile.pixels)
                devices[tile.kept.device] = more
        return Progress(
            job=self.id,
            state=state,
            done=self.total - self.remaining,
            total=self.total,
            devices=devices,
            retries=sum(len(tile.grants[1:]) for tile in ordinary) - self.hedges,
            hedges=self.hedges,
            duplicates=self.duplicates,
            checked=sum(check.state is SpotCheckState.AGREED for check in self.checks),
        )
