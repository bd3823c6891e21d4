"""Which device gets which waiting tile next.

Who has the shortest queue is asked first, and gets the largest tile that is a part of what it can
do until the job should end, so that large ones go first and all devices end together; a larger
one is split. Where even the smallest would end later than that, it is left to others: somebody
has time for it. Jobs have fair shares of the fleet's time.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator

from fogmqtt.core.fair_queue import FairQueue
from fogmqtt.core.scheduling.completion_estimate import CompletionEstimates, reachable
from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.fleet import Fleet
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.state import ActiveJob, TileState

#: All with room are asked again after changes of so large a part of the fleet.
_PART = 8
#: Who was passed over is asked again so many times until the horizon.
_LOOKS = 4
#: …but not sooner than after so many seconds.
_REST_S = 0.01
#: What small tiles took tells so much of larger ones: a tile has at most so many times the pixels
#: of those that were measured.
_RAMP = 8
#: Nobody is sooner by less than this, seconds: times are sums of floats.
_MOMENT_S = 1e-6
#: (seconds until it would be done, tiles per worker, order of joining): the least is the best.
_Rank = tuple[float, float, int]
#: Makes the lease and takes the tile out of its queue.
Grant = Callable[[TileState, DeviceState], None]
#: Puts two halves in the place of a waiting tile, and gives one of them.
Split = Callable[[TileState], TileState]


class Placement:
    """Hands waiting tiles to devices with room."""

    def __init__(self, policy: Policy, fleet: Fleet, grant: Grant, split: Split) -> None:
        self._policy = policy
        self._fleet = fleet
        self._grant = grant
        self._split = split
        self._horizons = CompletionEstimates(policy, fleet)
        #: Jobs with tiles that wait for a device, and what they got of the fleet's time.
        self._jobs: dict[str, ActiveJob] = {}
        self._shares: FairQueue[str] = FairQueue()
        #: How many changes of the fleet there were when all with room were asked.
        self._asked_after = 0
        #: When they are asked again whatever happens, since somebody was passed over.
        self._ask_at = math.inf

    def add(self, job: ActiveJob) -> None:
        """Some tile of the job waits for a device."""
        self._jobs[job.id] = job
        self._shares.join(job.id)
        self._ask_all()

    def remove(self, job: ActiveJob) -> None:
        self._rest(job)
        self._horizons.forget(job)

    def waiting(self, job: ActiveJob) -> bool:
        """Whether the job gets its share; for checks."""
        return job.id in self._jobs and job.id in self._shares

    def left_s(self, job: ActiveJob, now: float) -> float:
        """Seconds until the job should be done."""
        return self._horizons.ends_at(job, self._jobs.values(), now) - now

    def place(self, now: float) -> float | None:
        """Grant every waiting tile that suits some device with room.

        A device that none suited is asked again when it changed, a tile came, or much happened,
        and at the time that is returned.
        """
        much = (self._fleet.changes - self._asked_after) * _PART > len(self._fleet.devices)
        if much or now >= self._ask_at:
            self._ask_at = math.inf
            self._ask_all()
        self._place(now)
        return None if self._ask_at == math.inf else self._ask_at

    def _place(self, now: float) -> None:
        if not self._fleet.hungry:
            return
        reserved = self._place_suspects()
        rankings: dict[str, Ranking] = {}
        turns = [
            (self._shares.virtual_time(name), place, job)
            for place, (name, job) in enumerate(self._jobs.items())
        ]
        heapq.heapify(turns)
        while self._fleet.hungry and turns:
            _, place, job = turns[0]
            if job.id not in rankings:
                rankings[job.id] = Ranking(self._fleet, job, reserved, self.left_s(job, now))
            if self._place_one(rankings[job.id], reserved):
                heapq.heapreplace(turns, (self._shares.virtual_time(job.id), place, job))
                continue
            # Grants only make devices worse, so nobody will suit it in this round.
            heapq.heappop(turns)
            if not job.waits:
                self._rest(job)
        self._ask_at = self._next_look(rankings.values(), now)
        self._fleet.hungry.clear()

    def _rest(self, job: ActiveJob) -> None:
        """It wants no share for now."""
        self._jobs.pop(job.id, None)
        self._shares.leave(job.id)

    def _place_one(self, ranking: Ranking, reserved: DeviceState | None) -> bool:
        """Grant one tile of a job, if some device suits."""
        job = ranking.job
        return (
            self._place_first(job.choosy, reserved, ranking.left_s)
            or self._place_ready(job, ranking)
            # A second opinion delays no tile that waits for its first.
            or (not job.ready and self._place_first(job.check_tiles, reserved, math.inf))
        )

    def _give(self, tile: TileState, device: DeviceState) -> None:
        """Grant a tile at the cost of its job's share."""
        job = tile.job
        cost_s = max(self._fleet.speeds.service_s(device, tile), self._policy.least_s)
        self._shares.charge(job.id, cost_s, job.weight)
        self._grant(tile, device)

    def _next_look(self, rankings: Iterable[Ranking], now: float) -> float:
        """Well before the next horizon at which a job has tiles for which somebody has room."""
        if not self._fleet.roomy:
            return math.inf
        waiting = (one.left_s for one in rankings if one.job.ready or one.job.choosy)
        return now + max(min(waiting, default=math.inf) / _LOOKS, _REST_S)

    def _ask_all(self) -> None:
        self._asked_after = self._fleet.changes
        self._fleet.hungry.update(self._fleet.roomy)

    def _place_ready(self, job: ActiveJob, ranking: Ranking) -> bool:
        """Grant one tile to the first device that one suits."""
        while job.ready and (device := ranking.best()) is not None:
            if self._place_suiting(job, device, ranking.left_s):
                return True
            ranking.pass_over()
        return False

    def _place_suiting(self, job: ActiveJob, device: DeviceState, left_s: float) -> bool:
        """Grant the device a tile of its size, if it would be done in time."""
        fleet, policy = self._fleet, self._policy
        rate = fleet.speeds.rate_now(device, job.kind)
        if not fleet.speeds.measured(device, job.kind):
            self._grant_up_to(policy.probe_pixels, job, device)
        elif rate == 0 or left_s == math.inf:
            self._grant_up_to(math.inf, job, device)
        else:
            time_s = left_s - fleet.speeds.queue_s(device)
            most = max(time_s * policy.share, policy.least_s) / rate
            most = min(most, _RAMP * device.paces[job.kind].pixels)
            pixels = reachable(job, min(most, device.max_tile_pixels))
            if rate * pixels > time_s + policy.slack * left_s:
                return False
            self._grant_up_to(most, job, device)
        return True

    def _grant_up_to(self, pixels: float, job: ActiveJob, device: DeviceState) -> None:
        """Grant a waiting tile of at most so many pixels, split off a larger one if need be."""
        pixels = min(pixels, device.max_tile_pixels)
        tile = job.ready.pick(pixels)
        while tile.pixels > pixels and tile.halves:
            tile = self._split(tile)
        self._give(tile, device)

    def _place_first(
        self, queue: Iterable[TileState], reserved: DeviceState | None, left_s: float
    ) -> bool:
        """Grant the first of these that somebody with room may have, in time or before others."""
        for tile in queue:
            if self._is_too_large(tile):
                self._split(tile)
                return True
            device = self._best(tile, reserved)
            if device is not None and not self._is_better_elsewhere(tile, device, left_s):
                self._give(tile, device)
                return True
        return False

    def _is_better_elsewhere(self, tile: TileState, device: DeviceState, left_s: float) -> bool:
        """It would end after the job should, and somebody without room would be done before."""
        speeds, job = self._fleet.speeds, tile.job
        mine_s = speeds.finish_s(device, job, tile.pixels)
        if mine_s <= left_s * (1 + self._policy.slack):
            return False
        return any(
            speeds.finish_s(one, job, tile.pixels) < mine_s - _MOMENT_S
            for one in self._fleet.able(job)
            if not one.paused and not self._barred(tile, one)
        )

    def _best(self, tile: TileState, reserved: DeviceState | None) -> DeviceState | None:
        able = [
            device
            for device in self._fleet.hungry.values()
            if device is not reserved and not self._barred(tile, device)
        ]
        return best(self._fleet, able, tile)

    def _barred(self, tile: TileState, device: DeviceState) -> bool:
        """It cannot do the work, or it failed at this tile and others are there to try."""
        if not may_have(tile, device):
            return True
        if device.id not in tile.excluded:
            return False
        return any(other.id not in tile.excluded for other in self._others(tile))

    def _fitting(self, tile: TileState) -> TileState:
        """The tile, or the first of its parts for which somebody has room."""
        while self._is_too_large(tile):
            tile = self._split(tile)
        return tile

    def _is_too_large(self, tile: TileState) -> bool:
        """It can be halved, and must be: those that are there have room for its parts only."""
        if not tile.halves:
            return False
        rooms = (one.max_tile_pixels for one in self._fleet.able(tile.job))
        return tile.pixels > max(rooms, default=math.inf)

    def _others(self, tile: TileState) -> Iterator[DeviceState]:
        if tile.failures < self._policy.max_failures - 1:
            return self._fleet.able(tile.job)
        # One more failure may end the job: then another judge is worth waiting for.
        return self._fleet.present(tile.job)

    def _place_suspects(self) -> DeviceState | None:
        """Send tiles that devices died of to idle devices; reserve one for those that wait."""
        reserved = None
        for job in list(self._jobs.values()):
            for tile in list(job.suspects):
                part = self._fitting(tile)
                device = self._loneliest(part)
                if device is not None and not device.leases:
                    self._grant(part, device)
                elif reserved is None:
                    reserved = device
        return reserved

    def _loneliest(self, tile: TileState) -> DeviceState | None:
        """The device that is idle first, as far as one can tell from what it holds."""
        able = [
            device
            for device in self._fleet.able(tile.job)
            if not device.paused and not self._barred(tile, device)
        ]
        # Where it has not killed yet it may be proved innocent.
        rank = lambda one: (one.id in tile.died_of_it, len(one.leases), one.serial)  # noqa: E731
        return min(able, key=rank, default=None)


