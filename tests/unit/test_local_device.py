"""The gateway's own cores: they come when they are needed, leave, and can come back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fogmqtt.core.scheduling.events import DeviceDraining, DeviceJoined, Event
from fogmqtt.gateway.execution.local_device import LocalDevice


@dataclass
class Place:
    """Local cores with a switch for whether they are at work."""

    busy: bool = False
    fed: list[Event] = field(default_factory=list)

    def cores(self) -> LocalDevice:
        return LocalDevice("boot", self.fed.append, lambda: self.busy)

    def boots(self) -> list[str]:
        return [event.boot for event in self.fed if isinstance(event, DeviceJoined)]


def test_they_join_with_every_operator_and_leave_by_draining() -> None:
    place = Place()
    cores = place.cores()
    cores.join()
    joined = place.fed[0]
    assert isinstance(joined, DeviceJoined)
    assert (joined.device, joined.workers > 0) == ("local", True)
    assert "canny" in joined.operators
    cores.leave()
    cores.leave()
    assert place.fed[1:] == [DeviceDraining("local")]
    assert not cores.working


def test_a_second_time_they_join_under_another_boot_id() -> None:
    place = Place()
    cores = place.cores()
    for wanted in (True, False, True):
        cores.update(wanted=wanted)
    assert place.boots() == ["boot.1", "boot.2"]


def test_they_do_not_come_back_while_a_tile_of_the_last_time_is_here() -> None:
    place = Place(busy=True)
    cores = place.cores()
    for wanted in (True, False, True):
        cores.update(wanted=wanted)
    assert place.boots() == ["boot.1"]
    place.busy = False
    cores.update(wanted=True)
    assert place.boots() == ["boot.1", "boot.2"]
    assert cores.working


def test_they_join_when_their_workers_have_started() -> None:
    place, started = Place(), []

    async def run() -> None:
        ready = asyncio.Event()

        async def warm() -> None:
            started.append("workers")
            await ready.wait()

        cores = LocalDevice("boot", place.fed.append, lambda: False, warm)
        cores.update(wanted=True)
        cores.update(wanted=True)
        await asyncio.sleep(0)
        assert place.boots() == []
        ready.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await cores.close()

    asyncio.run(run())
    assert started == ["workers"]
    assert place.boots() == ["boot.1"]


def test_after_a_lost_broker_they_are_the_same_life() -> None:
    place = Place(busy=True)
    cores = place.cores()
    cores.join()
    cores.join()
    assert place.boots() == ["boot.1", "boot.1"]
