"""How the frames of a stream are done: by tiles, as whole frames on devices, or here.

What decides is how long frames really took, each way. A way that is not known is tried; one that
was slower is tried again now and then, since fleets and links change.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

#: `tiles`: each frame is cut for all devices. `frames`: a device does a whole frame. `here`: this
#: machine does it.
Way = Literal["tiles", "frames", "here"]

#: Frames of a way until its time counts: the first ones load what they need.
_WARM = 3
#: Seconds until a slower way is tried again, with one frame…
_AGAIN_S = 10.0
#: …unless it took this many times as long.
_HOPELESS = 4.0
#: A way must take less than this part of the present one's time to replace it.
_GAIN = 0.9
#: The weight of the newest time.
_NEWEST = 0.2


@dataclass(slots=True)
class _Known:
    frames: int = 0
    seconds: float = math.inf
    tried_at: float = -math.inf


class SplitChoice:
    """Chooses the way of each frame. Times are seconds of a clock that does not go back."""

    def __init__(self) -> None:
        self._known: dict[Way, _Known] = {}
        self._present: Way | None = None

    def choose(self, ways: Collection[Way], now: float) -> Way:
        """Return the way of the next frame, one of `ways`, which are in order of preference."""
        known = {way: self._known.setdefault(way, _Known()) for way in ways}
        for way, one in known.items():
            if one.frames < _WARM:
                one.tried_at = now
                return way
        best = min(known, key=lambda way: known[way].seconds)
        present = self._present if self._present in known else best
        assert present is not None  # noqa: S101  # there is at least one way
        if known[best].seconds < _GAIN * known[present].seconds:
            present = best
        self._present = present
        for way, one in known.items():
            is_hopeless = one.seconds > _HOPELESS * known[present].seconds
            if way != present and not is_hopeless and now - one.tried_at >= _AGAIN_S:
                one.tried_at = now
                return way
        known[present].tried_at = now
        return present

    def learn(self, way: Way, seconds: float) -> None:
        """A frame took so many seconds this way."""
        one = self._known.setdefault(way, _Known())
        one.frames += 1
        if one.frames <= _WARM:
            one.seconds = min(one.seconds, seconds)
        else:
            one.seconds += _NEWEST * (seconds - one.seconds)

    def fail(self, way: Way) -> None:
        """A frame was not done this way: it counts as slow until it is tried again."""
        one = self._known.setdefault(way, _Known())
        one.frames = max(one.frames + 1, _WARM)
        one.seconds = max(1.0, 2 * one.seconds) if one.seconds < math.inf else 1.0

    def seconds(self, way: Way) -> float | None:
        """Return the seconds of a frame this way; None if they are not known."""
        one = self._known.get(way)
        return None if one is None or not math.isfinite(one.seconds) else one.seconds