class Ranking:
    """Devices with room for tiles of one job, the shortest queue first, while only grants happen.

    Grants only make a device worse, so an entry that is still right is the best: O(log n) each.
    """

    def __init__(
        self, fleet: Fleet, job: ActiveJob, reserved: DeviceState | None, left_s: float
    ) -> None:
        self._fleet = fleet
        self.job = job
        #: Seconds until the job should end.
        self.left_s = left_s
        self._heap = [
            (_queue(fleet, device), device)
            for device in fleet.hungry.values()
            if device is not reserved and device.suits(job)
        ]
        heapq.heapify(self._heap)

    def best(self) -> DeviceState | None:
        """Who would have time for another tile first."""
        heap, fleet = self._heap, self._fleet
        while heap:
            was, device = heap[0]
            if device.id not in fleet.hungry:
                heapq.heappop(heap)
                continue
            now = _queue(fleet, device)
            if now == was:
                return device
            heapq.heapreplace(heap, (now, device))
        return None

    def pass_over(self) -> None:
        """Leave out the device that `best` gave."""
        heapq.heappop(self._heap)


def may_have(tile: TileState, device: DeviceState) -> bool:
    """Whether it could do this very tile, as large as it is."""
    fits = tile.pixels <= device.max_tile_pixels
    return fits and device.id not in tile.excluded_devices and device.suits(tile.job)


def _queue(fleet: Fleet, device: DeviceState) -> _Rank:
    return fleet.speeds.queue_s(device), len(device.leases) / device.workers, device.serial


def rank(fleet: Fleet, device: DeviceState, tile: TileState) -> _Rank:
    """How good a device is for a tile; an idle one goes first where the time is the same."""
    return (
        fleet.speeds.finish_s(device, tile.job, tile.pixels),
        len(device.leases) / device.workers,
        device.serial,
    )


def best(fleet: Fleet, devices: Iterable[DeviceState], tile: TileState) -> DeviceState | None:
    """Who of these would finish the tile first."""
    return min(devices, key=lambda device: rank(fleet, device, tile), default=None)
