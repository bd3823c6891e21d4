"""The device's side of the bargain: which tiles it holds, and which it works on next.

A device may be sent the same tile twice (the broker repeats messages) or anew (its lease ran
out): it works once and answers for the newest attempt. Memory is bounded by the capacity.

Gateways share the device's time: each tile costs its gateway as much as it has bytes, over its
weight, and whose tiles did cost least is next. Tiles of one gateway are worked on in the order in
which they came: its scheduler counts on that.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, NamedTuple, TypeVar

from fogmqtt.core.fair_queue import FairQueue, weight

T = TypeVar("T")

#: How many tiles that are over are remembered, to know a repeated message.
_REMEMBERED = 1024


class Key(NamedTuple):
    """Which tile: attempts of one tile share it."""

    gateway: str
    job: str
    tile: int


class QueueEntry(Enum):
    """What became of a tile that was offered."""

    TAKEN = auto()
    #: It is queued or running already; the answer will be for its newest attempt.
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
    """Queued and running tiles; `T` is whatever the caller keeps of each.

    `capacity` counts tiles, `capacity_bytes` what they hold in memory; a single tile over the
    latter is still taken when there is no other.
    """

    def __init__(self, capacity: int, capacity_bytes: int = 64 * 1024 * 1024) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._entries: dict[Key, _Entry[T]] = {}
        #: Queued keys by gateway; who waits longest for a turn comes first.
        self._queues: OrderedDict[str, deque[Key]] = OrderedDict()
        #: Held tiles by gateway: who holds any has a share.
        self._holders: Counter[str] = Counter()
        self._shares: FairQueue[str] = FairQueue()
        #: What the gateway whose turn it was had got: who had nothing queued is not owed as much.
        self._served = 0.0
        self._over: OrderedDict[Key, int] = OrderedDict()
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
        """Queue the tile unless it is held, over, or there is no room.

        Each step of `priority` doubles its gateway's share of the time for such tiles.
        """
        entry = self._entries.get(key)
        if entry is not None:
            return self._again(entry, _Entry(attempt, item, nbytes, priority))
        if attempt <= self._over.get(key, 0):
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
        """The next tile of the gateway that got least; it is running from now on."""
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
        """A running tile's work is over: the item to answer for, None if nobody wants it."""
        entry = self._forget(key)
        self._running -= 1
        return entry.item if entry.wanted else None

    def give_up(self, key: Key) -> None:
        """A running tile's work ended before its time: queued anew if it is wanted by now."""
        entry = self._entries[key]
        if not entry.wanted:
            self.finish(key)
            return
        entry.running = False
        self._running -= 1
        self._queue(key)

    def cancel(self, key: Key, attempt: int, *, expired: bool = False) -> bool:
        """Drop the tile if no newer attempt of it is held; a running one loses its answer.

        One whose lease has `expired` keeps it: late is not wrong.
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
        """Take nothing more; returns everything queued, to be handed back."""
        self._draining = True
        keys = [key for queue in self._queues.values() for key in queue]
        self._queues.clear()
        return [self._forget(key).item for key in keys]

    def abandon(self) -> list[T]:
        """What still runs and is wanted, to be handed back: nobody will wait for it."""
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
        assert len(self._over) <= _REMEMBERED  # noqa: S101

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
        self._over[key] = entry.attempt
        self._over.move_to_end(key)
        if len(self._over) > _REMEMBERED:
            self._over.popitem(last=False)
        return entry
