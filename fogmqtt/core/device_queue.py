"""Per-device queue of tiles with fair sharing between gateways.

A device may receive a tile twice (the broker repeats messages) or again (its lease ran out). It
works on the tile once and answers for the newest attempt. The capacity bounds the memory.

Gateways share the device's time. Each tile costs its gateway as much as it has bytes, divided by
its weight, and the gateway with the lowest cost is next. Tiles of one gateway keep their order of
arrival, because its scheduler relies on that.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, NamedTuple, TypeVar

from fogmqtt.core.fair_queue import FairQueue, weight

T = TypeVar("T")

#: Finished tiles that are remembered, to recognise a repeated message.
_REMEMBERED = 1024


class Key(NamedTuple):
    """Identifies a tile; all attempts of one tile share it."""

    gateway: str
    job: str
    tile: int


class QueueEntry(Enum):
    """What became of a tile that was offered."""

    TAKEN = auto()
    #: The tile is queued or running already; the answer will be for its newest attempt.
    HELD = auto()
    #: This attempt was answered or cancelled before.
    OVER = auto()
    FULL = auto()
    DRAINING = auto()


@dataclass(slots=True)
class _Entry(Generic[T]):
    attempt: int
    item: T
    nbytes: int
    priority: int
    running: bool = False
    wanted: bool = True


class DeviceQueue(Generic[T]):
    """Queued and running tiles; `T` is whatever the caller stores with each.

    `capacity` counts tiles, `capacity_bytes` their memory. A single larger tile is still accepted
    when there is no other.
    """

    def __init__(self, capacity: int, capacity_bytes: int = 64 * 1024 * 1024) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._entries: dict[Key, _Entry[T]] = {}
        #: Queued keys by gateway; the gateway that waits longest for a turn comes first.
        self._queues: OrderedDict[str, deque[Key]] = OrderedDict()
        #: The number of held tiles by gateway. A gateway with held tiles has a share.
        self._holders: Counter[str] = Counter()
        self._shares: FairQueue[str] = FairQueue()
        #: The cost of the gateway that had the last turn. A gateway that joins later starts there.
        self._served = 0.0
        self._ended: OrderedDict[Key, int] = OrderedDict()
        self._nbytes = 0
        self._running = 0
        self._draining = False

    @property
    def held(self) -> int:
        return len(self._entries)

    @property
    def running(self) -> int:
        return self._running

    @property
    def draining(self) -> bool:
        return self._draining

    def offer(
        self, key: Key, attempt: int, item: T, nbytes: int = 0, priority: int = 0
    ) -> QueueEntry:
        """Queue the tile unless it is held, finished, or there is no room.

        Each step of `priority` doubles its gateway's share of the time for such tiles.
        """
        entry = self._entries.get(key)
        if entry is not None:
            return self._again(entry, _Entry(attempt, item, nbytes, priority))
        if attempt <= self._ended.get(key, 0):
            return QueueEntry.OVER
        if self._draining:
            return QueueEntry.DRAINING
        if self._is_full(nbytes):
            return QueueEntry.FULL
        self._entries[key] = _Entry(attempt, item, nbytes, priority)
        self._nbytes += nbytes
        self._holders[key.gateway] += 1
        self._queue(key)
        return QueueEntry.TAKEN

    def take(self) -> T | None:
        """Start the next tile, which belongs to the gateway with the lowest cost."""
        if not self._queues:
            return None
        gateway = min(self._queues, key=self._shares.served)
        key = self._queues[gateway][0]
        self._queues.move_to_end(gateway)
        self._unqueue(key)
        entry = self._entries[key]
        self._served = self._shares.served(gateway)
        self._shares.charge(gateway, max(entry.nbytes, 1), weight(entry.priority))
        entry.running = True
        self._running += 1
        return entry.item

    def finish(self, key: Key) -> T | None:
        """Finish a running tile. Returns the item to answer for, None if nobody wants it."""
        entry = self._forget(key)
        self._running -= 1
        return entry.item if entry.wanted else None

    def give_up(self, key: Key) -> None:
        """Stop a running tile before its end, and queue it again if it is wanted by now."""
        entry = self._entries[key]
        if not entry.wanted:
            self.finish(key)
            return
        entry.running = False
        self._running -= 1
        self._queue(key)

    def cancel(self, key: Key, attempt: int, *, expired: bool = False) -> bool:
        """Drop the tile unless a newer attempt of it is held; a running one loses its answer.

        If only its lease has `expired`, a running tile keeps its answer: a late result counts.
        """
        entry = self._entries.get(key)
        if entry is None or attempt < entry.attempt or not entry.wanted:
            return False
        if entry.running:
            entry.wanted = expired
            return not expired
        self._unqueue(key)
        self._forget(key)
        return True

    def drain(self) -> list[T]:
        """Accept nothing more. Returns all queued items, to be rejected."""
        self._draining = True
        keys = [key for queue in self._queues.values() for key in queue]
        self._queues.clear()
        return [self._forget(key).item for key in keys]

    def abandon(self) -> list[T]:
        """Returns what still runs and is wanted, to be rejected: nobody will wait for it."""
        running = [entry for entry in self._entries.values() if entry.running and entry.wanted]
        for entry in running:
            entry.wanted = False
        return [entry.item for entry in running]

    def check(self) -> None:
        """Assert every invariant."""
        queued = [key for queue in self._queues.values() for key in queue]
        assert len(queued) == len(set(queued))  # noqa: S101
        waiting = {key for key, entry in self._entries.items() if not entry.running}
        assert set(queued) == waiting  # noqa: S101
        assert all(self._queues.values())  # noqa: S101
        assert self._holders == Counter(key.gateway for key in self._entries)  # noqa: S101
        assert all(gateway in self._shares for gateway in self._holders)  # noqa: S101
        assert all(self._shares.served(one) >= self._served for one in self._queues)  # noqa: S101
        assert self._running == len(self._entries) - len(queued)  # noqa: S101
        assert self._nbytes == sum(entry.nbytes for entry in self._entries.values())  # noqa: S101
        assert len(self._entries) <= self._capacity  # noqa: S101
        assert len(self._ended) <= _REMEMBERED  # noqa: S101

    def _again(self, entry: _Entry[T], newer: _Entry[T]) -> QueueEntry:
        if newer.attempt < entry.attempt or (newer.attempt == entry.attempt and entry.wanted):
            return QueueEntry.HELD
        if newer.attempt == entry.attempt:
            return QueueEntry.OVER
        self._nbytes += newer.nbytes - entry.nbytes
        entry.attempt, entry.item, entry.wanted = newer.attempt, newer.item, True
        entry.nbytes, entry.priority = newer.nbytes, newer.priority
        return QueueEntry.HELD

    def _is_full(self, nbytes: int) -> bool:
        if len(self._entries) >= self._capacity:
            return True
        return bool(self._entries) and self._nbytes + nbytes > self._capacity_bytes

    def _queue(self, key: Key) -> None:
        gateway = key.gateway
        if gateway not in self._queues:
            if gateway in self._shares and self._shares.served(gateway) < self._served:
                self._shares.leave(gateway)
            self._shares.join(gateway)
            self._queues[gateway] = deque()
        self._queues[gateway].append(key)

    def _unqueue(self, key: Key) -> None:
        queue = self._queues[key.gateway]
        queue.remove(key)
        if not queue:
            del self._queues[key.gateway]

    def _forget(self, key: Key) -> _Entry[T]:
        entry = self._entries.pop(key)
        self._nbytes -= entry.nbytes
        self._holders[key.gateway] -= 1
        if not self._holders[key.gateway]:
            del self._holders[key.gateway]
            self._shares.leave(key.gateway)
        self._ended[key] = entry.attempt
        self._ended.move_to_end(key)
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        return entry
