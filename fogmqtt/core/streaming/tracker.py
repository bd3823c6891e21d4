"""Follows boxes from frame to frame by how much they overlap.

All is decided with integers, and ties by the order of tracks and boxes, so that the same frames
give the same tracks everywhere. Positions are hundredths of a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class BoundingBox(NamedTuple):
    """A rectangle, in hundredths of a pixel; right and bottom lie outside it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        return max(0, self.right - self.left) * max(0, self.bottom - self.top)

    def common(self, other: BoundingBox) -> int:
        """Return the area that two boxes have in common."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0, width) * max(0, height)


class Sighting(NamedTuple):
    """Something that was found in one frame."""

    label: str
    box: BoundingBox
    #: In ten-thousandths.
    score: int


@dataclass(slots=True)
class TrackedThing:
    """One thing over several frames."""

    #: Counted from 1 on, in the order in which things appeared.
    number: int
    sighting: Sighting
    #: Frames in a row, up to the start, in which it was seen.
    hits: int = 1
    #: Frames in a row, up to now, in which it was not seen.
    misses: int = 0
    started: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What a frame changed: tracks that started, were seen again, and ended, by their numbers."""

    started: tuple[TrackedThing, ...] = ()
    seen: tuple[TrackedThing, ...] = ()
    ended: tuple[TrackedThing, ...] = ()


@dataclass(slots=True)
class Tracker:
    """Gives numbers to things, and follows them.

    Parameters
    ----------
    start : frames in a row in which a thing must be seen until its track starts
    end : frames in a row in which it is not seen, after which its track ends
    overlap : the least share that two boxes have of their union to be one thing, in thousandths;
        0: a label says which thing it is
    """

    start: int = 2
    end: int = 10
    overlap: int = 100
    _tracks: list[TrackedThing] = field(init=False, default_factory=list)
    _count: int = field(init=False, default=0)

    @property
    def tracks(self) -> tuple[TrackedThing, ...]:
        """The tracks that have started and not ended."""
        return tuple(track for track in self._tracks if track.started)

    def update(self, sightings: Sequence[Sighting]) -> Changes:
        """Take all that was found in a frame, in any order."""
        found = sorted(sightings)
        matched = self._match(found)
        for number, sighting in matched.items():
            track = self._tracks[number]
            track.sighting, track.hits, track.misses = sighting[1], track.hits + 1, 0
        for number, track in enumerate(self._tracks):
            if number not in matched:
                track.misses += 1
        taken = {position for position, _ in matched.values()}
        for position, one in enumerate(found):
            if position not in taken:
                self._count += 1
                self._tracks.append(TrackedThing(self._count, one))
        return self._changes()

    def finish(self) -> Changes:
        """End all tracks: no frame follows that belongs to these."""
        ended = self.tracks
        self._tracks.clear()
        return Changes(ended=ended)

    def _match(self, found: Sequence[Sighting]) -> dict[int, tuple[int, Sighting]]:
        """Return the position of a track → position and sighting of what continues it.

        The pair with the largest overlap comes first; of equal ones that of the older track, and
        then that of the first sighting.
        """
        pairs = [
            (common * 2**_BITS // union, -number, -position)
            for number, track in enumerate(self._tracks)
            for position, one in enumerate(found)
            if one.label == track.sighting.label
            for common in [one.box.common(track.sighting.box)]
            for union in [max(1, one.box.area + track.sighting.box.area - common)]
            if 1000 * common >= self.overlap * union
        ]
        matched: dict[int, tuple[int, Sighting]] = {}
        taken: set[int] = set()
        for _, number, position in sorted(pairs, reverse=True):
            if -number not in matched and -position not in taken:
                matched[-number] = (-position, found[-position])
                taken.add(-position)
        return matched

    def _changes(self) -> Changes:
        """Start and end what is due, and forget what came and went."""
        started, seen, ended, kept = [], [], [], []
        for track in self._tracks:
            if track.started and track.misses >= self.end:
                ended.append(track)
                continue
            if not track.started and track.misses:
                continue  # it was seen too rarely to count
            kept.append(track)
            if not track.started and track.hits >= self.start:
                track.started = True
                started.append(track)
            elif track.started and not track.misses:
                seen.append(track)
        self._tracks = kept
        return Changes(tuple(started), tuple(seen), tuple(ended))


#: Bits of the quotient by which overlaps are compared: two that differ less than that are equal.
_BITS = 40
