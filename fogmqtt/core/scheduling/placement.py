"""Which device gets which waiting tile next.

The device with the shortest queue comes first. It gets the largest tile that takes at most a part
of the time until the job's end, split off a larger one if necessary. So large tiles go first and
all devices end together. If even the smallest tile would end later than the job, it is left to
other devices, since some device has time for it. Jobs have fair shares of the fleet's time.
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

#: All devices with room are considered again after changes of this part of the fleet.
_PART = 8
#: A skipped device is considered again this many times until the job's estimated end…
_ATTEMPTS = 4
#: …but not sooner than after this many seconds.
_MIN_PAUSE_S = 0.01
#: Small tiles say little about large ones: a tile has at most this many times the pixels of the
#: measured ones.
_MAX_GROWTH = 8
#: Placement goes on when the bytes in flight fell below the limit over this.
_REFILL = 4 / 3
#: Times are sums of floats: a smaller difference is none.
_TOLERANCE_S = 1e-6
#: (seconds until it would be done, tiles per worker, order of joining): the least is best.
_Rank = tuple[float, float, int]
#: Makes the lease and takes the tile out of its queue.
Grant = Callable[[TileState, DeviceState], None]
#: Replaces a waiting tile by its halves. Returns the first.
Split = Callable[[TileState], TileState]


class Placement:
    """Grants waiting tiles to devices with room."""

    def __init__(self, policy: Policy, fleet: Fleet, grant: Grant, split: Split) -> None:
        self._policy = policy
        self._fleet = fleet
        self._grant = grant
        self._split = split
        self._estimates = CompletionEstimates(policy, fleet)
        #: Jobs with waiting tiles, and their shares of the fleet's time.
        self._jobs: dict[str, ActiveJob] = {}
        self._shares: FairQueue[str] = FairQueue()
        #: The number of changes of the fleet when all devices with room were last considered.
        self._reconsidered_at = 0
        #: A tile did not fit into the budget of bytes in flight.
        self.is_blocked = False
        #: When they are considered again because a device was skipped.
        self._reconsider_at = math.inf

    def add(self, job: ActiveJob) -> None:
        """Some tile of the job waits for a device."""
        self._jobs[job.id] = job
        self._shares.join(job.id)
        self._reconsider_all()

    def remove(self, job: ActiveJob) -> None:
        self._dequeue_job(job)
        self._estimates.forget(job)

    def is_queued(self, job: ActiveJob) -> bool:
        """Whether the job takes part; for checks."""
        return job.id in self._jobs and job.id in self._shares

    def left_s(self, job: ActiveJob, now: float) -> float:
        """Seconds until the job's estimated end."""
        return self._estimates.ends_at(job, self._jobs.values(), now) - now

    def estimate_s(self, job: ActiveJob, now: float) -> float | None:
        """Seconds that a job would take if it were submitted now; None where nothing is known.

        The first tile's way to a device counts, since the rates of large tiles hide it.
        """
        left_s = self.left_s(job, now)
        self._estimates.forget(job)
        if left_s == math.inf:
            return None
        trips = (one.round_trip_s for one in self._fleet.able(job))
        return left_s + min((trip_s for trip_s in trips if trip_s < math.inf), default=0.0)

    def place(self, now: float) -> float | None:
        """Grant every waiting tile that suits a device with room.

        A device that no tile suited is considered again when it changes, a tile arrives, or much
        happens, and at the returned time.
        """
        much = (self._fleet.changes - self._reconsidered_at) * _PART > len(self._fleet.devices)
        if much or now >= self._reconsider_at:
            self._reconsider_at = math.inf
            self._reconsider_all()
        self._place(now)
        return None if self._reconsider_at == math.inf else self._reconsider_at

    def _place(self, now: float) -> None:
        self._fleet.reserved = self._place_suspects()
        # The job whose turn it is keeps it, so that a large tile waits no longer than others.
        spent = self._fleet.bytes_in_flight * _REFILL > self._fleet.max_bytes_in_flight
        if not self._fleet.candidates or (self.is_blocked and spent):
            return
        self.is_blocked = False
        rankings: dict[str, Ranking] = {}
        turns = [
            (self._shares.virtual_time(name), place, job)
            for place, (name, job) in enumerate(self._jobs.items())
        ]
        heapq.heapify(turns)
        while self._fleet.candidates and turns and not self.is_blocked:
            _, place, job = turns[0]
            if job.id not in rankings:
                rankings[job.id] = Ranking(self._fleet, job, self.left_s(job, now))
            if self._place_one(rankings[job.id]):
                heapq.heapreplace(turns, (self._shares.virtual_time(job.id), place, job))
                continue
            # Grants only make devices busier, so no device suits this job in this round any more.
            heapq.heappop(turns)
            if not job.has_waiting_tiles:
                self._dequeue_job(job)
        self._reconsider_at = self._next_attempt(rankings.values(), now)
        if not self.is_blocked:
            self._fleet.candidates.clear()

    def _dequeue_job(self, job: ActiveJob) -> None:
        """The job has no waiting tile for now."""
        self._jobs.pop(job.id, None)
        self._shares.leave(job.id)

    def _place_one(self, ranking: Ranking) -> bool:
        """Grant one tile of a job if a device suits."""
        job = ranking.job
        return (
            self._place_first(job.with_exclusions, ranking.left_s)
            or self._place_ready(job, ranking)
            # A check tile delays no tile that waits for its first result.
            or (not job.waiting and self._place_first(job.check_tiles, math.inf))
        )

    def _charge_and_grant(self, tile: TileState, device: DeviceState) -> None:
        """Grant a tile and charge its cost to the job's share, if the bytes in flight allow it."""
        job = tile.job
        if not self._fleet.has_bytes_for(tile):
            self.is_blocked = True
            return
        cost_s = max(self._fleet.service_times.service_s(device, tile), self._policy.least_s)
        self._shares.charge(job.id, cost_s, job.weight)
        self._grant(tile, device)

    def _next_attempt(self, rankings: Iterable[Ranking], now: float) -> float:
        """When to consider skipped devices again: well before the end of a waiting job."""
        if not self._fleet.with_room:
            return math.inf
        queued = [one.left_s for one in rankings if one.job.waiting or one.job.with_exclusions]
        if not queued:
            return math.inf
        left_s = min(queued)
        # Its end is unknown while only doubtful devices could do it: they are tried one by one.
        pause_s = self._policy.doubt_s if left_s == math.inf else left_s / _ATTEMPTS
        return now + max(pause_s, _MIN_PAUSE_S)

    def _reconsider_all(self) -> None:
        self._reconsidered_at = self._fleet.changes
        self._fleet.candidates.update(self._fleet.with_room)

    def _place_ready(self, job: ActiveJob, ranking: Ranking) -> bool:
        """Grant one tile to the first device that suits."""
        while job.waiting and (device := ranking.best()) is not None:
            if self._place_suiting(job, device, ranking.left_s):
                return True
            ranking.skip()
        return False

    def _place_suiting(self, job: ActiveJob, device: DeviceState, left_s: float) -> bool:
        """Grant the device a tile of its size, if it would be done in time."""
        fleet, policy = self._fleet, self._policy
        rate = fleet.service_times.rate_now(device, job.kind)
        if not fleet.service_times.measured(device, job.kind):
            self._grant_up_to(policy.probe_pixels, job, device)
        elif rate == 0 or left_s == math.inf:
            self._grant_up_to(math.inf, job, device)
        else:
            time_s = left_s - fleet.service_times.queue_s(device)
            tile_s = max(time_s * policy.share, policy.least_s)
            most = min(tile_s, fleet.most_tile_s) / rate
            most = min(most, _MAX_GROWTH * device.service_times[job.kind].pixels)
            pixels = reachable(job, min(most, device.max_tile_pixels))
            if rate * pixels > time_s + policy.slack * left_s:
                return False
            self._grant_up_to(most, job, device)
        return True

    def _grant_up_to(self, pixels: float, job: ActiveJob, device: DeviceState) -> None:
        """Grant a tile of at most this many pixels, split off a larger one if necessary."""
        pixels = min(pixels, device.max_tile_pixels)
        tile = job.waiting.pick(pixels)
        while tile.pixels > pixels and tile.halves:
            tile = self._split(tile)
        self._charge_and_grant(tile, device)

    def _place_first(self, queue: Iterable[TileState], left_s: float) -> bool:
        """Grant the first of these tiles that a device with room may have and should have."""
        for tile in queue:
            if self._is_too_large(tile):
                self._split(tile)
                return True
            device = self._best(tile)
            if device is not None and not self._is_better_elsewhere(tile, device, left_s):
                self._charge_and_grant(tile, device)
                return True
        return False

    def _is_better_elsewhere(self, tile: TileState, device: DeviceState, left_s: float) -> bool:
        """Whether it would end after the job, while a device without room would be done earlier."""
        service_times, job = self._fleet.service_times, tile.job
        mine_s = service_times.finish_s(device, job, tile.pixels)
        if mine_s <= left_s * (1 + self._policy.slack):
            return False
        return any(
            service_times.finish_s(one, job, tile.pixels) < mine_s - _TOLERANCE_S
            for one in self._fleet.able(job)
            if not one.paused and not one.doubtful and not self._is_barred(tile, one)
        )

    def _best(self, tile: TileState) -> DeviceState | None:
        able = [
            device
            for device in self._fleet.candidates.values()
            if device is not self._fleet.reserved
            and not self._is_barred(tile, device)
            and self._fleet.may_try(tile.job, device)
        ]
        return best(self._fleet, [one for one in able if not one.doubtful] or able, tile)

    def _is_barred(self, tile: TileState, device: DeviceState) -> bool:
        """Whether the device cannot do the tile, or failed it while other devices could try."""
        if not may_have(tile, device):
            return True
        if device.id not in tile.excluded:
            return False
        return any(other.id not in tile.excluded for other in self._others(tile))

    def _split_to_fit(self, tile: TileState) -> TileState:
        """The tile, or its first part that fits into some device."""
        while self._is_too_large(tile):
            tile = self._split(tile)
        return tile

    def _is_too_large(self, tile: TileState) -> bool:
        """Whether all present devices have room for its parts only."""
        if not tile.halves:
            return False
        rooms = (one.max_tile_pixels for one in self._fleet.able(tile.job))
        return tile.pixels > max(rooms, default=math.inf)

    def _others(self, tile: TileState) -> Iterator[DeviceState]:
        if tile.failures < self._policy.max_failures - 1:
            return self._fleet.able(tile.job)
        # One more failure may fail the job: then it is worth waiting for another device.
        return self._fleet.present(tile.job)

    def _place_suspects(self) -> DeviceState | None:
        """Send suspects to idle devices. Reserve one device for suspects that wait."""
        reserved = None
        for tile in [tile for job in self._jobs.values() for tile in job.suspects]:
            part = self._split_to_fit(tile)
            device = self._least_busy(part)
            if device is not None and not device.leases and self._fleet.has_bytes_for(part):
                self._grant(part, device)
            elif reserved is None:
                reserved = device
        return reserved

    def _least_busy(self, tile: TileState) -> DeviceState | None:
        """The device that is expected to be idle first."""
        able = [
            device
            for device in self._fleet.able(tile.job)
            if not device.paused and not self._is_barred(tile, device)
        ]
        # A device that did not die of the tile may prove it innocent.
        rank = lambda one: (one.id in tile.lost_on, len(one.leases), one.serial)  # noqa: E731
        return min(able, key=rank, default=None)


