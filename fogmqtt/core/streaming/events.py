"""Events of a stream: something is there, changes, and is gone. In virtual time, without I/O.

    things found in a frame -> those in the zones -> tracks -> start, update, end

Times are those of the frames' capture, so the same frames give the same events again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from fogmqtt.core.streaming.tracker import BoundingBox, Sighting, TrackedThing, Tracker
from fogmqtt.core.streaming.zones import Zones

EventType = Literal["start", "update", "end"]
#: How things become events: each by its overlap with itself in the frame before, each by its label,
#: or all of a frame as one.
Grouping = Literal["overlap", "label", "all"]


#: Thousandths of their union that the boxes of one thing have in common in two frames, at least.
_LEAST_OVERLAP: Final = 100


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """Something happened. Times are milliseconds since 1970."""

    event_type: EventType
    id: str
    label: str
    started_at: int
    #: The last time it was seen; None while it may still be there.
    ended_at: int | None
    #: The best score so far, in ten-thousandths.
    score: int
    #: Where it is, or was last; several if all things of a frame are one event.
    boxes: tuple[BoundingBox, ...]
    #: All zones in which it has been.
    zones: tuple[str, ...]
    #: It was never seen better than in this frame.
    is_best: bool = False


@dataclass(frozen=True, slots=True)
class EventRules:
    """What becomes an event.

    `start` and `end` are frames in a row, `least_score` is in ten-thousandths, and an event is
    updated every `update_ms` at most, or when it comes into another zone.
    """

    zones: Zones
    grouping: Grouping = "overlap"
    start: int = 2
    end: int = 10
    update_ms: int = 5000
    least_score: int = 0


@dataclass(slots=True)
class _Open:
    """An event that has not ended."""

    id: str
    label: str
    started_at: int
    seen_at: int
    said_at: int
    score: int
    boxes: tuple[BoundingBox, ...]
    zones: set[str]

    def event(
        self, kind: EventType, *, ended_at: int | None = None, best: bool = False
    ) -> StreamEvent:
        return StreamEvent(
            kind,
            self.id,
            self.label,
            self.started_at,
            ended_at,
            self.score,
            self.boxes,
            tuple(sorted(self.zones)),
            best,
        )


@dataclass(slots=True)
class EventMaker:
    """Makes events of what is found in a stream's frames."""

    rules: EventRules
    _tracker: Tracker = field(init=False)
    _open: dict[int, _Open] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rules = self.rules
        least = _LEAST_OVERLAP if rules.grouping == "overlap" else 0
        self._tracker = Tracker(rules.start, rules.end, least)

    @property
    def active(self) -> bool:
        """Whether something is there."""
        return bool(self._open)

    def update(
        self, sightings: Sequence[Sighting], width: int, height: int, at: int
    ) -> list[StreamEvent]:
        """Take what was found in a frame of this size, captured at this time."""
        zones = self.rules.zones
        places = {
            one: where
            for one in sightings
            if one.score >= self.rules.least_score
            and (where := zones.of(one.box, width, height)) is not None
        }
        counted = sorted(places)
        boxes = tuple(one.box for one in counted)
        if self.rules.grouping == "all" and counted:
            union = _union(counted)
            places = {union: tuple(sorted(set().union(*places.values())))}
            counted = [union]
        changes = self._tracker.update(counted)
        events = [self._end(track) for track in changes.ended]
        events += [self._start(track, places, boxes, at) for track in changes.started]
        for track in changes.seen:
            events += self._again(track, places, boxes, at)
        return events

    def finish(self) -> list[StreamEvent]:
        """End all events: the frames that follow show something else, or none follow."""
        return [self._end(track) for track in self._tracker.finish().ended]

    def _start(
        self,
        track: TrackedThing,
        places: dict[Sighting, tuple[str, ...]],
        boxes: tuple[BoundingBox, ...],
        at: int,
    ) -> StreamEvent:
        one = track.sighting
        made = self._open[track.number] = _Open(
            f"{at}-{track.number}",
            one.label,
            at,
            at,
            at,
            one.score,
            self._boxes(one, boxes),
            set(places[one]),
        )
        return made.event("start", best=True)

    def _again(
        self,
        track: TrackedThing,
        places: dict[Sighting, tuple[str, ...]],
        boxes: tuple[BoundingBox, ...],
        at: int,
    ) -> list[StreamEvent]:
        known, one = self._open[track.number], track.sighting
        is_better, is_elsewhere = one.score > known.score, not known.zones.issuperset(places[one])
        known.seen_at, known.boxes = at, self._boxes(one, boxes)
        known.score = max(known.score, one.score)
        known.zones.update(places[one])
        if not is_elsewhere and at - known.said_at < self.rules.update_ms:
            return []
        known.said_at = at
        return [known.event("update", best=is_better)]

    def _end(self, track: TrackedThing) -> StreamEvent:
        known = self._open.pop(track.number)
        return known.event("end", ended_at=known.seen_at)

    def _boxes(self, one: Sighting, boxes: tuple[BoundingBox, ...]) -> tuple[BoundingBox, ...]:
        return boxes if self.rules.grouping == "all" else (one.box,)


def _union(sightings: Sequence[Sighting]) -> Sighting:
    """Return all things of a frame as one: the box around them, and the sum of their scores."""
    boxes = [one.box for one in sightings]
    box = BoundingBox(
        min(one.left for one in boxes),
        min(one.top for one in boxes),
        max(one.right for one in boxes),
        max(one.bottom for one in boxes),
    )
    score = min(10_000, sum(one.score for one in sightings))
    return Sighting(sightings[0].label, box, score)
