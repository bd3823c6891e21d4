"""The speed of an emulated device."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


class Throttle:
    """The speed of one worker in core pixels per second, which may change at any time.

    `speeds` is not empty. `next_speed` goes to the next of them, and from the last to the first.
    All methods may be called from any thread.
    """

    def __init__(self, speeds: Sequence[float]) -> None:
        self._speeds = tuple(speeds)
        #: The start time of each piece of constant speed, and that speed.
        self._pieces = [(0.0, self._speeds[0])]

    @property
    def speed(self) -> float:
        """The present speed."""
        return self._pieces[-1][1]

    def next_speed(self, now: float) -> None:
        """Use the next speed from `now` on. `now` must grow from call to call."""
        # A single append, so that a thread that reads at the same time sees all of it or nothing.
        self._pieces.append((now, self._speeds[len(self._pieces) % len(self._speeds)]))

    def finish_time(self, start: float, pixels: float) -> float:
        """Return when a tile of `pixels` that began at `start` is done, at the known speeds."""
        pieces = list(self._pieces)
        for (_, speed), (end, _) in pairwise(pieces):
            if end <= start:
                continue
            if pixels <= (end - start) * speed:
                return start + pixels / speed
            pixels -= (end - start) * speed
            start = end
        return start + pixels / pieces[-1][1]
