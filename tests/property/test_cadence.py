"""Frames in virtual time: whatever the load, ages stay flat, order holds, and the books balance."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fogmqtt.core.streaming.books import Books
from fogmqtt.core.streaming.cadence import Cadence, Decimator, FrameTime, Keep, Order, Slot

times = st.floats(0.001, 0.2)


@dataclass
class Counts:
    """A source that counts, as the contract says."""

    received: int = 0
    given: int = 0
    decimated: int = 0
    superseded: int = 0
    gap: int = 0


@dataclass
class World:
    """A camera, one slot, and a fleet that does so many frames at a time, in virtual time."""

    cadence: Cadence
    #: Seconds between frames, and seconds that each frame takes, in turn.
    between: list[float]
    service: list[float]
    at_once: int = 2
    fps: float = 0.0
    seconds: float = 5.0
    #: In these spans nobody is there to do frames.
    away: tuple[tuple[float, float], ...] = ()
    failing: frozenset[int] = frozenset()
    now: float = 0.0
    counts: Counts = field(default_factory=Counts)
    #: When it was published, its number, and its age.
    published: list[tuple[float, int, float]] = field(default_factory=list)

    def run(self) -> Books:
        slot: Slot[tuple[float, int]] = Slot()
        decimator = Decimator(self.fps)
        events: list[tuple[float, int, str, int]] = []
        captured: dict[int, float] = {}
        next_at, count, order = 0.0, 0, 0
        while next_at < self.seconds:
            heapq.heappush(events, (next_at, order, "frame", count))
            next_at += self.between[count % len(self.between)]
            count, order = count + 1, order + 1
        waiting: list[tuple[float, int]] = []
        while events:
            self.now, _, what, number = heapq.heappop(events)
            if what == "frame":
                self._receive(slot, waiting, decimator, number)
            else:
                self._end(number, captured)
            while self.cadence.in_flight < self.at_once:
                frame = waiting.pop(0) if waiting else slot.take()
                if frame is None:
                    break
                self.counts.given += 1
                has_device = not any(begin <= self.now < end for begin, end in self.away)
                if self.cadence.judge(frame[0], self.now, has_device=has_device):
                    continue
                seq = self.cadence.begin(frame[0], self.now)
                captured[seq] = frame[0]
                deadline = self.cadence.deadline(frame[0])
                done_at = self.now + self.service[seq % len(self.service)]
                if deadline is not None and done_at > deadline:
                    heapq.heappush(events, (deadline, order, "late", seq))
                else:
                    heapq.heappush(events, (done_at, order, "done", seq))
                order += 1
        self.cadence.books.take(self.counts)
        return self.cadence.books

    def _receive(self, slot, waiting, decimator, number):  # type: ignore[no-untyped-def]
        self.counts.received += 1
        if not decimator.takes(self.now):
            self.counts.decimated += 1
        elif self.cadence.deadline(0.0) is None:
            waiting.append((self.now, number))
        elif slot.put((self.now, number)) is not None:
            self.counts.superseded += 1

    def _end(self, seq: int, captured: dict[int, float]) -> None:
        deadline = self.cadence.deadline(captured[seq])
        if deadline is not None and self.now >= deadline:
            ended = self.cadence.fail(seq, self.now, late=True)
        elif seq in self.failing:
            ended = self.cadence.fail(seq, self.now)
        else:
            ended = self.cadence.finish(seq, self.now)
        for one in ended:
            if one.how == "published":
                self.published.append((self.now, one.seq, self.now - captured[one.seq]))


@given(
    between=st.lists(times, min_size=1, max_size=6),
    service=st.lists(st.floats(0.001, 1.5), min_size=1, max_size=6),
    at_once=st.integers(1, 4),
    fps=st.sampled_from([0.0, 5.0, 30.0]),
    max_age_s=st.floats(0.05, 1.0),
    order=st.sampled_from(["strict", "any"]),
    away=st.lists(st.tuples(st.floats(0, 3), st.floats(0, 5)), max_size=2),
    failing=st.frozensets(st.integers(1, 40), max_size=10),
)
@settings(max_examples=60, deadline=None)
def test_the_books_balance_and_nothing_old_is_published(
    between, service, at_once, fps, max_age_s, order: Order, away, failing
):
    cadence = Cadence(max_age_s=max_age_s, order=order)
    world = World(cadence, between, service, at_once, fps, away=tuple(away), failing=failing)
    books = world.run()
    assert books.problems() == []
    assert books.in_flight == 0
    assert all(age <= max_age_s + 1e-9 for _, _, age in world.published)
    seqs = [seq for _, seq, _ in world.published]
    assert len(seqs) == books.published
    if order == "strict":
        assert seqs == sorted(seqs)


@given(
    service_s=st.floats(0.02, 0.2),
    overload=st.floats(1.2, 20),
    at_once=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_the_age_stays_flat_under_any_overload(service_s, overload, at_once):
    # Frames wait for each other: a frame takes as many times as long as there are at once.
    between = service_s / overload
    cadence = Cadence(max_age_s=10.0)
    world = World(cadence, [between], [service_s * at_once], at_once, seconds=60 * service_s)
    assert world.run().problems() == []
    ages = [age for _, _, age in world.published]
    assert max(ages) <= between + service_s * (at_once + 1) + 1e-9
    third = len(ages) // 3
    assert max(ages[-third:]) <= max(ages[: third + at_once]) + between + 1e-9


@given(
    between=st.lists(times, min_size=1, max_size=5),
    service=st.lists(st.floats(0.001, 0.5), min_size=1, max_size=5),
    at_once=st.integers(1, 4),
    failing=st.frozensets(st.integers(1, 30), max_size=8),
)
@settings(max_examples=40, deadline=None)
def test_a_file_loses_no_frame_and_comes_out_in_order(between, service, at_once, failing):
    cadence = Cadence(max_age_s=0.1, keep="all")
    world = World(cadence, between, service, at_once, seconds=2.0, failing=failing)
    books = world.run()
    assert books.problems() == []
    expected = [seq for seq in range(1, books.received + 1) if seq not in failing]
    assert [seq for _, seq, _ in world.published] == expected


@given(
    fps=st.floats(1, 60),
    between=st.lists(st.floats(0.001, 0.3), min_size=1, max_size=8),
    count=st.integers(2, 300),
)
def test_no_more_frames_than_fps_get_through(fps, between, count):
    decimator, at, taken = Decimator(fps), 0.0, []
    for number in range(count):
        if decimator.takes(at):
            taken.append(at)
        at += between[number % len(between)]
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            span_s = taken[last] - taken[first]
            assert last - first <= fps * span_s + 1 + 1e-6


@given(jitter=st.lists(st.floats(-0.003, 0.003), min_size=90, max_size=90))
def test_of_a_steady_camera_with_jitter_every_third_frame_is_taken(jitter):
    decimator = Decimator(10)
    taken = [n for n, late in enumerate(jitter) if decimator.takes(n / 30 + late)]
    assert taken == list(range(0, 90, 3))


def test_a_clock_that_jumps_back_begins_anew():
    decimator = Decimator(1)
    assert decimator.takes(1000.0)
    assert not decimator.takes(1000.5)
    assert decimator.takes(0.0)
    assert not decimator.takes(0.5)
    assert decimator.takes(1.0)


@pytest.mark.parametrize("keep", ["latest", "keys"])
def test_a_frame_that_would_end_too_late_is_not_begun(keep: Keep):
    cadence = Cadence(max_age_s=1.0, keep=keep)
    cadence.finish(cadence.begin(0.0, 0.0), 0.6)
    assert cadence.judge(0.5, 1.0, has_device=True) == "too_late"
    assert cadence.judge(0.5, 0.9, has_device=True) is None
    assert cadence.books.too_late == 1


def test_a_stream_that_was_always_too_late_is_tried_again():
    time = FrameTime(1.0)
    time.learn(5.0, 0.0)
    assert time.expected_s(1.0) == 5.0
    assert time.expected_s(4.0) < 1.0


def test_without_a_device_frames_are_dropped_and_counted():
    cadence = Cadence(max_age_s=1.0)
    assert cadence.judge(0.0, 0.0, has_device=False) == "no_device"
    assert cadence.books.drops() == {
        "decimated": 0,
        "superseded": 0,
        "gap": 0,
        "too_late": 0,
        "no_device": 1,
    }


def test_what_is_in_flight_at_the_end_has_failed():
    cadence = Cadence(max_age_s=1.0)
    cadence.begin(0.0, 0.0)
    cadence.abandon()
    assert (cadence.books.failed, cadence.in_flight) == (1, 0)


def test_books_that_do_not_balance_say_what_is_missing():
    books = Books(received=5, given=2, begun=2, published=1)
    assert [text.partition(":")[0] for text in books.problems()] == [
        "3 received frames are neither dropped nor begun",
        "frames that were begun have not ended, and are not in flight",
    ]
