"""The way of each frame: what took least lately, and the others now and then."""

from __future__ import annotations

from collections import Counter

from fogmqtt.core.streaming.split import SplitChoice, Way

ALL: tuple[Way, ...] = ("tiles", "frames", "here")


def run(choice: SplitChoice, seconds: dict[Way, float], frames: int, at: float = 0.0) -> list[Way]:
    """Do frames, ten a second, each way taking so long."""
    chosen = []
    for number in range(frames):
        way = choice.choose(tuple(seconds), at + number / 10)
        choice.learn(way, seconds[way])
        chosen.append(way)
    return chosen


def test_each_way_is_tried_and_the_fastest_stays() -> None:
    chosen = run(SplitChoice(), {"tiles": 0.02, "frames": 0.03, "here": 0.01}, 60)
    assert chosen[:9] == ["tiles"] * 3 + ["frames"] * 3 + ["here"] * 3
    assert set(chosen[9:]) == {"here"}


def test_a_slower_way_is_tried_again_with_one_frame_of_a_hundred() -> None:
    choice = SplitChoice()
    run(choice, {"tiles": 0.02, "here": 0.01}, 10)
    again = Counter(run(choice, {"tiles": 0.02, "here": 0.01}, 1000, at=1.0))
    assert 8 <= again["tiles"] <= 10


def test_a_hopeless_way_is_left_alone() -> None:
    choice = SplitChoice()
    chosen = run(choice, {"tiles": 1.0, "here": 0.01}, 1000)
    assert Counter(chosen)["tiles"] == 3


def test_a_way_that_became_faster_takes_over() -> None:
    choice = SplitChoice()
    run(choice, {"tiles": 0.02, "here": 0.01}, 100)
    later = run(choice, {"tiles": 0.001, "here": 0.01}, 3000, at=10.0)
    assert set(later[-100:]) <= {"tiles", "here"}
    assert Counter(later[-100:])["tiles"] >= 98


def test_a_little_faster_is_not_worth_a_change() -> None:
    choice = SplitChoice()
    run(choice, {"tiles": 0.0100, "here": 0.0102}, 10)
    later = run(choice, {"tiles": 0.0100, "here": 0.0098}, 500, at=1.0)
    assert Counter(later)["tiles"] > 480


def test_a_way_that_fails_is_avoided() -> None:
    choice = SplitChoice()
    run(choice, {"tiles": 0.02, "here": 0.1}, 10)
    for _ in range(3):
        choice.fail("tiles")
    assert set(run(choice, {"tiles": 0.02, "here": 0.1}, 20, at=1.0)) == {"here"}


def test_only_what_is_possible_is_chosen() -> None:
    choice = SplitChoice()
    run(choice, {"tiles": 0.01, "here": 0.1}, 10)
    assert choice.choose(("here",), 1.0) == "here"
    assert choice.choose(ALL, 1.0) == "frames"  # it was never tried
    assert choice.seconds("frames") is None
