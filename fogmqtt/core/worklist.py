"""The device's side of the bargain: which tiles it holds, and which it works on next.

A device may be sent the same tile twice (the broker repeats messages) or anew (its lease ran
out): it works once and answers for the newest attempt. Memory is bounded by the capacity.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

#: How many tiles that are over are remembered, to know a repeated message.
_REMEMBERED = 1024


class Key(NamedTuple):
    """Which tile: attempts of one tile share it."""

    gateway: str
    job: str
    tile: int


class Offer(Enum):
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
    running: bool = False
    wanted: bool = True


class Worklist(Generic[T]):
    """Queued and running tiles; `T` is whatever the caller keeps of each.

    `capacity` counts tiles, `capacity_bytes` what they hold in memory; a single tile over the
    latter is still taken when there is no other.
    """

    def __init__(self, capacity: int, capacity_bytes: int = 64 * 1024 * 1024) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._entries: dict[Key, _Entry[T]] = {}
        #: Queued keys by gateway; the gateway whose turn is next comes first.
        self._queues: OrderedDict[str, deque[Key]] = OrderedDict()
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

    def offer(self, key: Key, attempt: int, item: T, nbytes: int = 0) -> Offer:
        """Queue the tile unless it is held, over, or there is no room."""
        entry = self._entries.get(key)
        if entry is not None:
            return self._again(entry, attempt, item, nbytes)
        if attempt <= self._over.get(key, 0):
            return Offer.OVER
        if self._draining:
            return Offer.DRAINING
        if self._is_full(nbytes):
            return Offer.FULL
        self._entries[key] = _Entry(attempt, item, nbytes)
        self._nbytes += nbytes
        self._queues.setdefault(key.gateway, deque()).append(key)
        return Offer.TAKEN

    def take(self) -> T | None:
        """The next tile to work on, gateways in turn; it is running from now on."""
        if not self._queues:
            return None
        gateway, queue = next(iter(self._queues.items()))
        key = queue.popleft()
        self._queues.move_to_end(gateway)
        if not queue:
            del self._queues[gateway]
        entry = self._entries[key]
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
        self._queues.setdefault(key.gateway, deque()).append(key)

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
        assert self._running == len(self._entries) - len(queued)  # noqa: S101
        assert self._nbytes == sum(entry.nbytes for entry in self._entries.values())  # noqa: S101
        assert len(self._entries) <= self._capacity  # noqa: S101
        assert len(self._over) <= _REMEMBERED  # noqa: S101

    def _again(self, entry: _Entry[T], attempt: int, item: T, nbytes: int) -> Offer:
        if attempt < entry.attempt or (attempt == entry.attempt and entry.wanted):
            return Offer.HELD
        if attempt == entry.attempt:
            return Offer.OVER
        self._nbytes += nbytes - entry.nbytes
        entry.attempt, entry.item, entry.nbytes, entry.wanted = attempt, item, nbytes, True
        return Offer.HELD

    def _is_full(self, nbytes: int) -> bool:
        if len(self._entries) >= self._capacity:
            return True
        return bool(self._entries) and self._nbytes + nbytes > self._capacity_bytes

    def _unqueue(self, key: Key) -> None:
        queue = self._queues[key.gateway]
        queue.remove(key)
        if not queue:
            del self._queues[key.gateway]

    def _forget(self, key: Key) -> _Entry[T]:
        entry = self._entries.pop(key)
        self._nbytes -= entry.nbytes
        self._over[key] = entry.attempt
        self._over.move_to_end(key)
        if len(self._over) > _REMEMBERED:
            self._over.popitem(last=False)
        return entry
