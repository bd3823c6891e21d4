"""The lower bound of a makespan: no schedule can be faster.

The bound assumes that each device works all the time that it is up, at the speed that it has then,
with all of its workers and without waiting, and that its link carries pixels all that time. The
bound is the time by which such a fleet has handled the pixels of the jobs, each pixel once, without
halos, overheads, latencies and retries, and no job's before it arrived. Work that a crash destroyed
counts as done, because a schedule that knew of the crash would have avoided it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fogmqtt.simulate.fleet import DeviceSpec
from fogmqtt.simulate.speed_profile import SpeedProfile

#: Bisections of the interval: to a relative 1e-15.
_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one device could do: when it was up, how fast it was, and what its link carries."""

    device: DeviceSpec
    speed_profile: SpeedProfile
    uptimes: Sequence[tuple[float, float]]
    #: The most bytes per pixel in one direction.
    pixel_bytes: float

    def until(self, at_s: float, since_s: float = 0.0) -> float:
        """The pixels that it could have handled in that time."""
        spans = ((max(begin, since_s), min(end, at_s)) for begin, end in self.uptimes)
        return sum(self._within(begin, end) for begin, end in spans if begin < end)

    def _within(self, begin: float, end: float) -> float:
        computed = self.device.workers * (
            self.speed_profile.done(end) - self.speed_profile.done(begin)
        )
        carried = self.device.link.rate_mbps * 1e6 / 8 * (end - begin) / self.pixel_bytes
        return min(computed, carried)


def bound_s(
    capacities: Sequence[Capacity], pixels: float, latest_s: float, since_s: float = 0.0
) -> float:
    """Seconds after `since_s` by which the fleet can have handled `pixels`.

    `latest_s` is a time by which they were done in fact. If the fleet could not do that (the job
    failed), the bound is infinity.
    """

    def done(at_s: float) -> float:
        return sum(one.until(at_s, since_s) for one in capacities)

    if done(latest_s) < pixels:
        return math.inf
    return _bisect(lambda at_s: done(at_s) >= pixels, since_s, latest_s) - since_s


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
