"""How the gateway decides whether a stage is cut, or done whole on its own cores."""

from __future__ import annotations

import pytest

from fogmqtt.core.scheduling.events import JobSubmitted
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.scheduler import Scheduler
from fogmqtt.gateway.devices.registry import AbleDevice
from fogmqtt.gateway.execution.cost_model import (
    WHOLE_S,
    CostModel,
    Costs,
    StageDemand,
    compare_times,
)
from fogmqtt.gateway.execution.whole_image import StageAttempt
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.workers.resources import cores

MP = 1_000_000
HERE = "attic"


def work(megapixels: float = 1.0, *, wire_bytes: float = 0.0) -> StageDemand:
    return StageDemand("canny", "1 uint8 ", frozenset(), int(megapixels * MP), wire_bytes)


class MeasuredFleet(Scheduler):
    """A scheduler that expects a fixed time for every megapixel; None: nothing is measured."""

    def __init__(self, seconds: float | None) -> None:
        super().__init__(Policy())
        self.seconds = seconds

    def estimate_s(self, job: JobSubmitted, now: float) -> float | None:
        del now
        return None if self.seconds is None else self.seconds * sum(job.tiles) / MP


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def model(whole_s: float | None, fleet_s: float | None = None) -> CostModel:
    """Seconds for 1 MP whole on the gateway, and by the fleet."""
    made = CostModel(MeasuredFleet(fleet_s), HERE, Clock())
    if whole_s is not None:
        made.learn_whole(work(), MP, whole_s)
    return made


def remote(workers: int = 1, speed: float = 1.0) -> dict[str, AbleDevice]:
    return {"eya": AbleDevice("b1", workers, "kitchen", speed)}


def local(workers: int = 1) -> dict[str, AbleDevice]:
    return {"eya": AbleDevice("b1", workers, HERE, 1.0)}


# Which way is tried.


def test_while_nobody_knows_what_it_takes_whole_a_stage_is_cut() -> None:
    assert model(None, 0.1).costs(work(), remote(), whole=True).by_tiles


def test_a_stage_that_may_not_be_whole_is_cut() -> None:
    assert model(0.1, 9.0).costs(work(), remote(), whole=False).by_tiles


def test_without_a_device_a_short_stage_is_done_whole() -> None:
    assert not model(1.0).costs(work(), {}, whole=True).by_tiles


def test_what_takes_long_is_cut_so_that_devices_can_come_and_people_can_see() -> None:
    assert model(1.1 * WHOLE_S).costs(work(), {}, whole=True).by_tiles


@pytest.mark.parametrize(("fleet_s", "by_tiles"), [(0.1, True), (100.0, False)])
def test_a_measured_fleet_is_compared_with_the_whole_image(fleet_s: float, by_tiles: bool) -> None:
    assert model(1.0, fleet_s).costs(work(), remote(), whole=True).by_tiles is by_tiles


def test_an_unmeasured_fleet_is_taken_at_the_speeds_that_it_announces() -> None:
    many, few = remote(workers=100 * cores()), remote(workers=1, speed=0.01)
    assert model(1.0).costs(work(), many, whole=True).by_tiles
    assert not model(1.0).costs(work(), few, whole=True).by_tiles


def test_the_gateways_own_cores_work_beside_devices() -> None:
    costs = model(1.0, 1.0).costs(work(), remote(), whole=True)
    assert costs.tiles_s == pytest.approx(1 / 1.6)


def test_devices_on_this_machine_share_its_cores_and_so_gain_nothing() -> None:
    for fleet_s in (None, 0.01):
        costs = model(0.1, fleet_s).costs(work(), local(workers=8), whole=True)
        assert not costs.by_tiles


def test_carrying_costs_more_than_cheap_work_on_any_fleet() -> None:
    many = remote(workers=1000)
    costs = model(0.003).costs(work(wire_bytes=2 * MP), many, whole=True)
    assert not costs.by_tiles
    assert costs.tiles_s is not None
    assert costs.tiles_s > 0.003


# What is learned.


def test_what_stages_really_take_corrects_what_is_expected() -> None:
    made = model(1.0, 0.5)
    costs = made.costs(work(), remote(), whole=True)
    assert costs.by_tiles
    for _ in range(8):
        made.learn_tiles(work(), costs, 3.0)
        costs = made.costs(work(), remote(), whole=True)
    assert costs.tiles_s == pytest.approx(3.0, rel=0.1)
    assert not costs.by_tiles


def test_a_correction_holds_for_sizes_like_it_and_for_a_while() -> None:
    clock = Clock()
    made = CostModel(MeasuredFleet(0.5), HERE, clock)
    made.learn_whole(work(), MP, 1.0)
    made.learn_tiles(work(), made.costs(work(), remote(), whole=True), 30.0)
    assert not made.costs(work(1.01), remote(), whole=True).by_tiles
    assert made.costs(work(20), remote(), whole=True).by_tiles
    clock.now = 3600.0
    assert made.costs(work(), remote(), whole=True).by_tiles


def test_a_stage_without_an_estimate_teaches_nothing() -> None:
    made = model(1.0, 0.5)
    made.learn_tiles(work(), Costs(1.0, None), 100.0)
    assert made.costs(work(), remote(), whole=True).by_tiles


def test_what_the_fleet_is_worth_is_said_plainly() -> None:
    assert compare_times(0.5, 1.0) == "the fleet makes it 2.0 times as fast"
    assert compare_times(2.0, 1.0).startswith(
        "the fleet cannot help here: by tiles it takes 2.00 s"
    )


# While tiles are on their way.


@pytest.fixture
def course() -> StageAttempt:
    """A stage of 1 MP, begun at 0, that the gateway would do whole in 1 s."""
    costs = Costs(whole_s=1.0, tiles_s=0.5, estimate_s=0.5)
    return StageAttempt(work(), costs, True, Report("j1", "x", "canny").snapshot(), began_at=0.0)


def test_tiles_that_come_as_expected_are_not_late(course: StageAttempt) -> None:
    assert not course.is_late(0.2)
    course.credit(int(0.5 * MP))
    assert not course.is_late(0.25)


def test_when_the_tiles_that_are_left_need_longer_the_whole_image_begins(
    course: StageAttempt,
) -> None:
    course.credit(int(0.05 * MP))
    assert not course.is_late(0.05), "too early to tell"
    assert course.is_late(0.15)


def test_when_no_tile_comes_at_all_the_whole_image_begins_later(course: StageAttempt) -> None:
    assert not course.is_late(0.4)
    assert course.is_late(0.6)


def test_a_stage_that_cannot_be_whole_is_never_late(course: StageAttempt) -> None:
    never = StageAttempt(course.work, Costs(None, 0.5), False, course.before, began_at=0.0)
    assert not never.is_late(1e6)
