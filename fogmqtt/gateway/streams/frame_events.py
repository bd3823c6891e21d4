"""Which events the frames of a stream make: decided from their facts alone, so that a recording
can be decided again.

    facts of a frame -> sightings -> EventMaker -> events
"""

from __future__ import annotations

from msgspec import Struct

from fogmqtt.config import EventSettings, MotionSettings
from fogmqtt.core.streaming.events import EventMaker, EventRules, Grouping, StreamEvent
from fogmqtt.core.streaming.zones import Zones, parse_polygon
from fogmqtt.gateway.streams.sightings import sightings
from fogmqtt.operators.api.base import Facts


class EventsHead(Struct, frozen=True):
    """What the events of a stream are decided by, beside its frames."""

    kind: Grouping
    events: EventSettings
    #: Whether motion is looked for beside the pipeline, which finds the things otherwise.
    motion: MotionSettings


class FrameEvents:
    """The events of one stream, in the order in which its frames are taken."""

    def __init__(self, settings: EventSettings, kind: Grouping) -> None:
        self._maker = EventMaker(_rules(settings, kind))
        self._epoch = 0

    @property
    def active(self) -> bool:
        """Whether something is there."""
        return self._maker.active

    def take(
        self, facts: Facts, size: tuple[int, int], epoch: int, captured_utc: float
    ) -> list[StreamEvent]:
        """Take what was found in the next frame, whose height and width are `size`.

        A new epoch ends what was there.
        """
        found = []
        if epoch != self._epoch:
            self._epoch = epoch
            found = self._maker.finish()
        height, width = size
        things = sightings(facts, width, height)
        return found + self._maker.update(things, width, height, round(1000 * captured_utc))

    def finish(self) -> list[StreamEvent]:
        """End all events: no frame follows, or nobody knows what is there."""
        return self._maker.finish()


def _rules(settings: EventSettings, kind: Grouping) -> EventRules:
    zones = Zones(
        {name: parse_polygon(text) for name, text in settings.zones.items()},
        {name: parse_polygon(text) for name, text in settings.exclude.items()},
    )
    return EventRules(
        zones,
        kind,
        settings.start,
        settings.end,
        round(1000 * settings.update_s),
        round(10_000 * settings.min_score),
    )
