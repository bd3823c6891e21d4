"""How fast an emulated device is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


class Throttle:
    """Core pixels per second of one worker, which may change at any moment; for any thread.

    `speeds` has at least one; `change` goes on to the next, and from the last to the first.
    """

    def __init__(self, speeds: Sequence[float]) -> None:
        self._speeds = tuple(speeds)
        #: Where each piece of constant speed begins, and the speed from there on.
        self._pieces = [(0.0, self._speeds[0])]

    def change(self, now: float) -> None:
        """From now on it is the next speed; `now` grows from call to call."""
        # One append, so that whoever reads meanwhile sees all of it or nothing.
        self._pieces.append((now, self._speeds[len(self._pieces) % len(self._speeds)]))

    def finish(self, began: float, pixels: float) -> float:
        """When a tile that began then would be done, if the speed did not change any more."""
        pieces = list(self._pieces)
        for (_, speed), (end, _) in pairwise(pieces):
            if end <= began:
                continue
            if pixels <= (end - began) * speed:
                return began + pixels / speed
            pixels -= (end - began) * speed
            began = end
        return began + pixels / pieces[-1][1]