class Ranking:
    """Devices with room for tiles of one job, the shortest queue first.

    Only grants happen while a ranking exists, and they only make a device busier. So an entry that
    is still right is the best: O(log n) each.
    """

    def __init__(self, fleet: Fleet, job: ActiveJob, left_s: float) -> None:
        self._fleet = fleet
        self.job = job
        #: Seconds until the job's estimated end.
        self.left_s = left_s
        self._heap = [
            (_queue(fleet, device), device)
            for device in fleet.candidates.values()
            if device is not fleet.reserved and device.suits(job)
        ]
        heapq.heapify(self._heap)

    def best(self) -> DeviceState | None:
        """The device that would have time for another tile first."""
        heap, fleet = self._heap, self._fleet
        while heap:
            was, device = heap[0]
            if device.id not in fleet.candidates or not fleet.may_try(self.job, device):
                heapq.heappop(heap)
                continue
            now = _queue(fleet, device)
            if now == was:
                return device
            heapq.heapreplace(heap, (now, device))
        return None

    def skip(self) -> None:
        """Remove the device that `best` returned."""
        heapq.heappop(self._heap)


def may_have(tile: TileState, device: DeviceState) -> bool:
    """Whether the device could do this tile at its full size."""
    fits = tile.pixels <= device.max_tile_pixels
    return fits and device.id not in tile.excluded_devices and device.suits(tile.job)


def _queue(fleet: Fleet, device: DeviceState) -> _Rank:
    return fleet.service_times.queue_s(device), len(device.leases) / device.workers, device.serial


def rank(fleet: Fleet, device: DeviceState, tile: TileState) -> _Rank:
    """How good a device is for a tile. Of equal times the idle device wins."""
    return (
        fleet.service_times.finish_s(device, tile.job, tile.pixels),
        len(device.leases) / device.workers,
        device.serial,
    )


def best(fleet: Fleet, devices: Iterable[DeviceState], tile: TileState) -> DeviceState | None:
    """The device of these that would finish the tile first."""
    return min(devices, key=lambda device: rank(fleet, device, tile), default=None)
