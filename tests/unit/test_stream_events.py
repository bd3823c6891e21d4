"""Things in frames become tracks and events, exactly and in virtual time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fogmqtt.core.streaming.events import EventMaker, EventRules, Grouping, StreamEvent
from fogmqtt.core.streaming.tracker import BoundingBox, Sighting, Tracker
from fogmqtt.core.streaming.zones import MOST_CORNERS, Zones, parse_polygon
from fogmqtt.errors import ConfigError

EVERYWHERE = Zones({}, {})
WIDTH, HEIGHT = 640, 480


def box(left: int, top: int, width: int = 100, height: int = 100) -> BoundingBox:
    """A box, given in pixels."""
    return BoundingBox(100 * left, 100 * top, 100 * (left + width), 100 * (top + height))


def thing(left: int, top: int = 100, label: str = "cat", score: int = 9000) -> Sighting:
    return Sighting(label, box(left, top), score)


# Tracks


def numbers(tracker: Tracker, *sightings: Sighting) -> list[int]:
    tracker.update(sightings)
    return [track.number for track in tracker.tracks]


def test_a_thing_that_moves_a_little_keeps_its_number() -> None:
    tracker = Tracker(start=1)
    assert [numbers(tracker, thing(left)) for left in (0, 30, 60, 90)] == [[1]] * 4


def test_a_thing_that_jumps_is_another_one() -> None:
    tracker = Tracker(start=1, end=1)
    assert [numbers(tracker, thing(left)) for left in (0, 300)] == [[1], [2]]


def test_a_thing_that_is_called_otherwise_is_another_one() -> None:
    tracker = Tracker(start=1, end=1)
    assert [numbers(tracker, thing(0, label=label)) for label in ("cat", "dog")] == [[1], [2]]


def test_a_track_starts_after_frames_in_a_row_and_ends_after_misses_in_a_row() -> None:
    tracker = Tracker(start=3, end=2)
    seen = [thing(0)]
    changes = [
        tracker.update(sightings)
        for sightings in (seen, seen, [], seen, seen, seen, [], seen, [], [])
    ]
    assert [bool(one.started) for one in changes].index(True) == 5
    assert [bool(one.ended) for one in changes].index(True) == 9
    assert sum(len(one.started) + len(one.ended) for one in changes) == 2


def test_the_larger_overlap_decides_and_then_the_older_track() -> None:
    tracker = Tracker(start=1)
    tracker.update([thing(0), thing(60)])
    tracker.update([thing(30), thing(70)])
    assert {track.number: track.sighting.box for track in tracker.tracks} == {
        1: box(30, 100),
        2: box(70, 100),
    }
    # In the middle between both: the older one has it.
    tracker.update([thing(50)])
    assert [track.number for track in tracker.tracks if not track.misses] == [1]


def test_without_an_overlap_to_reach_the_label_alone_says_what_it_is() -> None:
    tracker = Tracker(start=1, overlap=0)
    assert [numbers(tracker, thing(left)) for left in (0, 500)] == [[1], [1]]


# Zones


@pytest.mark.parametrize(
    ("x", "y", "inside"),
    [
        (32_000, 24_000, True),
        (0, 24_000, True),  # on the border
        (0, 0, False),
        (32_000, 12_000, True),  # a corner
        (31_999, 11_999, False),
        (64_000, 48_000, True),
        (64_000, 11_999, False),
    ],
)
def test_a_point_lies_in_a_polygon_or_on_its_border(x: int, y: int, inside: bool) -> None:
    triangle = parse_polygon("0,0.5 0.5,0.25 1,0.25 1,1 0,1")
    assert triangle.contains(x, y, WIDTH, HEIGHT) is inside


def test_a_polygon_may_have_a_bay() -> None:
    bay = parse_polygon("0,0 1,0 1,1 0.75,1 0.75,0.5 0.25,0.5 0.25,1 0,1")
    assert [bay.contains(x, 40_000, WIDTH, HEIGHT) for x in (8_000, 32_000, 56_000)] == [
        True,
        False,
        True,
    ]


def test_a_thing_is_where_it_stands_and_counts_in_zones_but_not_in_excluded_ones() -> None:
    lower, left = parse_polygon("0,0.5 1,0.5 1,1 0,1"), parse_polygon("0,0 0.5,0 0.5,1 0,1")
    zones = Zones({"lower": lower, "left": left}, {"tree": parse_polygon("0.8,0 1,0 1,1 0.8,1")})
    assert zones.of(box(100, 200), WIDTH, HEIGHT) == ("left", "lower")
    assert zones.of(box(400, 200), WIDTH, HEIGHT) == ("lower",)
    assert zones.of(box(400, 0), WIDTH, HEIGHT) is None
    assert zones.of(box(540, 200), WIDTH, HEIGHT) is None
    assert EVERYWHERE.of(box(540, 200), WIDTH, HEIGHT) == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0,0 1,1",
        "0,0 1,0 1",
        "0,0 1,0 1.1,1",
        "0,0 1,0 -1,1",
        "0,0 1,0 x,1",
        "0,0 1,0 .,1",
        "0,0 1,0 0.12345,1",
        " ".join(["0,0"] * (MOST_CORNERS + 1)),
    ],
)
def test_what_is_no_polygon_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_polygon(text)


# Events


def events(
    frames: Sequence[Sequence[Sighting]], grouping: Grouping = "overlap", **rules: object
) -> list[list[StreamEvent]]:
    """The events of each frame, ten a second."""
    log = EventMaker(EventRules(**{"zones": EVERYWHERE, "grouping": grouping, **rules}))  # type: ignore[arg-type]
    return [
        log.update(found, WIDTH, HEIGHT, 1_000_000 + 100 * number)
        for number, found in enumerate(frames)
    ]


def kinds(made: list[list[StreamEvent]]) -> str:
    """The first letters of each frame's events."""
    return " ".join("".join(one.event_type[0] for one in each) or "-" for each in made)


