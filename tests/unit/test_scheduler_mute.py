"""Boards that announce what they can do and never answer, as with a wrong access list."""

from __future__ import annotations

import heapq
from itertools import count

import pytest

from fogmqtt.core.scheduling.actions import (
    Action,
    CancelTile,
    FinishJob,
    Quarantine,
    ReportStarved,
    SendTile,
)
from fogmqtt.core.scheduling.events import Event, ResultArrived, TileAccepted
from tests.scheduling import PIXELS, Bench, devices, only, sent

#: Seconds between two check-ins of a device.
CHECKIN_S = 5.0
#: How long a good device takes to accept a tile, and to do one.
ACCEPT_S, TILE_S = 0.01, 0.05
GOOD = ("eya", "manar")


class Boards:
    """Two boards that answer in virtual time, among many that do not."""

    def __init__(self, mute: int, good_at: int) -> None:
        self.bench = Bench(ahead=1)
        self._events: list[tuple[float, int, Event]] = []
        self._count = count()
        self._free_at = dict.fromkeys(GOOD, 0.0)
        self.actions: list[Action] = []
        self._finished: set[str] = set()
        self._devices = [*GOOD, *(f"mute-{number}" for number in range(mute))]
        self._checks_in_at = 0.0
        for number in range(mute):
            if number == good_at:
                self._join_good()
            self.bench.join(f"mute-{number}")
        if good_at >= mute:
            self._join_good()

    def _join_good(self) -> None:
        for name in GOOD:
            self.bench.join(name)

    def job(self, name: str, tiles: int) -> float:
        """Do a job; returns how long it took."""
        began_at = self.bench.now
        self._check_in()
        self._handle(self.bench.submit((PIXELS,) * tiles, job=name))
        while name not in self._finished:
            self._step()
        return self.bench.now - began_at

    def _check_in(self) -> None:
        if self.bench.now >= self._checks_in_at:
            self._checks_in_at = self.bench.now + CHECKIN_S
            for device in self._devices:
                self._handle(self.bench.check_in(device))

    def _step(self) -> None:
        wakeup = self.bench.scheduler.next_wakeup()
        assert wakeup is not None or self._events
        if self._events and (wakeup is None or self._events[0][0] <= wakeup):
            at, _, event = heapq.heappop(self._events)
            self._handle(self.bench.feed(event, max(at, self.bench.now)))
        elif wakeup is not None:
            self._handle(self.bench.tick(max(wakeup, self.bench.now)))

    def _handle(self, actions: list[Action]) -> None:
        self.actions += actions
        self._finished |= {one.job for one in actions if isinstance(one, FinishJob)}
        for order in sent(actions):
            if order.device in GOOD:
                self._work(order)

    def _work(self, order: SendTile) -> None:
        accepted_at = self.bench.now + ACCEPT_S
        done_at = max(accepted_at, self._free_at[order.device]) + TILE_S
        self._free_at[order.device] = done_at
        attempt = (order.job, order.tile, order.attempt, order.device)
        self._at(accepted_at, TileAccepted(*attempt))
        self._at(done_at, ResultArrived(*attempt))

    def _at(self, at: float, event: Event) -> None:
        heapq.heappush(self._events, (at, next(self._count), event))


def alone_s(tiles: int) -> float:
    """How long the two good boards need without the others."""
    return Boards(0, 0).job("job", tiles)


@pytest.mark.parametrize("tiles", [2, 16, 100])
@pytest.mark.parametrize("good_at", [0, 40], ids=["first", "last"])
def test_forty_mute_boards_cost_two_good_ones_tenths_of_a_second(good_at: int, tiles: int) -> None:
    boards = Boards(40, good_at)
    assert boards.job("first", tiles) < alone_s(tiles) + 1.1
    assert boards.job("second", tiles) < alone_s(tiles) + 0.4


def test_two_hundred_mute_boards_cost_no_more_once_two_are_known_to_answer() -> None:
    boards = Boards(200, 100)
    boards.job("first", 16)
    for number in range(8):
        assert boards.job(f"next-{number}", 16) < alone_s(16) + 0.4


def test_a_mute_board_is_tried_less_and_less_often_and_then_put_into_quarantine() -> None:
    boards = Boards(40, 0)
    jobs = 0
    while boards.bench.now < 40:
        jobs += 1
        boards.job(f"job-{jobs}", 16)
    tries = [one for one in sent(boards.actions) if one.device == "mute-7"]
    assert len(tries) < 12
    assert any(isinstance(one, Quarantine) and one.device == "mute-7" for one in boards.actions)


def test_a_board_that_answers_late_is_trusted_from_then_on() -> None:
    bench = Bench(ahead=0)
    bench.measured("eya", seconds=1)
    bench.join("late")
    own, lates = sorted(sent(bench.submit(2)), key=lambda order: order.device)
    bench.accept(own)
    actions = bench.answer(own, at=bench.now + 0.5)
    assert CancelTile("job", lates.tile, 1, "late") in actions
    moved = only(actions)
    assert moved.device == "eya"
    bench.answer(moved, at=bench.now + 0.5)
    assert devices(bench.submit(2, job="before")) == ["eya"], "it is given nothing for a while"
    assert devices(bench.accept(lates)) == ["late"]


def test_the_first_tile_of_a_board_stays_there_while_nobody_else_has_time() -> None:
    bench = Bench(ahead=0)
    bench.measured("eya", seconds=10)
    bench.join("slow-link")
    for order in sent(bench.submit(9)):
        if order.device == "eya":
            bench.accept(order)
    actions = bench.tick(bench.now + 3)
    assert not any(isinstance(one, CancelTile) for one in actions)


@pytest.mark.parametrize("count", [1, 3, 20])
def test_where_all_boards_are_mute_a_job_is_starved_so_that_the_gateway_does_it(count: int) -> None:
    bench = Bench()
    for number in range(count):
        bench.join(f"mute-{number}")
    actions = bench.submit(6)
    while not any(isinstance(one, ReportStarved) for one in actions):
        actions = bench.tick(bench.scheduler.next_wakeup() or 0.0)
    assert bench.now < 12
    (told,) = [one for one in actions if isinstance(one, ReportStarved)]
    assert told.reason.startswith("every able device is mute (mute-0")
    given = devices(bench.join("local"))
    while "local" not in given:
        given += devices(bench.tick(bench.scheduler.next_wakeup() or 0.0))
    assert bench.now < 13


def test_a_board_that_answers_ends_the_starvation() -> None:
    bench = Bench()
    bench.join("late")
    first, *_ = sent(bench.submit(2))
    bench.tick(at=6)
    bench.accept(first, at=7)
    assert not any(isinstance(one, ReportStarved) for one in bench.tick(at=30))


def test_two_devices_that_fell_silent_do_not_copy_a_tile_from_each_other_for_ever() -> None:
    bench = Bench(sends_reported=True, hedge_min_s=0.1)
    for name in ("a", "b"):
        bench.measured(name, seconds=0.05)
    asked: list[str] = []
    actions = bench.submit(1)
    while bench.now < 100 and "fresh" not in asked:
        for order in sent(actions):
            asked.append(order.device)
            bench.send(order)
        if bench.now > 10 and "fresh" not in bench.scheduler.ready_devices():
            actions = bench.join("fresh")
        else:
            actions = bench.tick(bench.scheduler.next_wakeup() or bench.now + 1)
    assert "fresh" in asked, asked
