"""How the gateway decides whether a stage is cut, or done whole on its own cores."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.scheduler import Scheduler
from fogmqtt.gateway.devices.registry import AbleDevice, Machine
from fogmqtt.gateway.execution.cost_model import (
    HELP_S,
    STALE_S,
    WHOLE_S,
    CostModel,
    Decision,
    StageDemand,
    compare_times,
)
from fogmqtt.gateway.execution.whole_image import StageAttempt
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.workers.resources import cores

MP = 1_000_000
HERE = "attic"
JOBS = 20


def work(megapixels: float = 1.0, *, wire_bytes: float = 0.0) -> StageDemand:
    return StageDemand("canny", "1 uint8 ", frozenset(), int(megapixels * MP), wire_bytes)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def devices(
    workers: int = 1, speed: float = 1.0, *, host: str = "kitchen", boot: str = "b1"
) -> dict[str, AbleDevice]:
    return {"eya": AbleDevice(boot, workers, Machine(host), speed)}


@dataclass
class World:
    """A gateway and a fleet with true seconds for a stage of 1 MP, whole and by tiles."""

    whole_s: float
    tiles_s: float
    able: dict[str, AbleDevice]
    #: What a sample says, as a multiple of the truth.
    sample: float = 1.0
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.model = CostModel(Scheduler(Policy()), Machine(HERE), self.clock)
        self.model.learn_sample(work(), MP, self.sample * self.whole_s, cores())

    def job(self) -> float:
        """Do one stage, and return its seconds."""
        decision = self.model.decide(work(), self.able, whole=True)
        if not decision.by_tiles:
            self.model.learn_whole(work(), self.whole_s, cores())
            self.clock.now += self.whole_s
            return self.whole_s
        took_s, lost = self._race(attempt(decision, self.able))
        self.model.learn_tiles(work(), self.able, self.tiles_s if lost else took_s, lost=lost)
        self.clock.now += took_s
        return took_s

    def _race(self, course: StageAttempt) -> tuple[float, bool]:
        """Return the seconds until the tiles or the whole image are done. Both share the cores."""
        moment, step_s = 0.0, self.whole_s / 100
        while moment < self.tiles_s:
            moment += step_s
            if moment > self.tiles_s / 10:
                course.done_pixels = int(MP * moment / self.tiles_s)
            if course.is_late(moment) and (whole_at := moment + 1.3 * self.whole_s) < self.tiles_s:
                return whole_at, True
        return self.tiles_s, False

    def jobs(self, count: int = JOBS) -> list[float]:
        return [self.job() for _ in range(count)]


def honest(tiles_s: float, host: str = "kitchen") -> dict[str, AbleDevice]:
    """A device that would do a stage of 1 s in so many seconds, if carrying took no time."""
    if host == HERE:
        return devices(cores(), host=host)
    return devices(cores(), 1 / tiles_s, host=host)


# Twenty stages of one kind.


@pytest.mark.parametrize("whole_s", [0.02, 0.3, 5.0])
@pytest.mark.parametrize("factor", [0.1, 0.4, 0.7, 0.9, 1.0, 1.1, 1.4, 2.0, 5.0, 30.0])
@pytest.mark.parametrize("sample", [0.6, 1.0, 1.6])
def test_it_is_never_slower_than_the_better_way_by_more_than_a_twentieth(
    whole_s: float, factor: float, sample: float
) -> None:
    seconds = World(whole_s, factor * whole_s, honest(factor), sample).jobs()
    assert sum(seconds) / JOBS <= 1.05 * min(1.0, factor) * whole_s
    assert seconds[0] <= 1.2 * min(1.0, factor) * whole_s


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.2, 2.0, 5.0])
def test_devices_on_this_machine_are_tried_and_their_makespan_decides(factor: float) -> None:
    seconds = World(0.3, 0.3 * factor, honest(factor, HERE)).jobs()
    assert seconds[0] <= 0.3, "they have no cores of their own"
    assert sum(seconds) / JOBS <= 1.05 * 0.3 * min(1.0, factor)


@pytest.mark.parametrize("host", [HERE, "kitchen"])
@pytest.mark.parametrize("claimed", [0.001, 0.01, 0.1, 10.0, 100.0])
@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0, 100.0])
def test_a_device_that_lies_about_its_host_or_its_speed_does_no_harm(
    host: str, claimed: float, factor: float
) -> None:
    seconds = World(1.0, factor, devices(cores(), 1 / claimed, host=host)).jobs()
    assert sum(seconds) / JOBS <= 1.05
    assert max(seconds) <= 1.7


def test_after_a_loss_the_gateway_stays_alone_for_a_while() -> None:
    world = World(1.0, 1.4, honest(1.0))
    world.jobs(3)
    assert not world.model.decide(work(), world.able, whole=True).by_tiles
    world.clock.now += 0.9 * STALE_S
    world.model.learn_whole(work(), 1.0, cores())
    assert not world.model.decide(work(), world.able, whole=True).by_tiles
    world.clock.now += 0.2 * STALE_S
    assert world.model.decide(work(), world.able, whole=True).by_tiles


def test_after_a_loss_other_devices_are_tried_at_once() -> None:
    world = World(1.0, 1.4, honest(1.0))
    world.jobs(3)
    assert world.model.decide(work(), devices(cores(), boot="b2"), whole=True).by_tiles


@pytest.mark.parametrize(
    ("device", "is_same"),
    [
        (Machine("raspberrypi", "a"), True),
        (Machine("raspberrypi", "b"), False),
        (Machine("container", "a"), True),
        (Machine("raspberrypi"), True),
        (Machine("container"), False),
    ],
)
def test_an_id_tells_machines_apart_better_than_a_host_name(device: Machine, is_same: bool) -> None:
    assert Machine("raspberrypi", "a").is_same(device) is is_same


# Which way is tried.


def known(whole_s: float) -> CostModel:
    """A model that has measured the gateway with 1 MP."""
    made = CostModel(Scheduler(Policy()), Machine(HERE), Clock())
    made.learn_whole(work(), whole_s, cores())
    return made


def test_while_nobody_knows_what_it_takes_whole_a_stage_is_cut() -> None:
    made = CostModel(Scheduler(Policy()), Machine(HERE), Clock())
    assert made.decide(work(), devices(), whole=True).by_tiles


def test_a_stage_that_may_not_be_whole_is_cut() -> None:
    assert known(0.1).decide(work(), devices(speed=0.001), whole=False).by_tiles


def test_without_a_device_a_short_stage_is_done_whole() -> None:
    assert not known(1.0).decide(work(), {}, whole=True).by_tiles


def test_what_takes_long_is_cut_so_that_devices_can_come_and_people_can_see() -> None:
    assert known(1.1 * WHOLE_S).decide(work(), {}, whole=True).by_tiles


def test_carrying_costs_more_than_cheap_work_on_any_fleet() -> None:
    many = devices(workers=1000)
    decision = known(0.003).decide(work(wire_bytes=2 * MP), many, whole=True)
    assert not decision.by_tiles
    assert decision.tiles_s is not None
    assert decision.tiles_s > 0.003


def test_the_gateways_own_cores_help_with_long_stages_only() -> None:
    assert known(2 * HELP_S).decide(work(), devices(100, 9.0), whole=True).helped
    assert not known(HELP_S / 2).decide(work(), devices(100, 9.0), whole=True).helped


def test_a_time_is_used_for_sizes_like_it() -> None:
    made = known(1.0)
    made.learn_tiles(work(), devices(), 30.0, lost=True)
    assert not made.decide(work(1.01), devices(), whole=True).by_tiles
    assert not made.knows_whole(work(20))


def test_what_the_fleet_is_worth_is_said_plainly() -> None:
    assert compare_times(0.5, 1.0) == "the fleet makes it 2.0 times as fast"
    assert compare_times(2.0, 1.0).startswith(
        "the fleet cannot help here: by tiles it takes 2.00 s"
    )


# While tiles are on their way.


def attempt(decision: Decision, able: dict[str, AbleDevice] | None = None) -> StageAttempt:
    before = Report("j1", "x", "canny").snapshot()
    return StageAttempt(work(), decision, able or {}, True, before, began_at=0.0)


@pytest.fixture
def course() -> StageAttempt:
    """A stage of 1 MP, begun at 0, that the gateway would do whole in 1 s."""
    return attempt(Decision(True, whole_s=1.0, tiles_s=0.5))


def test_tiles_that_come_as_expected_are_not_late(course: StageAttempt) -> None:
    assert not course.is_late(0.2)
    course.credit(int(0.5 * MP))
    assert not course.is_late(0.35)


def test_when_the_tiles_that_are_left_need_longer_the_whole_image_begins(
    course: StageAttempt,
) -> None:
    course.credit(int(0.05 * MP))
    assert not course.is_late(0.2), "too early to tell"
    assert course.is_late(0.35)


def test_when_no_tile_comes_at_all_the_whole_image_begins_later(course: StageAttempt) -> None:
    assert not course.is_late(0.4)
    assert course.is_late(0.6)


def test_devices_that_were_never_tried_get_less_time_for_their_first_tile() -> None:
    trial = attempt(Decision(True, whole_s=1.0, tiles_s=0.5, is_trial=True))
    assert not trial.is_late(0.25)
    assert trial.is_late(0.35)


def test_a_stage_that_cannot_be_whole_is_never_late(course: StageAttempt) -> None:
    assert not attempt(Decision(True, None, 0.5)).is_late(1e6)
