"""The queue of tiles on a device, with fair sharing between gateways.

A device may receive the same tile twice (the broker repeats messages) or as a newer attempt (its
lease expired). It works on the tile once and answers for the newest attempt. The capacity bounds
the memory.

Gateways share the device's time. Each tile costs its gateway its size in bytes, divided by its
weight, and the gateway with the lowest total is next. Tiles of one gateway run in the order in
which they arrived, because the scheduler of the gateway relies on that order. But a tile of a
stream, which has a deadline, goes before those that have a later one or none. One tile is
overtaken so `MOST_OVERTAKEN` times at most, so a stream never keeps a job from a device for good.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, NamedTuple, TypeVar

from fogmqtt.core.fair_queue import FairQueue, weight

T = TypeVar("T")

#: How often tiles with nearer deadlines go before one that is first in the queue.
MOST_OVERTAKEN = 4
#: The number of ended tiles that are remembered, to recognise a repeated message.
_MAX_REMEMBERED = 1024


class TileKey(NamedTuple):
    """Identifies a tile. All attempts of a tile share its key."""

    gateway: str
    job: str
    tile: int


class OfferResult(Enum):
    """What `DeviceQueue.offer` did with a tile."""

    ACCEPTED = auto()
    #: The tile is queued or running already. The answer will be for its newest attempt.
    ALREADY_HELD = auto()
    #: This attempt was answered or cancelled before.
    ALREADY_ENDED = auto()
    FULL = auto()
    DRAINING = auto()


@dataclass(slots=True)
class _Entry(Generic[T]):
    attempt: int
    item: T
    nbytes: int
    priority: int
    deadline: float
    overtaken: int = 0
    is_running: bool = False
    is_wanted: bool = True


class DeviceQueue(Generic[T]):
    """The queued and running tiles of a device, each with an item `T` of the caller.

    `capacity` is the maximum number of tiles. `capacity_bytes` is the maximum of their bytes in
    memory; a larger tile is accepted only if the queue is empty.
    """

    def __init__(self, capacity: int, capacity_bytes: int = 64 * 1024 * 1024) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._entries: dict[TileKey, _Entry[T]] = {}
        #: Queued keys by gateway. The gateway that has waited longest for a turn is first.
        self._queues: OrderedDict[str, deque[TileKey]] = OrderedDict()
        #: The number of tiles by gateway. A gateway takes part in the sharing while it has one.
        self._tiles_by_gateway: Counter[str] = Counter()
        self._shares: FairQueue[str] = FairQueue()
        #: The virtual time of the last gateway that was served. A gateway that queues its first
        #: tile starts there, so it gets no credit for the time without queued tiles.
        self._virtual_time = 0.0
        #: The newest ended attempt by key, the oldest first.
        self._ended: OrderedDict[TileKey, int] = OrderedDict()
        self._nbytes = 0
        self._running = 0
        self._draining = False

    @property
    def tiles_held(self) -> int:
        """The number of tiles that are queued or running."""
        return len(self._entries)

    @property
    def tiles_running(self) -> int:
        """The number of running tiles."""
        return self._running

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining

    def offer(
        self,
        key: TileKey,
        attempt: int,
        item: T,
        nbytes: int = 0,
        priority: int = 0,
        deadline: float = math.inf,
    ) -> OfferResult:
        """Queue the tile, unless it is held or ended already or there is no room.

        Each step of `priority` doubles the gateway's share of the time for such tiles. `deadline`
        is when a frame needs its result, in seconds of any clock.
        """
        entry = self._entries.get(key)
        if entry is not None:
            return self._offer_again(entry, _Entry(attempt, item, nbytes, priority, deadline))
        if attempt <= self._ended.get(key, 0):
            return OfferResult.ALREADY_ENDED
        if self._draining:
            return OfferResult.DRAINING
        if self._is_full(nbytes):
            return OfferResult.FULL
        self._entries[key] = _Entry(attempt, item, nbytes, priority, deadline)
        self._nbytes += nbytes
        self._tiles_by_gateway[key.gateway] += 1
        self._enqueue(key)
        return OfferResult.ACCEPTED

    def take(self, can_start: Callable[[T], bool] = lambda _: True) -> T | None:
        """Mark the next tile of the least served gateway as running and return its item.

        Tiles that cannot start now are passed over. Returns None if no tile is queued that can.
        """
        key = self._next(can_start)
        if key is None:
            return None
        gateway = key.gateway
        first = self._entries[self._queues[gateway][0]]
        first.overtaken += first is not self._entries[key]
        # Of the gateway that is served least: one that is passed over loses nothing by it.
        self._virtual_time = min(map(self._shares.virtual_time, self._queues))
        self._queues.move_to_end(gateway)
        self._dequeue(key)
        entry = self._entries[key]
        self._shares.charge(gateway, max(entry.nbytes, 1), weight(entry.priority))
        entry.is_running = True
        self._running += 1
        return entry.item

    def finish(self, key: TileKey) -> T | None:
        """Remove a running tile whose work is done.

        Returns the item to answer for, or None if the tile was cancelled.
        """
        entry = self._remove(key)
        self._running -= 1
        return entry.item if entry.is_wanted else None

    def work_ended_early(self, key: TileKey) -> None:
        """Remove a running tile whose work was ended, or queue it if it was offered again."""
        entry = self._entries[key]
        if not entry.is_wanted:
            self.finish(key)
            return
        entry.is_running = False
        self._running -= 1
        self._enqueue(key)

    def cancel(self, key: TileKey, attempt: int, *, expired: bool = False) -> bool:
        """Cancel the tile, unless a newer attempt of it is held. Returns whether it was cancelled.

        A queued tile is removed. A running tile gets no answer. With `expired`, only the lease of
        the tile ran out, and a running tile keeps its answer: a late result is still correct.
        """
        entry = self._entries.get(key)
        if entry is None or attempt < entry.attempt or not entry.is_wanted:
            return False
        if entry.is_running:
            entry.is_wanted = expired
            return not expired
        self._dequeue(key)
        self._remove(key)
        return True

    def drain(self) -> list[T]:
        """Accept no more tiles, remove all queued tiles, and return their items for rejection."""
        self._draining = True
        keys = [key for queue in self._queues.values() for key in queue]
        self._queues.clear()
        return [self._remove(key).item for key in keys]

    def abandon(self) -> list[T]:
        """Cancel all running tiles and return their items for rejection."""
        running = [
            entry for entry in self._entries.values() if entry.is_running and entry.is_wanted
        ]
        for entry in running:
            entry.is_wanted = False
        return [entry.item for entry in running]

    def check_invariants(self) -> None:
        """Assert every invariant of the queue."""
        queued = [key for queue in self._queues.values() for key in queue]
        assert len(queued) == len(set(queued))  # noqa: S101
        waiting = {key for key, entry in self._entries.items() if not entry.is_running}
        assert set(queued) == waiting  # noqa: S101
        assert all(self._queues.values())  # noqa: S101
        tiles = Counter(key.gateway for key in self._entries)
        assert self._tiles_by_gateway == tiles  # noqa: S101
        assert all(gateway in self._shares for gateway in tiles)  # noqa: S101
        times = [self._shares.virtual_time(gateway) for gateway in self._queues]
        assert all(time >= self._virtual_time for time in times)  # noqa: S101
        assert self._running == len(self._entries) - len(queued)  # noqa: S101
        assert self._nbytes == sum(entry.nbytes for entry in self._entries.values())  # noqa: S101
        assert len(self._entries) <= self._capacity  # noqa: S101
        assert len(self._ended) <= _MAX_REMEMBERED  # noqa: S101

    def _offer_again(self, entry: _Entry[T], newer: _Entry[T]) -> OfferResult:
        if newer.attempt < entry.attempt or (newer.attempt == entry.attempt and entry.is_wanted):
            return OfferResult.ALREADY_HELD
        if newer.attempt == entry.attempt:
            return OfferResult.ALREADY_ENDED
        self._nbytes += newer.nbytes - entry.nbytes
        entry.attempt, entry.item, entry.is_wanted = newer.attempt, newer.item, True
        entry.nbytes, entry.priority = newer.nbytes, newer.priority
        entry.deadline = newer.deadline
        return OfferResult.ALREADY_HELD

    def _next(self, can_start: Callable[[T], bool]) -> TileKey | None:
        # `sorted` keeps the order of gateways that were served alike.
        for gateway in sorted(self._queues, key=self._shares.virtual_time):
            queue = self._queues[gateway]
            entries = [(self._entries[key], key) for key in queue]
            can = [(one, key) for one, key in entries if can_start(one.item)]
            if not can:
                continue
            first, key = can[0]
            if first.overtaken >= MOST_OVERTAKEN:
                return key
            return min(can, key=lambda each: each[0].deadline)[1]  # the first of several alike
        return None

    def _is_full(self, nbytes: int) -> bool:
        if len(self._entries) >= self._capacity:
            return True
        return bool(self._entries) and self._nbytes + nbytes > self._capacity_bytes

    def _enqueue(self, key: TileKey) -> None:
        gateway = key.gateway
        if gateway not in self._queues:
            shares = self._shares
            if gateway in shares and shares.virtual_time(gateway) < self._virtual_time:
                shares.leave(gateway)
            shares.join(gateway)
            self._queues[gateway] = deque()
        self._queues[gateway].append(key)

    def _dequeue(self, key: TileKey) -> None:
        queue = self._queues[key.gateway]
        queue.remove(key)
        if not queue:
            del self._queues[key.gateway]

    def _remove(self, key: TileKey) -> _Entry[T]:
        entry = self._entries.pop(key)
        self._nbytes -= entry.nbytes
        self._tiles_by_gateway[key.gateway] -= 1
        if not self._tiles_by_gateway[key.gateway]:
            del self._tiles_by_gateway[key.gateway]
            self._shares.leave(key.gateway)
        self._ended[key] = entry.attempt
        self._ended.move_to_end(key)
        if len(self._ended) > _MAX_REMEMBERED:
            self._ended.popitem(last=False)
        return entry
