"""An operator that does its worst on one tile fails its job, with the reason, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, Signals

import numpy as np
import psutil
import pytest

from fogmqtt.images.spec import Image
from tests.fog import wait_for
from tests.misbehaving import install, workers_of
from tests.processes import PATIENCE_S, Fog, Program, photo, private_fog, read, same

pytestmark = pytest.mark.broker

NAMES = ("eya", "oumayma")
#: Two devices are asked. Leases that run out are no failures: a busy machine starts workers slowly.
BRIEF = {"SCHEDULER__MAX_FAILURES": "2"}
#: Of a tile that hangs, nobody wants to wait for the end of a usual lease.
IMPATIENT = {"SCHEDULER__MAX_FAILURES": "1", "SCHEDULER__FIRST_LEASE_S": "3"}


#: What each does, what its job's story must say of it, and of where it was.
WORST = {
    "raises": ("ValueError: boom", "in raises"),
    "exit": ("SystemExit: 3", "in exit"),
    "eat": ("MemoryError", "in eat"),
    "crash": ("the worker process was ended by signal 11 (SIGSEGV) at tile 1", "in crash"),
    "really_exit": ("the worker process ended with exit code 7 at tile 1", ""),
    "larger": ("misbehave gave 160x240 colour uint8, not 160x120 colour uint8", "in check_output"),
    "hang": ("did not return within its lease of", "in hang"),
}


@dataclass(frozen=True)
class Day:
    """Two devices on which all of that happened at once, and an honest job."""

    bad: dict[str, Program]
    devices: tuple[Program, ...]
    folder: Path
    honest: Image


def marked(columns: int = 0) -> Image:
    """A photograph; of its tiles in a grid of so many columns, the last of the first row is bad."""
    image = np.maximum(photo(240, 320), 14)
    if columns:
        image[0, 320 - 320 // columns] = 13
    return image


@pytest.fixture(scope="module")
def day(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    del broker
    folder = tmp_path_factory.mktemp("fog")
    settings = {"DEVICE__WORKERS": "2", "DEVICE__WORKER_MEMORY_MB": "128"}
    with private_fog(folder) as fog:
        fog.path = install(folder)
        devices = tuple(fog.device(name, **settings) for name in NAMES)
        for name, device in zip(NAMES, devices, strict=True):
            device.says(f"{name} is online")
        image = fog.save("bad.png", marked(columns=2))
        # Its tile must not wait behind others for so long that it never hangs.
        bad = {"hang": start(fog, image, "hang")}
        bad["hang"].says("did not return")
        bad |= {how: start(fog, image, how) for how in WORST if how != "hang"}
        good = fog.save("good.png", marked())
        pipeline = ("--pipeline", "misbehave how=crash")
        fog.run(good, "-o", "good-out.png", "--tiles", "grid 4x4", *pipeline)
        for program in bad.values():
            program.ended()
        yield Day(bad, devices, folder, marked())


def start(fog: Fog, image: Path, how: str) -> Program:
    pipeline = ("--pipeline", f"misbehave how={how}")
    settings = IMPATIENT if how == "hang" else BRIEF
    return fog.start_run(image, "-o", f"{how}.png", "--tiles", "grid 2x2", *pipeline, **settings)


@pytest.mark.parametrize("how", WORST)
def test_one_bad_tile_fails_its_job_with_the_reason_and_where(how: str, day: Day) -> None:
    job = day.bad[how]
    reason, where = WORST[how]
    assert job.ended() == 1
    assert reason in job.said
    assert where in job.said
    assert not (day.folder / f"{how}.png").exists()


def test_another_job_at_the_same_time_on_the_same_devices_is_exact(day: Day) -> None:
    assert same(read(day.folder / "good-out.png"), 255 - day.honest)


def test_the_agents_live(day: Day) -> None:
    assert all(device.running for device in day.devices)


@pytest.mark.parametrize("signals", [(SIGKILL,), (SIGTERM, SIGINT)], ids=["killed", "hurried"])
def test_no_worker_outlives_its_device(
    signals: tuple[Signals, ...], lone_fog: Fog, tmp_path: Path
) -> None:
    lone_fog.path = install(tmp_path)
    (eya,) = lone_fog.fleet("eya")
    start(lone_fog, lone_fog.save("in.png", marked(columns=2)), "hang")
    workers = wait_for(
        lambda: workers_of(eya.process.pid), within=PATIENCE_S, what="a worker of the device"
    )
    for number in signals:
        eya.signal(number)
    eya.ended()
    assert psutil.wait_procs(workers, 10)[1] == []
