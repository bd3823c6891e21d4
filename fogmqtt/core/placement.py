"""Which device gets which waiting tile next.

The device that is expected to finish a tile first gets it, so that a slow one is not handed the
last tiles while a fast one has room. Jobs take turns, tile by tile.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from fogmqtt.core.fleet import Device, Fleet
from fogmqtt.core.ledger import Job, Tile
from fogmqtt.core.policy import Policy

#: (seconds until it would be done, tiles per worker, order of joining): the least is the best.
_Rank = tuple[float, float, int]
#: Makes the lease and takes the tile out of its queue.
Grant = Callable[[Tile, Device], None]


class Placement:
    """Hands waiting tiles to devices with room."""

    def __init__(self, policy: Policy, fleet: Fleet, grant: Grant) -> None:
        self._policy = policy
        self._fleet = fleet
        self._grant = grant
        #: Jobs with tiles that wait for a device, whose turn it is first.
        self._turns: OrderedDict[str, Job] = OrderedDict()

    def add(self, job: Job) -> None:
        """Some tile of the job waits for a device."""
        self._turns.setdefault(job.id, job)

    def remove(self, job: Job) -> None:
        self._turns.pop(job.id, None)

    def waiting(self, job: Job) -> bool:
        """Whether the job has its turn; for checks."""
        return job.id in self._turns

    def place(self) -> None:
        """Grant every waiting tile that some device has room for."""
        if not self._fleet.roomy:
            return
        reserved = self._place_suspects()
        rankings: dict[str, Ranking] = {}
        stuck = 0
        while self._fleet.roomy and stuck < len(self._turns):
            name, job = next(iter(self._turns.items()))
            if not job.waits:
                del self._turns[name]
                continue
            self._turns.move_to_end(name)
            if name not in rankings:
                rankings[name] = Ranking(self._fleet, reserved)
            placed = (
                self._place_first(job.choosy, reserved)
                or self._place_ready(job, rankings[name])
                # A second opinion delays no tile that waits for its first.
                or (not job.ready and self._place_first(job.twins, reserved))
            )
            stuck = 0 if placed else stuck + 1

    def _place_ready(self, job: Job, ranking: Ranking) -> bool:
        if not job.ready:
            return False
        tile = next(iter(job.ready))
        device = ranking.best(tile)
        if device is None:
            return False
        self._grant(tile, device)
        return True

    def _place_first(self, queue: Iterable[Tile], reserved: Device | None) -> bool:
        """Grant the first of these that somebody with room may have."""
        for tile in queue:
            device = self._best(tile, reserved)
            if device is not None:
                self._grant(tile, device)
                return True
        return False

    def _best(self, tile: Tile, reserved: Device | None) -> Device | None:
        able = [
            device
            for device in self._fleet.roomy.values()
            if device is not reserved and not self._barred(tile, device)
        ]
        return best(self._fleet, able, tile)

    def _barred(self, tile: Tile, device: Device) -> bool:
        """It cannot do the work, or it failed at this tile and others are there to try."""
        if not tile.job.operators <= device.operators or device.id in tile.taboo:
            return True
        if device.id not in tile.shunned:
            return False
        return any(other.id not in tile.shunned for other in self._others(tile))

    def _others(self, tile: Tile) -> Iterator[Device]:
        if tile.failures < self._policy.max_failures - 1:
            return self._fleet.able(tile.job)
        # One more failure may end the job: then another judge is worth waiting for.
        return self._fleet.present(tile.job)

    def _place_suspects(self) -> Device | None:
        """Send tiles that devices died of to idle devices; reserve one for those that wait."""
        reserved = None
        for job in list(self._turns.values()):
            for tile in list(job.suspects):
                device = self._loneliest(tile)
                if device is not None and not device.leases:
                    self._grant(tile, device)
                elif reserved is None:
                    reserved = device
        return reserved

    def _loneliest(self, tile: Tile) -> Device | None:
        """The device that is idle first, as far as one can tell from what it holds."""
        able = [
            device
            for device in self._fleet.able(tile.job)
            if not device.paused and not self._barred(tile, device)
        ]
        return min(able, key=lambda one: (len(one.leases), one.serial), default=None)


class Ranking:
    """Devices with room, best first for tiles of one job, while nothing but grants happens.

    Grants only make a device worse, so an entry that is still right is the best: O(log n) each.
    """

    def __init__(self, fleet: Fleet, reserved: Device | None) -> None:
        self._fleet = fleet
        self._reserved = reserved
        self._pixels = 0
        self._heap: list[tuple[_Rank, Device]] = []

    def best(self, tile: Tile) -> Device | None:
        """Who would finish this tile first, whatever it shuns."""
        # A device's place depends on the tile's size; a few per cent make no difference.
        if not 0.8 * self._pixels < tile.pixels < 1.25 * self._pixels:
            self._fill(tile)
        heap, fleet = self._heap, self._fleet
        while heap:
            was, device = heap[0]
            if device.id not in fleet.roomy:
                heapq.heappop(heap)
                continue
            now = rank(fleet, device, tile)
            if now[1:] == was[1:]:
                return device
            heapq.heapreplace(heap, (now, device))
        return None

    def _fill(self, tile: Tile) -> None:
        self._pixels = tile.pixels
        operators, disproved = tile.job.operators, tile.job.disproved
        self._heap = [
            (rank(self._fleet, device, tile), device)
            for device in self._fleet.roomy.values()
            if device is not self._reserved
            and operators <= device.operators
            and device.id not in disproved
        ]
        heapq.heapify(self._heap)


def rank(fleet: Fleet, device: Device, tile: Tile) -> _Rank:
    """How good a device is for a tile; an idle one goes first where the time is the same."""
    return (fleet.finish_s(device, tile), len(device.leases) / device.workers, device.serial)


def best(fleet: Fleet, devices: Iterable[Device], tile: Tile) -> Device | None:
    """Who of these would finish the tile first."""
    return min(devices, key=lambda device: rank(fleet, device, tile), default=None)
