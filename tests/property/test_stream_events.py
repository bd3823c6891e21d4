"""Whatever is found in frames: every event starts once, ends once, and the order does not count."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fogmqtt.core.streaming.events import EventMaker, EventRules, StreamEvent
from fogmqtt.core.streaming.tracker import BoundingBox, Sighting
from fogmqtt.core.streaming.zones import SCALE, Polygon, Zones

WIDTH, HEIGHT = 64, 48


@st.composite
def sightings(draw: st.DrawFn) -> Sighting:
    left, top = draw(st.integers(0, 5000)), draw(st.integers(0, 4000))
    width, height = draw(st.integers(1, 1500)), draw(st.integers(1, 1500))
    label = draw(st.sampled_from(("cat", "dog")))
    return Sighting(
        label, BoundingBox(left, top, left + width, top + height), draw(st.integers(0, 10_000))
    )


corners = st.tuples(st.integers(0, SCALE), st.integers(0, SCALE))
polygons = st.lists(corners, min_size=3, max_size=8).map(lambda found: Polygon(tuple(found)))
zones = st.builds(
    Zones,
    st.dictionaries(st.sampled_from("abc"), polygons, max_size=2),
    st.dictionaries(st.sampled_from("xy"), polygons, max_size=1),
)
rules = st.builds(
    EventRules,
    zones,
    grouping=st.sampled_from(("overlap", "label", "all")),
    start=st.integers(1, 3),
    end=st.integers(1, 3),
    update_ms=st.sampled_from((0, 250)),
    least_score=st.integers(0, 5000),
)
frames = st.lists(st.lists(sightings(), max_size=4), max_size=12)


def told(made: EventRules, found: list[list[Sighting]]) -> list[list[StreamEvent]]:
    log = EventMaker(made)
    events = [log.update(one, WIDTH, HEIGHT, 100 * at) for at, one in enumerate(found)]
    return [*events, log.finish()]


@given(rules, frames)
def test_each_event_starts_is_updated_and_ends_in_this_order(
    made: EventRules, found: list[list[Sighting]]
) -> None:
    stories: dict[str, list[StreamEvent]] = {}
    for each in told(made, found):
        for event in each:
            stories.setdefault(event.id, []).append(event)
    for story in stories.values():
        kinds = [event.event_type for event in story]
        assert kinds == ["start", *["update"] * (len(story) - 2), "end"]
        assert len({(event.label, event.started_at) for event in story}) == 1
        ended_at = story[-1].ended_at
        assert ended_at is not None
        assert story[0].started_at <= ended_at
        for before, after in pairwise(story):
            assert before.score <= after.score
            assert set(before.zones) <= set(after.zones)


@given(rules, frames, st.randoms())
def test_the_order_within_a_frame_does_not_count(
    made: EventRules, found: list[list[Sighting]], chance: object
) -> None:
    mixed = [list(one) for one in found]
    for one in mixed:
        chance.shuffle(one)  # type: ignore[attr-defined]
    assert told(made, mixed) == told(made, found)


@given(polygons, st.integers(0, 100 * WIDTH), st.integers(0, 100 * HEIGHT))
def test_a_polygon_is_the_same_from_any_corner_in_either_direction_and_in_a_mirror(
    polygon: Polygon, x: int, y: int
) -> None:
    inside = polygon.contains(x, y, WIDTH, HEIGHT)
    first, *others = polygon.corners
    assert Polygon((*others, first)).contains(x, y, WIDTH, HEIGHT) == inside
    assert Polygon(polygon.corners[::-1]).contains(x, y, WIDTH, HEIGHT) == inside
    mirrored = Polygon(tuple((SCALE - left, top) for left, top in polygon.corners))
    assert mirrored.contains(100 * WIDTH - x, y, WIDTH, HEIGHT) == inside
