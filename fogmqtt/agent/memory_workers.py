"""Which worker has the memory of a stream's tile: all frames of the tile go to it."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

from fogmqtt.agent.tile_lease import TileLease

#: Tiles that are known at most. A tile that is forgotten may get another worker, which has no
#: memory of it and says so.
_MOST_TILES: Final = 1024

_Key = tuple[str, str, int]


class MemoryWorkers:
    """Gives each tile with memory a worker for good: the one with the fewest of them."""

    def __init__(self, workers: int) -> None:
        self._numbers = range(workers)
        #: Tile → worker. The one that was used last is at the end.
        self._workers: OrderedDict[_Key, int] = OrderedDict()

    def worker(self, lease: TileLease) -> int | None:
        """Return the number of the worker for a tile; None if any can do it."""
        memory = lease.task.memory
        if memory is None:
            return None
        key = (lease.task.gateway, memory.stream, lease.task.tile)
        if key not in self._workers:
            used = Counter(self._workers.values())
            self._workers[key] = min(self._numbers, key=lambda number: used[number])
            if len(self._workers) > _MOST_TILES:
                self._workers.popitem(last=False)
        self._workers.move_to_end(key)
        return self._workers[key]
