"""When a job would be done if what is left of it were dealt out perfectly.

Tiles are whole: the horizon is the first moment by which the devices can have done as many as
wait, each in its own size. So a tile that would end after it is not needed there, since another
device has time for it, and some device always has. Every look at the whole fleet costs
O(devices), so what was seen stands until a part of the fleet has changed. It is a moment, not a
duration, so it stays right while all goes as it should.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.fleet import Fleet
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.state import ActiveJob

#: Another look at the fleet is due after changes of so large a part of it…
_PART = 32
#: …and not before so large a part of the time to the horizon is over.
_STEP = 50
#: The horizon of whole tiles is known to so large a part of the time to it.
_EXACT = 1 / 512


@dataclass(frozen=True, slots=True)
class _Estimate:
    """A moment, and how many changes of the fleet there were before."""

    at: float
    when: float
    changes: int


class _WorkerSlot(NamedTuple):
    """From when on a worker could do so many pixels every so many seconds."""

    free_s: float
    step_s: float
    pixels: float


class CompletionEstimates:
    """The horizons of all jobs; `forget` one that is over."""

    def __init__(self, policy: Policy, fleet: Fleet) -> None:
        self._policy = policy
        self._fleet = fleet
        self._estimates: dict[str, _Estimate] = {}

    def ends_at(self, job: ActiveJob, others: Iterable[ActiveJob], now: float) -> float:
        """In the fleet's own time; infinity while nobody able was ever measured.

        Jobs share the fleet, so of the others' work is counted what their shares let them do
        until this one is done.
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
        self._estimates.pop(job.id, None)

    def _unshared_end(self, job: ActiveJob, now: float) -> float:
        seen = self._estimates.get(job.id)
        if seen is None or now >= seen.at or self._is_stale(seen, now):
            at = max(self._divisible_end(job, now), now + self._whole_tiles_s(job))
            seen = self._estimates[job.id] = _Estimate(at, now, self._fleet.changes)
        return seen.at

    def _is_stale(self, seen: _Estimate, now: float) -> bool:
        if (self._fleet.changes - seen.changes) * _PART <= len(self._fleet.devices):
            return False
        return seen.at == math.inf or (now - seen.when) * _STEP >= seen.at - seen.when

    def _divisible_end(self, job: ActiveJob, now: float) -> float:
        """Were all that is left of the job, in hands or not, a liquid."""
        speed, left = 0.0, float(job.pixels_left)
        for device in self._fleet.able(job):
            rate = self._fleet.service_times.rate_now(device, job.kind)
            if rate > 0:
                speed += device.workers / rate
                left -= self._progress(device, job, now)
        return now + max(left, 0.0) / speed if speed > 0 else math.inf

    def _progress(self, device: DeviceState, job: ActiveJob, now: float) -> float:
        """Pixels of the job that should be done in the hands of the device's workers."""
        done = 0.0
        for place, lease in enumerate(device.in_service()):
            if lease.tile.job is job:
                service_s = self._fleet.service_times.service_s(device, lease.tile)
                taken_s = now - device.begun_at(lease, place)
                part = max(taken_s, 0.0) / service_s if service_s > 0 else 0.0
                done += min(part, 1.0) * lease.tile.pixels
        return done

    def _whole_tiles_s(self, job: ActiveJob) -> float:
        """From now until the devices can have done all tiles that wait in `ready`."""
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
        for device in self._fleet.able(job):
            rate = service_times.rate_now(device, job.kind)
            if rate > 0:
                pixels = reachable(job, min(self._policy.least_s / rate, device.max_tile_pixels))
                for free_s in service_times.free_s(device):
                    yield _WorkerSlot(free_s, rate * pixels, pixels)


def _pixels_done(slots: Iterable[_WorkerSlot], by_s: float) -> float:
    """Pixels of whole tiles that all could have done by then."""
    return sum(
        (by_s - free_s) // step_s * pixels for free_s, step_s, pixels in slots if by_s > free_s
    )


def reachable(job: ActiveJob, most: float) -> int:
    """The pixels of the tile that a device would get that may have at most so many."""
    tile = job.waiting.pick(most)
    if tile.pixels <= most:
        return tile.pixels
    return next((pixels for pixels in tile.halves if pixels <= most), tile.least)
