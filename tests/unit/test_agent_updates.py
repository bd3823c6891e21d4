"""An agent that a gateway may update, and one that it may not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fogmqtt.transport.base import Received
from fogmqtt.wire.messages import UpdateBoard, UpdateReport, encode
from tests.agent_rig import CONTROL, INFO, Rig, running_agent

UPDATE = Received(CONTROL, encode(UpdateBoard(version="9.1.0")))
TAKEN_BACK = UpdateReport("9.0.0", "taken back", "it was not online")


@dataclass
class Installer:
    """Does what the test says."""

    report: Callable[[UpdateReport], None]
    last: UpdateReport | None = TAKEN_BACK
    versions: list[str] = field(default_factory=list)
    times_online: int = 0

    def begin(self, version: str) -> bool:
        if self.versions:
            return False
        self.versions.append(version)
        self.report(UpdateReport(version, "fetching"))
        return True

    def online(self) -> None:
        self.times_online += 1


def has_said(rig: Rig, report: UpdateReport) -> bool:
    return any(info.update == report for info in rig.link.infos())


def test_an_update_is_told_step_by_step_and_ends_the_agent() -> None:
    made: list[Installer] = []

    def make(report: Callable[[UpdateReport], None]) -> Installer:
        made.append(Installer(report))
        return made[0]

    with running_agent(make_updater=make) as rig:
        assert rig.link.infos()[0].updates
        assert rig.link.infos()[0].update == TAKEN_BACK
        rig.link.deliver(UPDATE)
        rig.link.wait(lambda: has_said(rig, UpdateReport("9.1.0", "fetching")))
        rig.link.deliver(UPDATE)
        made[0].report(UpdateReport("9.1.0", "failed", "the disk is full"))
        rig.link.wait(lambda: has_said(rig, UpdateReport("9.1.0", "failed", "the disk is full")))
        assert rig.agent.warning_counts == {"update": 1}  # one went on
        made[0].report(UpdateReport("9.1.0", "starting"))
        rig.join()
        assert rig.agent.is_updated
    assert made[0].versions == ["9.1.0"]


def test_an_agent_is_online_when_the_broker_passes_on_its_info() -> None:
    made: list[Installer] = []

    def make(report: Callable[[UpdateReport], None]) -> Installer:
        made.append(Installer(report))
        return made[0]

    with running_agent(make_updater=make) as rig:
        assert made[0].times_online == 0
        own = next(payload for topic, payload, _ in rig.link.published if topic == INFO)
        rig.link.deliver(Received(INFO, own))
        rig.link.deliver(Received(INFO, own))
    assert made[0].times_online == 1


def test_an_agent_that_no_launcher_started_refuses_an_update() -> None:
    with running_agent() as rig:
        assert not rig.link.infos()[0].updates
        rig.link.deliver(UPDATE)
    assert rig.agent.warning_counts == {"update": 1}
    assert not rig.agent.is_updated