def test_a_thing_starts_an_event_and_ends_it_with_the_time_when_it_was_last_seen() -> None:
    seen = [thing(0)]
    made = events([seen, seen, seen, [], [], []], start=2, end=3)
    assert kinds(made) == "- s - - - e"
    (start,), (end,) = made[1], made[5]
    assert (start.id, start.started_at, start.ended_at) == ("1000100-1", 1_000_100, None)
    assert (end.id, end.started_at, end.ended_at) == ("1000100-1", 1_000_100, 1_000_200)


def test_an_event_is_updated_now_and_then_and_when_it_comes_into_another_zone() -> None:
    zones = Zones({"left": parse_polygon("0,0 0.5,0 0.5,1 0,1"), "all": _all()}, {})
    frames = [[thing(left, score=9000 + left)] for left in (300, 260, 220, 220, 220)]
    made = events(frames, zones=zones, start=1, update_ms=200)
    assert kinds(made) == "s u - u -"
    assert made[0][0].zones == ("all",)
    assert made[1][0].zones == ("all", "left")
    assert [one.is_best for each in made for one in each] == [True, False, False]


def _all() -> object:
    return parse_polygon("0,0 1,0 1,1 0,1")


def test_what_scores_too_little_or_lies_in_no_zone_is_not_there() -> None:
    zones = Zones({"left": parse_polygon("0,0 0.5,0 0.5,1 0,1")}, {})
    faint, elsewhere = thing(0, score=100), thing(500)
    assert kinds(events([[faint, elsewhere]] * 3, zones=zones, start=1, least_score=200)) == "- - -"


def test_all_that_moves_is_one_event_with_the_boxes_of_all() -> None:
    frames = [[thing(0), thing(500)], [thing(250)], [thing(10), thing(480), thing(300)], []]
    made = events(frames, "all", start=1, end=1, update_ms=0)
    assert kinds(made) == "s u u e"
    assert [len(each[0].boxes) for each in made] == [2, 1, 3, 3]
    assert made[0][0].score == 10_000


def test_what_a_label_names_may_be_anywhere_in_the_next_frame() -> None:
    frames = [[thing(0, label="qr:A"), thing(200, label="qr:B")], [thing(500, label="qr:A")], []]
    made = events(frames, "label", start=1, end=1)
    assert [[(one.event_type, one.label) for one in each] for each in made] == [
        [("start", "qr:A"), ("start", "qr:B")],
        [("end", "qr:B")],
        [("end", "qr:A")],
    ]


def test_the_end_of_the_frames_ends_what_is_there() -> None:
    log = EventMaker(EventRules(EVERYWHERE, start=1))
    log.update([thing(0)], WIDTH, HEIGHT, 5000)
    assert log.active
    (end,) = log.finish()
    assert (end.event_type, end.ended_at, log.active) == ("end", 5000, False)
    assert log.finish() == []
