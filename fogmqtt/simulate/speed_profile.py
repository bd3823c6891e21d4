"""The speed of a modelled device over time, in pieces of constant speed."""

from __future__ import annotations

import math
import random
from bisect import bisect_right

from fogmqtt.simulate.fleet import DeviceSpec

#: A wandering speed changes at this interval in seconds…
_STEP_S = 0.5
#: …and stays within this factor of its initial value.
_WIDEST = 4.0


class SpeedProfile:
    """Pixels per second of one worker of a device, from time 0 on.

    The work done until t is piecewise linear, so both questions are a binary search: how much is
    done by a time, and when a given amount is done.
    """

    def __init__(self, device: DeviceSpec, chance: random.Random) -> None:
        self._base = device.speed
        self._steps = sorted((step.at_s, step.factor) for step in device.drift)
        self._wander = device.wander
        self._chance = chance
        self._walked = 0.0
        self._next_step = 0
        self._factor = 1.0
        #: Where the pieces begin, the work done until there, and the speed from there on.
        self._times = [0.0]
        self._done = [0.0]
        self._speeds = [device.speed]
        self._grow_steps(0.0)

    def finish(self, begin_s: float, pixels: float) -> float:
        """When a worker that begins at `begin_s` has handled this many pixels."""
        target = self.done(begin_s) + pixels
        while target > self._done[-1] and self._grow():
            pass
        piece = max(0, bisect_right(self._done, target) - 1)
        return self._times[piece] + (target - self._done[piece]) / self._speeds[piece]

    def done(self, at_s: float) -> float:
        """The pixels that one worker can have handled between 0 and `at_s`."""
        while at_s > self._times[-1] and self._grow():
            pass
        piece = bisect_right(self._times, at_s) - 1
        return self._done[piece] + (at_s - self._times[piece]) * self._speeds[piece]

    def _grow(self) -> bool:
        """Add the next piece; False where the last one has no end."""
        at_s = math.inf
        if self._next_step < len(self._steps):
            at_s = self._steps[self._next_step][0]
        if self._wander:
            at_s = min(at_s, self._times[-1] + _STEP_S)
        if at_s == math.inf:
            return False
        self._grow_steps(at_s)
        return True

    def _grow_steps(self, at_s: float) -> None:
        if self._wander and at_s > 0:
            self._walk()
        steps = self._steps
        while self._next_step < len(steps) and steps[self._next_step][0] <= at_s:
            self._factor = steps[self._next_step][1]
            self._next_step += 1
        done = self._done[-1] + (at_s - self._times[-1]) * self._speeds[-1]
        self._times.append(at_s)
        self._done.append(done)
        self._speeds.append(self._base * self._factor * math.exp(self._walked))

    def _walk(self) -> None:
        step = self._chance.gauss(0.0, self._wander * math.sqrt(_STEP_S))
        edge = math.log(_WIDEST)
        self._walked = max(-edge, min(self._walked + step, edge))
