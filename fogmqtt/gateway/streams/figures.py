"""The figures of a stream in its last seconds: ages, and frames a second."""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec import Struct

from fogmqtt.gateway.metrics import BucketCounter
from fogmqtt.wire.service_metrics import AGE_SECONDS, DECODE_SECONDS

#: The seconds that the figures are about.
WINDOW_S: Final = 10.0
#: Seconds of frames until their rate is known: cameras begin with a burst.
_LEAST_S: Final = 0.5


class Ages(Struct, frozen=True):
    """Seconds from the capture of a frame until its result was published."""

    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class Figures:
    """Counts what happened in the last seconds. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        #: The ages of all results since the stream began.
        self.all_ages = BucketCounter(AGE_SECONDS)
        #: The seconds of decoding for each frame that the source gave.
        self.decodes = BucketCounter(DECODE_SECONDS)
        self._published: deque[tuple[float, float]] = deque()
        #: When, and how many frames had been received by then.
        self._received: deque[tuple[float, int]] = deque()

    def publish(self, age_s: float, now: float) -> None:
        """A result was published."""
        self.all_ages.add(age_s)
        self._published.append((now, age_s))
        self._forget(now)

    def receive(self, received: int, now: float) -> None:
        """So many frames have been received so far."""
        if not received:  # the rate is that of a source which is there
            return
        self._received.append((now, received))
        self._forget(now)

    def ages(self, now: float) -> Ages:
        self._forget(now)
        ages = sorted(age for _, age in self._published)
        if not ages:
            return Ages()
        p50, p95, p99 = (ages[min(len(ages) - 1, int(part * len(ages)))] for part in _PARTS)
        return Ages(p50, p95, p99, ages[-1])

    def fps_out(self, now: float) -> float:
        """Results a second."""
        self._forget(now)
        if len(self._published) < 2:  # two moments make a duration
            return 0.0
        return (len(self._published) - 1) / max(1e-3, now - self._published[0][0])

    def fps_in(self, now: float) -> float:
        """Frames a second that the source received, since the first one was seen."""
        self._forget(now)
        if not self._received:
            return 0.0
        (began_at, before), (ended_at, after) = self._received[0], self._received[-1]
        seconds = ended_at - began_at
        return (after - before) / seconds if seconds >= _LEAST_S else 0.0

    def _forget(self, now: float) -> None:
        while self._published and self._published[0][0] < now - WINDOW_S:
            self._published.popleft()
        while len(self._received) > 1 and self._received[0][0] < now - WINDOW_S:
            self._received.popleft()


_PARTS: Final = (0.5, 0.95, 0.99)
