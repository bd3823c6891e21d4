"""The one picture that waits in the process of a source, and the books about the others."""

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fogmqtt.core.streaming.source_steps import SourceDecisions
from fogmqtt.streams.clocks import arrival
from fogmqtt.streams.newest import Damaged, NewestPicture, Picture
from fogmqtt.streams.readers.folder import in_order
from fogmqtt.streams.supervisor import PushFeed


def no_pixels() -> Any:
    raise Damaged("none")


def picture(name: str) -> Picture:
    return Picture(arrival(), name, no_pixels)


def name_of(taken: Any) -> str:
    assert taken is not None
    return str(taken[1].codec)


def test_a_newer_picture_takes_the_place_of_one_that_waits() -> None:
    newest = NewestPicture(keeps_all=False)
    for name in "abc":
        newest.offer(picture(name))
    newest.want("pixels")
    number, taken, form = newest.take(0) or pytest.fail("nothing waits")
    assert (number, taken.codec, form) == (2, "c", "pixels")
    tally = newest.was_given()
    assert (tally.received, tally.given, tally.superseded) == (3, 1, 2)


def test_nothing_is_given_that_nobody_wants() -> None:
    newest = NewestPicture(keeps_all=False)
    newest.offer(picture("a"))
    assert newest.take(0) is None


def test_a_wish_is_for_one_picture_and_lasts_over_a_damaged_one() -> None:
    newest = NewestPicture(keeps_all=False)
    newest.want("jpeg")
    newest.offer(picture("a"))
    assert name_of(newest.take(0)) == "a"
    newest.was_damaged()
    newest.offer(picture("b"))
    assert name_of(newest.take(0)) == "b"
    assert newest.was_given().gap == 1
    newest.offer(picture("c"))
    assert newest.take(0) is None


def test_a_reader_of_a_file_waits_until_its_picture_is_taken() -> None:
    newest = NewestPicture(keeps_all=True)
    newest.offer(picture("a"))
    second = threading.Thread(target=newest.offer, args=(picture("b"),))
    second.start()
    newest.want("pixels")
    assert name_of(newest.take(30)) == "a"
    newest.was_given()
    second.join(30)
    newest.want("pixels")
    assert name_of(newest.take(30)) == "b"
    assert newest.was_given().superseded == 0


def test_the_end_of_a_file_is_told_after_its_last_picture() -> None:
    newest = NewestPicture(keeps_all=False)
    newest.offer(picture("a"))
    newest.end("")
    assert newest.taken_end() is None
    newest.want("pixels")
    assert name_of(newest.take(0)) == "a"
    newest.was_given()
    assert newest.take(0) is None
    assert newest.taken_end() == ""
    assert newest.taken_end() is None


def test_a_picture_that_waits_when_the_source_is_lost_is_not_given_later() -> None:
    newest = NewestPicture(keeps_all=False)
    newest.offer(picture("a"))
    newest.end("unplugged")
    assert newest.taken_end() == "unplugged"
    newest.want("pixels")
    assert newest.take(0) is None
    assert newest.tally().gap == 1


def test_damaged_pictures_alone_are_no_sign_of_life() -> None:
    newest = NewestPicture(keeps_all=False)
    newest.opened()
    opened_at = newest.alive_at
    for _ in range(3):
        newest.packet_came()
        newest.damaged()
    assert newest.alive_at == opened_at
    newest.offer(picture("a"))
    newest.want("pixels")
    newest.take(0)
    newest.was_given()
    assert newest.alive_at > opened_at


@given(
    st.lists(
        st.sampled_from(
            ["offer", "skip", "damage", "want", "take", "spoil", "lose", "end", "open", "pass"]
        )
    )
)
def test_the_books_balance_after_every_step_and_a_replay_has_the_same(steps: list[str]) -> None:
    newest = NewestPicture(keeps_all=False, records=True)
    again = SourceDecisions()
    numbers: list[int] = []
    for at, step in enumerate(steps):
        match step:
            case "offer":
                newest.offer(picture("a"))
            case "skip":
                newest.no_key()
            case "damage":
                newest.damaged()
            case "want":
                newest.want("pixels")
            case "take" | "spoil":
                taken = newest.take(0)
                if taken is not None and step == "take":
                    numbers.append(taken[0])
                    assert list(again.differences(newest.was_given().steps)) == []
                elif taken is not None:
                    newest.was_damaged()
            case "lose" | "end":
                newest.end("lost" if step == "lose" else "")
                newest.taken_end()
            case "open":
                newest.opened(fps=10)
            case "pass" if newest.passes(at / 30):
                newest.offer(picture("b"))
        one = newest.tally()
        rest = one.received - one.given - one.decimated - one.superseded - one.gap
        assert rest in (0, 1)
        assert list(again.differences(one.steps)) == []
        assert (again.received, again.given) == (one.received, one.given)
        assert (again.decimated, again.superseded, again.gap) == (
            one.decimated,
            one.superseded,
            one.gap,
        )
        assert numbers == sorted(set(numbers))


def test_of_pushed_pictures_the_newest_waits_and_the_others_are_counted() -> None:
    feed, wakes = PushFeed(), []
    feed.wake = lambda: wakes.append(1)
    for data in (b"a", b"b", b"c"):
        feed.offer(data)
    taken = feed.take()
    assert taken is not None
    assert taken[1] == b"c"
    assert (feed.superseded, len(wakes)) == (2, 3)
    assert feed.take() is None


def test_times_of_pushed_pictures_do_not_fall() -> None:
    feed = PushFeed()
    times = []
    for ago in (0.0, 1.0, 0.5):
        feed.offer(b"a", arrival().utc - ago, "sensor")
        taken = feed.take()
        assert taken is not None
        times.append(taken[0].captured_at)
    assert times == sorted(times)


def test_numbers_in_names_count_by_their_value() -> None:
    names = ["p10.png", "p2.png", "P1.png", "a3b12.png", "a3b2.png", "007.png", "8.png"]
    found = [path.name for path in in_order([Path(name) for name in names])]
    assert found == ["007.png", "8.png", "a3b2.png", "a3b12.png", "P1.png", "p2.png", "p10.png"]
