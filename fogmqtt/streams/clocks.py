"""When a frame was captured, by which clock, and when one of a file is due."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fogmqtt.streams.frame import Clock

#: Frames a second of a source that does not say how many it has.
USUAL_RATE: Final = 25.0
#: A gap of more seconds between two frames of a file is an error of its timestamps.
_MAX_GAP_S: Final = 60.0
#: The clock of a camera that differs by more seconds from this machine's is not used.
MAX_SKEW_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Moment:
    """When a picture was captured, in monotonic seconds, in UTC, and by which clock."""

    at: float
    utc: float
    clock: Clock


def arrival() -> Moment:
    """Return this moment."""
    return Moment(time.monotonic(), time.time(), "arrival")


class UtcClock:
    """A clock that says when frames were captured: of a camera, or of a webcam's driver.

    `began` returns the UTC of the timestamp 0, or None while it is not known.
    """

    def __init__(self, name: Clock, began: Callable[[], float | None]) -> None:
        self._name = name
        self._began = began
        self.last = Moment(0.0, 0.0, "arrival")

    def moment(self, stamp: float | None, now: Moment) -> Moment:
        """Return when a frame was captured that arrived now. Times do not fall."""
        found, began = now, self._began()
        if stamp is not None and began is not None and abs(began + stamp - now.utc) <= MAX_SKEW_S:
            utc = min(began + stamp, now.utc)
            found = Moment(now.at - (now.utc - utc), utc, self._name)
        if found.at < self.last.at:  # the clock jumped back
            found = Moment(self.last.at, self.last.utc, found.clock)
        self.last = found
        return found


class MediaClock:
    """Turns the timestamps of a file into times that rise, in seconds since its first frame.

    Timestamps that are missing, stand still or jump count as one frame's duration.
    """

    def __init__(self, rate: float | None) -> None:
        self._step = 1 / rate if rate and rate > 0 else 1 / USUAL_RATE
        self._last: float | None = None
        #: What is added to a timestamp.
        self._shift = 0.0

    def time_of(self, stamp: float | None) -> float:
        """Return the time of the next frame."""
        if self._last is None:
            self._shift = -(stamp or 0.0)
            self._last = 0.0
            return 0.0
        at = self._last + self._step if stamp is None else stamp + self._shift
        if not self._last < at <= self._last + _MAX_GAP_S:
            at = self._last + self._step
            self._shift = at - (stamp or 0.0)
        self._last = at
        return at
