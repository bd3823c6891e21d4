"""How the gateway decides whether a stage is cut, done whole on its own cores, or both."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from fogmqtt.core.geometry import Rect
from fogmqtt.gateway.devices.registry import AbleDevice
from fogmqtt.gateway.execution.cost_model import (
    BOTH_S,
    WHOLE_S,
    CostModel,
    StageTrial,
    verdict,
)
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.wire.topics import LOCAL

MP = 1_000_000
FAST = {"eya": AbleDevice("b1", workers=4096), "manar": AbleDevice("b2", workers=4096)}


@dataclass
class Clock:
    at: float = 0.0

    def __call__(self) -> float:
        return self.at


def learned(alone_s: float, **speeds: float) -> CostModel:
    """After a stage of 1 MP: seconds alone, and what devices of boot `b` gave, MP/s."""
    prospects = CostModel(Clock())
    prospects.learn_alone("canny", MP, alone_s)
    for name, speed in speeds.items():
        boot = "" if name == LOCAL else "b"
        prospects.learn_tiles("canny", name, boot, int(speed * MP), MP, 1.0)
    return prospects


def helpers(*names: str, boot: str = "b") -> dict[str, AbleDevice]:
    return {name: AbleDevice(boot, workers=1) for name in names}


def test_while_nobody_knows_what_it_takes_alone_a_stage_is_cut() -> None:
    assert CostModel().look("canny", MP, FAST).choice() == "tiles"


def test_without_a_device_a_short_stage_is_done_whole() -> None:
    assert learned(1.0).look("canny", MP, {}).choice() == "alone"


def test_what_takes_long_is_cut_so_that_devices_can_come_and_people_can_see() -> None:
    assert learned(1.1 * WHOLE_S).look("canny", MP, {}).choice() == "tiles"


def test_unmeasured_devices_that_may_be_faster_get_tiles_while_the_gateway_does_it_too() -> None:
    assert learned(0.9 * BOTH_S).look("canny", MP, FAST).choice() == "both"


def test_what_is_too_long_to_be_done_twice_is_cut_for_unmeasured_devices() -> None:
    assert learned(1.1 * BOTH_S).look("canny", MP, FAST).choice() == "tiles"


def test_devices_that_announce_that_they_are_slow_are_not_tried() -> None:
    slow = {"eya": AbleDevice("b", workers=1, relative_speed=0.01)}
    assert learned(1.0).look("canny", MP, slow).choice() == "alone"


def test_measured_devices_that_are_faster_get_the_tiles() -> None:
    prospect = learned(1.0, eya=2.0, local=0.5).look("canny", MP, helpers("eya"))
    assert (prospect.choice(), prospect.known) == ("tiles", True)
    assert prospect.fleet_s == pytest.approx(1 / 2.5)


def test_measured_devices_that_are_slower_get_nothing() -> None:
    prospect = learned(1.0, eya=0.1, local=0.5).look("canny", MP, helpers("eya"))
    assert prospect.choice() == "alone"


def test_a_device_that_restarted_is_tried_anew() -> None:
    prospects = learned(1.0, eya=0.1, local=0.9)
    assert not prospects.look("canny", MP, helpers("eya", boot="other")).known


def test_a_speed_on_a_small_image_says_little_of_a_large_one() -> None:
    prospects = learned(0.001, eya=0.1, local=0.5)
    assert prospects.look("canny", 2 * MP, helpers("eya")).known
    assert not prospects.look("canny", 5 * MP, helpers("eya")).known


def test_after_ten_minutes_devices_are_tried_again() -> None:
    clock = Clock()
    prospects = CostModel(clock)
    prospects.learn_alone("canny", MP, 1.0)
    prospects.learn_tiles("canny", "eya", "b", 1000, MP, 1.0)
    assert prospects.look("canny", MP, helpers("eya")).known
    clock.at = 601.0
    assert not prospects.look("canny", MP, helpers("eya")).known


def test_newer_figures_count_half() -> None:
    prospects = learned(1.0)
    prospects.learn_alone("canny", MP, 0.5)
    assert prospects.look("canny", MP, {}).alone_s == pytest.approx(1 / 1.5)


def test_the_verdict_is_a_figure_or_a_reason() -> None:
    assert verdict(1.0, 2.5) == "the fleet makes it 2.5 times as fast"
    assert verdict(2.5, 1.0).startswith("the fleet cannot help here")


def trial(prospects: CostModel, *names: str) -> StageTrial:
    prospect = prospects.look("canny", MP, helpers(*names))
    mark = Report("j", "in.png", "canny").mark()
    return StageTrial("canny", MP, prospect, "tiles", helpers(*names), 0.0, True, mark)


def test_tiles_that_come_too_slowly_are_late() -> None:
    stage = trial(learned(1.0, eya=2.0), "eya")
    assert not stage.is_late(0.15)
    stage.credit("eya", MP // 100, 0.2)
    assert stage.is_late(0.25)


def test_tiles_that_come_in_time_are_not_late() -> None:
    stage = trial(learned(1.0, eya=2.0), "eya")
    stage.credit("eya", MP // 4, 0.2)
    assert not stage.is_late(0.25)


def test_large_first_tiles_are_waited_for() -> None:
    stage = trial(learned(1.0, eya=2.0), "eya")
    assert not stage.is_late(0.4)
    assert stage.is_late(0.6)


def test_a_stage_teaches_what_each_device_gave() -> None:
    prospects = learned(1.0)
    stage = trial(prospects, "eya", "manar")
    stage.credit("eya", MP // 2, 0.25)
    stage.credit(LOCAL, MP // 2, 0.5)
    stage.teach(prospects, 0.5, by_tiles=False)
    assert not prospects.look("canny", MP, helpers("eya", "manar")).known  # manar: too early
    found = prospects.look("canny", MP, helpers("eya"))
    assert found.known
    assert found.fleet_s == pytest.approx(1 / 3)


def test_of_a_stage_done_by_tiles_the_speeds_add_up_to_what_it_took() -> None:
    prospects = learned(1.0)
    stage = trial(prospects, "eya")
    stage.credit("eya", MP // 2, 0.25)
    stage.credit(LOCAL, MP // 2, 0.5)
    stage.teach(prospects, 2.0, by_tiles=True)
    assert prospects.look("canny", MP, helpers("eya")).fleet_s == pytest.approx(2.0)
    assert prospects.look("canny", MP, helpers("eya")).choice() == "alone"


def test_a_device_that_gave_nothing_in_a_long_stage_gives_nothing() -> None:
    prospects = learned(1.0)
    stage = trial(prospects, "eya")
    stage.teach(prospects, 5.0, by_tiles=False)
    assert prospects.look("canny", MP, helpers("eya")).choice() == "alone"


def test_the_report_says_why_the_fleet_could_not_help_with_figures() -> None:
    report = Report("j", "in.png", "canny")
    stage = trial(learned(1.0, eya=0.1), "eya")
    stage.credit("eya", MP // 10, 1.0)
    stage.tell(report, 1.0, 0.5)
    assert report.sentence == (
        "the fleet cannot help here: by tiles it takes 10.00 s, on this gateway alone 0.50 s"
    )
    assert report.as_json()["local"] == {
        "seconds": 0.5,
        "measured": True,
        "sentence": report.sentence,
    }
    assert report.as_json()["makespan"] == 1.0


def test_the_report_of_a_stage_that_was_cut_predicts_what_it_takes_alone() -> None:
    report = Report("j", "in.png", "canny")
    trial(learned(1.0, eya=2.0), "eya").tell(report, 0.5, None)
    assert (report.sentence, report.alone_s, report.alone_measured) == ("", 1.0, False)


def test_what_tiles_did_is_taken_back_where_a_whole_was_first() -> None:
    report = Report("j", "in.png", "canny", tiles=3, done=3)
    report.credit("eya", Rect(0, 0, 5, 5))
    mark = report.mark()
    report.tiles += 4
    report.done += 1
    report.credit("eya", Rect(0, 0, 5, 5))
    report.credit("manar", Rect(5, 0, 5, 5))
    report.take_back(mark)
    assert (report.tiles, report.done, list(report.devices)) == (3, 3, ["eya"])
    assert report.devices["eya"].tiles == 1
