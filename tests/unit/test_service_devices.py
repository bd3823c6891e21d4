"""The card of a device says what it does, why it has no work, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fogmqtt import __version__
from fogmqtt.config.schema import SchedulerSettings
from fogmqtt.operators.api import registry
from fogmqtt.transport.memory import MemoryTransport
from fogmqtt.wire import service_messages as msg
from fogmqtt.wire.messages import DeviceInfo, Failure, TileTask, encode
from fogmqtt.wire.topics import OFFLINE, ONLINE
from tests.fog import Inbox, wait_for
from tests.gateway_rig import PlayedDevice, accepted, do_nothing
from tests.processes import PATIENCE_S
from tests.service_client import ServiceClient
from tests.serving import PICTURE, Serving
from tests.unit.test_service import client


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    scheduler = SchedulerSettings(quarantine_s=100.0, max_failures=1000)
    spool = str(tmp_path / "spool")
    with Serving(spool, "never", tiles="grid 4x4", scheduler=scheduler) as made:
        yield made


def announce(serving: Serving, name: str, *, online: bool = True, **more: Any) -> MemoryTransport:
    link = MemoryTransport(serving.broker, name, Inbox().put)
    link.start()
    fields = {"sequence": 1, "uptime_s": 1.0, "workers": 1, **more}
    info = DeviceInfo(boot=name, operators=list(registry.names()), **fields)
    link.publish(f"fog/v1/devices/{name}/info", encode(info, "base64"), retain=True)
    link.publish(f"fog/v1/devices/{name}/status", ONLINE if online else OFFLINE, retain=True)
    return link


def card(page: ServiceClient, device: str) -> msg.DeviceCard | None:
    cards = page.ask(msg.Watch, msg.Snapshot).devices
    return next((one for one in cards if one.id == device), None)


def becomes(page: ServiceClient, device: str, activity: msg.Activity) -> msg.DeviceCard:
    def found() -> bool:
        shown = card(page, device)
        return shown is not None and shown.activity == activity

    wait_for(found, within=PATIENCE_S, what=f"{device} to be {activity}, not {card(page, device)}")
    shown = card(page, device)
    assert shown is not None
    return shown


def test_a_device_without_work_waits_and_one_that_leaves_is_offline(serving: Serving) -> None:
    page = client(serving)
    link = announce(serving, "eya", temperature_c=51.5, load=0.5, host="board")
    shown = becomes(page, "eya", "idle")
    assert shown.sentence == "Waits: there is no job with tiles."
    assert (shown.temperature_c, shown.load, shown.host) == (51.5, 0.5, "board")
    link.publish("fog/v1/devices/eya/status", OFFLINE, retain=True)
    shown = becomes(page, "eya", "offline")
    assert "fog-device --id eya" in shown.advice
    announce(serving, "manar", draining=True)
    assert "takes no more" in becomes(page, "manar", "draining").sentence


def test_a_device_that_still_examines_its_operators_starts(serving: Serving) -> None:
    page = client(serving)
    announce(serving, "eya", conformance_running=True)
    assert "examine" in becomes(page, "eya", "starting").sentence.lower()
    announce(serving, "eya", sequence=2)
    assert becomes(page, "eya", "idle").sentence == "Waits: there is no job with tiles."


def test_a_device_that_works_is_shown_with_its_job_and_its_rates(serving: Serving) -> None:
    page = client(serving)
    device = PlayedDevice(serving.broker, "eya")
    device.start()
    becomes(page, "eya", "idle")
    page.ended(page.upload(PICTURE, pipeline="invert").job.id)
    shown = card(page, "eya")
    assert shown is not None
    assert shown.tiles_per_s > 0
    assert shown.pixels_per_s > 0
    assert shown.latency_s is not None
    device.answer = do_nothing
    job = page.upload(PICTURE, "b.png", pipeline="invert").job.id
    shown = becomes(page, "eya", "working")
    assert shown.jobs == [job]
    assert shown.tiles_held > 0
    assert "b.png" in shown.sentence


def test_a_device_whose_tiles_fail_is_in_quarantine_until_a_time(serving: Serving) -> None:
    def fail(task: TileTask) -> list[Any]:
        failure = Failure(job=task.job, tile=task.tile, attempt=task.attempt, reason="boom")
        return [accepted(task), failure]

    page = client(serving)
    device = PlayedDevice(serving.broker, "eya", answer=fail)
    device.start()
    PlayedDevice(serving.broker, "manar").start()
    becomes(page, "manar", "idle")
    for number in range(4):  # others do what it cannot
        page.ended(page.upload(PICTURE, f"{number}.png", pipeline="invert").job.id)
    shown = becomes(page, "eya", "quarantined")
    snapshot = page.ask(msg.Watch, msg.Snapshot)
    assert shown.quarantined_until is not None
    assert 0 < shown.quarantined_until - snapshot.at <= 101
    assert "until" in shown.sentence
    assert shown.advice


def test_a_device_that_lacks_what_the_job_needs_says_what(serving: Serving) -> None:
    page = client(serving)
    announce(serving, "eya", dtypes=["uint8"])
    becomes(page, "eya", "idle")
    deep = cv2.imencode(".png", np.zeros((64, 64), np.uint16))[1].tobytes()
    page.upload(deep, "deep.png", pipeline="median ksize=3")
    shown = becomes(page, "eya", "incompatible")
    assert "deep.png" in shown.sentence
    assert "median/uint16 takes uint8 only" in shown.sentence
    assert shown.lacks["median/uint16"] == "takes uint8 only"


def test_a_device_of_another_version_is_named_and_one_of_ours_is_not(serving: Serving) -> None:
    page = client(serving)
    announce(serving, "eya", versions={"fogmqtt": "0.0.9"})
    announce(serving, "manar", versions={"fogmqtt": __version__})
    behind, same = becomes(page, "eya", "idle"), becomes(page, "manar", "idle")
    (remark,) = behind.problems
    assert remark.startswith(f"It runs fogmqtt 0.0.9, and this gateway {__version__}: install")
    assert behind.advice == remark
    assert (same.problems, same.advice) == ([], "")


def test_a_hostile_device_cannot_put_control_characters_into_its_card(serving: Serving) -> None:
    page = client(serving)
    announce(
        serving,
        "eya",
        host="a\x1b[2Jb\n",
        problems=["x\ny"],
        versions={"opencv": "4\x07", "fogmqtt": "1\x1b[2J"},
    )
    shown = becomes(page, "eya", "idle")
    texts = [shown.host, *shown.problems, *shown.versions.values()]
    assert all(text.isprintable() for text in texts)
