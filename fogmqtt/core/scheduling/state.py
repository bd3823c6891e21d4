"""Jobs, tiles and leases: who was given what, and what came of it.

The ledger keeps every lease of a running job, ended ones too, because a late result is as good
as any other: it counts if that device was ever granted that attempt.
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

#: So many of a tile's mishaps are kept for the story.
_MISHAPS = 8


class SpotCheckState(Enum):
    """How far a second opinion is."""

    #: Nobody has given one yet.
    OPEN = auto()
    #: The two differ, and the gateway is to tell who is right.
    DISPUTED = auto()
    AGREED = auto()
    #: No second device, or nobody could tell.
    GIVEN_UP = auto()


@dataclass(slots=True, eq=False)
class SpotCheck:
    """A tile and its twin: the same pixels, for another device."""

    tile: TileState
    check_tile: TileState
    state: SpotCheckState = SpotCheckState.OPEN
    #: The digest of the right result, once the gateway has told.
    correct_digest: int | None = None

    @property
    def undecided(self) -> bool:
        return self.state is SpotCheckState.OPEN or self.state is SpotCheckState.DISPUTED


@dataclass(slots=True, eq=False)
class Lease:
    """The promise that one device has one tile until it expires (`wake_at`)."""

    tile: TileState
    attempt: int
    device: str
    granted_at: float
    #: How long the device may take to accept it.
    accept_timeout_s: float
    #: The device holds nothing else while it holds this.
    exclusive: bool = False
    accepted: bool = False
    accepted_at: float = -math.inf
    #: How many times longer than learned it is feared to take, since the device's last one did.
    slowdown_factor: float = 1.0
    #: Nothing else was on its way to the device when this was sent.
    first: bool = False
    #: The device said how it ended: a result, a failure or a return.
    answered: bool = False
    #: How it ended was held against its tile, and against its device: once is enough.
    blamed: bool = False
    struck: bool = False
    #: It failed, and nobody knows yet whether that is the tile's fault or the device's.
    failed: bool = False
    #: From when on a worker should have had it in its hands; None while it waits for one.
    begun_at: float | None = None
    #: When the device accepted a tile that was sent later.
    overtaken_at: float = math.inf
    #: Of its result, where that counts.
    digest: int | None = None
    wake_at: float | None = None

    @property
    def live(self) -> bool:
        return self in self.tile.leases


@dataclass(slots=True, eq=False)
class TileState:
    """WAITING while it has neither lease nor result, LEASED, or DONE.

    A twin is asleep until its tile is DONE, and DONE itself also when nobody is asked any more.
    """

    job: ActiveJob
    index: int
    pixels: int
    #: The pixels of each part after one halving, two, …; empty: it cannot be halved.
    halves: tuple[int, ...] = ()
    #: Its halves stand for it; it counts as done.
    split: bool = False
    done: bool = False
    #: It was done before the job was submitted.
    done_before: bool = False
    #: Whose result counts; of a given one, nobody's here.
    kept: Lease | None = None
    #: Shared by a tile and its twin.
    check: SpotCheck | None = None
    #: Every lease ever granted; attempt n is at n - 1.
    grants: list[Lease] = field(default_factory=list)
    #: The live ones: at most two, on different devices.
    leases: list[Lease] = field(default_factory=list)
    failures: int = 0
    losses: int = 0
    expiries: int = 0
    failed_on: frozenset[str] = frozenset()
    lost_on: frozenset[str] = frozenset()
    #: Devices that failed it or let it expire: others are asked first.
    excluded: frozenset[str] = frozenset()
    mishaps: tuple[str, ...] = ()
    #: The end of its back-off.
    wake_at: float | None = None

    @property
    def least(self) -> int:
        """The pixels of its smallest parts."""
        return self.halves[-1] if self.halves else self.pixels

    def halve(self, index: int) -> TileState:
        """One of its halves, of which the same mishaps are known."""
        return replace(
            self, index=index, pixels=self.halves[0], halves=self.halves[1:], grants=[], leases=[]
        )

    @property
    def is_check_tile(self) -> bool:
        return self.check is not None and self.check.check_tile is self

    @property
    def is_dormant(self) -> bool:
        """A twin whose tile has no result yet."""
        return self.check is not None and self.check.check_tile is self and not self.check.tile.done

    @property
    def excluded_devices(self) -> frozenset[str]:
        """Devices that must not have it, even if there are no others."""
        check = self.check
        if check is None or check.tile is self:
            return self.job.refuted
        first = check.tile.kept
        return self.job.refuted | self.excluded | ({first.device} if first else frozenset())

    def first_granted(self, device: str) -> float:
        """When this device got it for the first time; never: infinity."""
        return min(
            (one.granted_at for one in self.grants if one.device == device), default=math.inf
        )

    def lease(self, attempt: int, device: str) -> Lease | None:
        """What this device was granted under this attempt, ended or not."""
        if not 1 <= attempt <= len(self.grants):
            return None
        lease = self.grants[attempt - 1]
        return lease if lease.device == device else None

    def blame_failure(self, device: str, reason: str) -> None:
        self.failures += 1
        self.failed_on |= {device}
        self.excluded |= {device}
        self._remember(device, reason)

    def blame_loss(self, device: str, reason: str) -> None:
        self.losses += 1
        self.lost_on |= {device}
        self._remember(device, reason)

    def blame_expiry(self, device: str, after_s: float) -> None:
        self.expiries += 1
        self.excluded |= {device}
        self._remember(device, f"no answer within {after_s:.1f} s")

    def _remember(self, device: str, what: str) -> None:
        self.mishaps = (*self.mishaps, f"{device}: {short(what)}")[-_MISHAPS:]

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
    #: Of its share of the fleet's time.
    weight: float = 1.0
    #: The image's tiles, then their twins, then the halves of those that were split.
    tiles: list[TileState] = field(default_factory=list)
    #: How many tiles are neither twins nor split, how many of these are not done, and the pixels
    #: of those.
    total: int = 0
    remaining: int = 0
    pixels_left: int = 0
    #: What a device must have room for to be of use: the largest of the smallest parts, pixels.
    required_pixels: int = 0
    #: How many checks are undecided, and how many found a tile right.
    undecided: int = 0
    checked: int = 0
    #: Devices whose results count no more.
    refuted: frozenset[str] = frozenset()
    #: Waiting for any able device.
    waiting: WaitingTiles[TileState] = field(default_factory=WaitingTiles)
    #: Waiting, and some device is shunned.
    with_exclusions: OrderedDict[TileState, None] = field(default_factory=OrderedDict)
    #: Waiting for a device that holds nothing else: devices died of these.
    suspects: OrderedDict[TileState, None] = field(default_factory=OrderedDict)
    #: Twins, waiting for a device that may have them.
    check_tiles: OrderedDict[TileState, None] = field(default_factory=OrderedDict)
    contributions: dict[str, DeviceProgress] = field(default_factory=dict)
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
    def submitted(cls, event: JobSubmitted, now: float) -> ActiveJob:
        """Raises ValueError for a job without tiles, a tile without pixels, a strange twin.

        As strange are done tiles that are none.
        """
        if not event.tiles:
            raise ValueError(f"job {event.job!r} has no tiles; cut the image first")
        if min(event.tiles) < 1:
            raise ValueError(f"job {event.job!r} has a tile without pixels: {min(event.tiles)}")
        event_log, contribution = EventLog(now), weight(event.priority)
        job = cls(event.job, event.kind, event.operators, now, event_log, contribution)
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
        job._add_twins(event.check_tiles)
        job.required_pixels = max((tile.least for tile in job.waiting), default=0)
        return job

    def _mark_done_before(self, done: frozenset[int]) -> None:
        if strange := done - set(range(self.total)):
            raise ValueError(f"job {self.id!r} has {self.total} tiles, and {strange} are done")
        for index in done:
            self.tiles[index].done = self.tiles[index].done_before = True

    def _add_twins(self, check_tiles: tuple[int, ...]) -> None:
        if not check_tiles:
            return
        possible = {tile.index for tile in self.tiles if not tile.done_before}
        if set(check_tiles) - possible or len(set(check_tiles)) < len(check_tiles):
            raise ValueError(f"job {self.id!r} has {self.total} tiles and the twins {check_tiles}")
        for tile in [self.tiles[index] for index in check_tiles]:
            check_tile = TileState(self, len(self.tiles), tile.pixels)
            tile.check = check_tile.check = SpotCheck(tile, check_tile)
            tile.halves = ()  # both do the same pixels
            self.tiles.append(check_tile)
        self.undecided = len(check_tiles)

    @property
    def has_waiting_tiles(self) -> bool:
        """Some tile could be sent at once."""
        return bool(self.waiting or self.with_exclusions or self.suspects or self.check_tiles)

    def tile(self, index: int) -> TileState | None:
        return self.tiles[index] if 0 <= index < len(self.tiles) else None

    def enqueue(self, tile: TileState, *, exclusive: bool, later: bool = False) -> None:
        """Let a tile wait for a device, ahead of those that were never sent or later than they."""
        if tile.is_check_tile:
            self.check_tiles[tile] = None
            return
        if not exclusive and not tile.excluded:
            self.waiting.add(tile, first=not later)
            return
        queue = self.suspects if exclusive else self.with_exclusions
        queue[tile] = None

    def dequeue(self, tile: TileState) -> bool:
        """Whether it waited in one of the queues; now it does not."""
        if tile in self.waiting:
            self.waiting.remove(tile)
            return True
        for queue in (self.with_exclusions, self.suspects, self.check_tiles):
            if tile in queue:
                del queue[tile]
                return True
        return False

    def split(self, tile: TileState, *, exclusive: bool) -> tuple[TileState, TileState]:
        """Let two halves wait instead of a tile that waits; its mishaps are theirs."""
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
        """Book a lease, the tile's first or a further one."""
        tile = lease.tile
        self.dequeue(tile)
        if not tile.is_check_tile:
            self.leased += 1
            self.started += not tile.grants
            self.hedges += bool(tile.leases)
        tile.grants.append(lease)
        tile.leases.append(lease)

    def credit(self, lease: Lease) -> None:
        """The lease's result is the one that counts."""
        contribution = self.contributions.get(lease.device, DeviceProgress())
        self.contributions[lease.device] = DeviceProgress(
            contribution.tiles + 1, contribution.pixels + lease.tile.pixels
        )
        lease.tile.done = True
        lease.tile.kept = lease
        self.remaining -= 1
        self.pixels_left -= lease.tile.pixels

    def uncredit(self, lease: Lease) -> None:
        """It counts no more, and its tile is to be done again."""
        contribution = self.contributions.pop(lease.device)
        if contribution.tiles > 1:
            pixels_left = DeviceProgress(
                contribution.tiles - 1, contribution.pixels - lease.tile.pixels
            )
            self.contributions[lease.device] = pixels_left
        lease.tile.done = False
        lease.tile.kept = None
        # What merged its result knows it whole.
        lease.tile.halves = ()
        self.required_pixels = max(self.required_pixels, lease.tile.pixels)
        self.remaining += 1
        self.pixels_left += lease.tile.pixels

    def decide(self, check: SpotCheck, state: SpotCheckState) -> None:
        """The check is now in this state; its twin needs a device in the open one only."""
        self.undecided -= check.undecided
        self.checked -= check.state is SpotCheckState.AGREED
        check.state = state
        check.check_tile.done = state is not SpotCheckState.OPEN
        self.undecided += check.undecided
        self.checked += state is SpotCheckState.AGREED

    def live_leases(self) -> Iterator[Lease]:
        for tile in self.tiles:
            yield from tile.leases

    def progress(self, state: JobState = JobState.RUNNING) -> Progress:
        return Progress(
            job=self.id,
            state=state,
            done=self.total - self.remaining,
            total=self.total,
            devices=dict(self.contributions),
            retries=self.leased - self.started - self.hedges,
            hedges=self.hedges,
            duplicates=self.duplicates,
            checked=self.checked,
        )
