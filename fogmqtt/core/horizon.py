"""When a job would be done if what is left of it were dealt out perfectly.

Nobody needs a tile that would end after that: another device has time for it, unless nobody at
all would be done with it sooner. Every look at the whole fleet costs O(devices), so what was seen
stands until a part of the fleet has changed. It is a moment, not a duration, so it stays right
while all goes as it should.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fogmqtt.core.device import Device
from fogmqtt.core.fleet import Fleet
from fogmqtt.core.ledger import Job

#: Another look at the fleet is due after changes of so large a part of it…
_PART = 32
#: …and for the horizon not before so large a part of the time to it is over.
_STEP = 50
#: Tiles of about the same size have the same answer.
_ABOUT = 1.25


@dataclass(frozen=True, slots=True)
class _Seen:
    """A moment, and how many changes of the fleet there were before."""

    at: float
    when: float
    changes: int
    pixels: float = 0.0


class Horizons:
    """The horizons of all jobs; `forget` one that is over."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._ends: dict[str, _Seen] = {}
        self._soonest: dict[str, _Seen] = {}

    def ends_at(self, job: Job, others: Iterable[Job], now: float) -> float:
        """In the fleet's own time; infinity while nobody able was ever measured.

        Jobs share the fleet, so the others' work is counted too.
        """
        alone = self._alone(job, now)
        if alone == math.inf:
            return alone
        more = (self._alone(other, now) for other in others if other is not job)
        return alone + sum(max(0.0, end - now) for end in more if end < math.inf)

    def forget(self, job: Job) -> None:
        self._ends.pop(job.id, None)
        self._soonest.pop(job.id, None)

    def soonest(self, job: Job, pixels: float, now: float) -> float:
        """When the first of all able devices, with room or not, would be done with such a tile."""
        seen = self._soonest.get(job.id)
        if seen is None or not self._stands(seen) or not _alike(seen.pixels, pixels):
            finish = (
                self._fleet.speeds.finish_s(one, job, pixels) for one in self._fleet.able(job)
            )
            at = now + min(finish, default=math.inf)
            seen = _Seen(at, now, self._fleet.changes, pixels)
            self._soonest[job.id] = seen
        return max(seen.at, now)

    def _stands(self, seen: _Seen) -> bool:
        """Whether it is as good as a new look."""
        return (self._fleet.changes - seen.changes) * _PART <= len(self._fleet.devices)

    def _alone(self, job: Job, now: float) -> float:
        seen = self._ends.get(job.id)
        if seen is None or now >= seen.at or self._is_old(seen, now):
            seen = self._ends[job.id] = _Seen(self._look(job, now), now, self._fleet.changes)
        return seen.at

    def _is_old(self, seen: _Seen, now: float) -> bool:
        if self._stands(seen):
            return False
        return seen.at == math.inf or (now - seen.when) * _STEP >= seen.at - seen.when

    def _look(self, job: Job, now: float) -> float:
        speed, left = 0.0, float(job.left)
        for device in self._fleet.able(job):
            rate = self._fleet.speeds.rate_now(device, job.kind)
            if rate > 0:
                speed += device.workers / rate
                left -= self._progress(device, job, now)
        return now + max(left, 0.0) / speed if speed > 0 else math.inf

    def _progress(self, device: Device, job: Job, now: float) -> float:
        """Pixels of the job that should be done in the hands of the device's workers."""
        done = 0.0
        for place, lease in enumerate(device.in_service()):
            if lease.tile.job is job:
                service_s = self._fleet.speeds.service_s(device, lease.tile)
                taken_s = now - device.begun_at(lease, place)
                part = max(taken_s, 0.0) / service_s if service_s > 0 else 0.0
                done += min(part, 1.0) * lease.tile.pixels
        return done


def _alike(pixels: float, others: float) -> bool:
    return pixels <= others * _ABOUT and others <= pixels * _ABOUT
