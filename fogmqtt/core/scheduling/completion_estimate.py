"""When a job would be done if the rest of it were distributed perfectly.

Tiles are whole: the estimate is the first moment by which the devices can have done all waiting
tiles, each device in tiles of its own size. So a tile that would end later is not needed on that
device, because some other device has time for it. An estimate costs O(devices), so it is reused
until a part of the fleet has changed. It is a moment, not a duration, so it stays right while
everything goes as expected.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from msgspec import Struct

from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.fleet import Fleet
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.state import ActiveJob

#: An estimate is renewed after changes of this part of the fleet…
_PART = 32
#: …and not before this part of the time to the estimate is over, …
_STEP = 50
#: …nor within so many seconds, which are less than what the smallest tile takes.
_LEAST_PAUSE_S = 0.004
#: The relative precision of the estimate for whole tiles.
_EXACT = 1 / 512


class _Estimate(Struct, frozen=True):
    """The end of a job, when it was estimated, and after how many changes of the fleet."""

    at: float
    when: float
    changes: int


class _WorkerSlot(NamedTuple):
    """A worker that is free after `free_s` and then does `pixels` in each `step_s`."""

    free_s: float
    step_s: float
    pixels: float


class CompletionEstimates:
    """The estimates of all jobs. Call `forget` when a job is over."""

    def __init__(self, policy: Policy, fleet: Fleet) -> None:
        self._policy = policy
        self._fleet = fleet
        self._estimates: dict[ActiveJob, _Estimate] = {}

    def ends_at(self, job: ActiveJob, others: Iterable[ActiveJob], now: float) -> float:
        """When the job ends, by the clock of `now`; infinity while no able device was measured.

        Jobs share the fleet, so the other jobs' work counts as far as their shares allow it until
        this one is done.
        """
        unshared_end = self._unshared_end(job, now)
        if unshared_end == math.inf:
            return unshared_end
        more = ((one, self._unshared_end(one, now)) for one in others if one is not job)
        return unshared_end + sum(
            min(end - now, (unshared_end - now) * one.weight / job.weight)
            for one, end in more
            if now < end < math.inf
        )

    def forget(self, job: ActiveJob) -> None:
        self._estimates.pop(job, None)

    def _unshared_end(self, job: ActiveJob, now: float) -> float:
        seen = self._estimates.get(job)
        if seen is None or now >= seen.at or self._is_stale(seen, now):
            at = max(self._divisible_end(job, now), now + self._whole_tiles_s(job))
            seen = self._estimates[job] = _Estimate(at, now, self._fleet.changes)
        return seen.at

    def _is_stale(self, seen: _Estimate, now: float) -> bool:
        if (self._fleet.changes - seen.changes) * _PART <= len(self._fleet.devices):
            return False
        pause_s = max((seen.at - seen.when) / _STEP, _LEAST_PAUSE_S)
        return seen.at == math.inf or now - seen.when >= pause_s

    def _divisible_end(self, job: ActiveJob, now: float) -> float:
        """When all that is left would be done if it could be divided at will."""
        speed, left = 0.0, float(job.pixels_left)
        for device in self._fleet.counted(job):
            rate = self._fleet.service_times.rate_now(device, job.kind)
            if rate > 0:
                speed += device.workers / rate
                left -= self._progress(device, job, now)
        return now + max(left, 0.0) / speed if speed > 0 else math.inf

    def _progress(self, device: DeviceState, job: ActiveJob, now: float) -> float:
        """Pixels of the job that the device's workers have probably done of their tiles."""
        done = 0.0
        for place, lease in enumerate(device.in_service()):
            if lease.tile.job is job:
                service_s = self._fleet.service_times.service_s(device, lease.tile)
                taken_s = now - device.begun_at(lease, place)
                part = max(taken_s, 0.0) / service_s if service_s > 0 else 0.0
                done += min(part, 1.0) * lease.tile.pixels
        return done

    def _whole_tiles_s(self, job: ActiveJob) -> float:
        """From now until the devices can have done all waiting tiles."""
        if not job.waiting:
            return 0.0
        slots = list(self._slots(job))
        if not slots:
            return math.inf
        few_s, enough_s = 0.0, min(one.free_s + one.step_s for one in slots)
        while _pixels_done(slots, enough_s) < job.waiting.pixels:
            few_s, enough_s = enough_s, 2 * enough_s
        while enough_s - few_s > _EXACT * enough_s:
            middle_s = (few_s + enough_s) / 2
            if _pixels_done(slots, middle_s) < job.waiting.pixels:
                few_s = middle_s
            else:
                enough_s = middle_s
        largest = job.waiting.largest.least
        return max(enough_s, min(one.free_s + one.step_s / one.pixels * largest for one in slots))

    def _slots(self, job: ActiveJob) -> Iterator[_WorkerSlot]:
        service_times = self._fleet.service_times
        for device in self._fleet.counted(job):
            rate = service_times.rate_now(device, job.kind)
            if rate > 0:
                pixels = reachable(job, min(self._policy.least_s / rate, device.max_tile_pixels))
                for free_s in service_times.free_s(device):
                    yield _WorkerSlot(free_s, rate * pixels, pixels)


def _pixels_done(slots: Iterable[_WorkerSlot], by_s: float) -> float:
    """Pixels of the whole tiles that the workers could have done by then."""
    return sum(
        (by_s - free_s) // step_s * pixels for free_s, step_s, pixels in slots if by_s > free_s
    )


def reachable(job: ActiveJob, most: float) -> int:
    """The pixels of the tile that a device with this limit would get."""
    tile = job.waiting.pick(most)
    if tile.pixels <= most:
        return tile.pixels
    return next((pixels for pixels in tile.halves if pixels <= most), tile.least)
