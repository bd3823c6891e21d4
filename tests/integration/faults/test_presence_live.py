"""Devices that hang while connected, that come and die all the time, and clocks that jump."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fog import wait_for
from tests.hearing import Hearing, hearing
from tests.misbehaving import install
from tests.processes import DEVICES, Fog, Program, edges_of, photo, private_fog, read, same

pytestmark = [pytest.mark.broker, pytest.mark.serial]

#: Pixels per second of a device: the job takes three of them some 3 seconds.
SPEED = 60_000
TILES = ("--tiles", "size 100x90")
#: Nobody who is noticed as hung is punished for longer than the test has time.
PATIENCE = {"SCHEDULER__QUARANTINE_S": "0.5"}
#: For what is on its way between two processes that share their cores with others. Who is not
#: noticed by a lease is noticed by its silence, after 20 s.
BUSY_S = 5.0
#: Of a device that dies all the time: more than it takes to be in quarantine.
LIVES = 5
#: A worker and two ahead.
WINDOW = 3
#: Runs at the start of every Python process that finds it.
JUMPY = """
import sys, time
_time, _time_ns, _steady = time.time, time.time_ns, time.monotonic
HOURS = (0, 26, -3, 9000, -50000)
def jump():
    return 3600 * HOURS[int(_steady() * 2) % len(HOURS)]
time.time = lambda: _time() + jump()
time.time_ns = lambda: _time_ns() + 10**9 * jump()
print("the clock jumps", file=sys.stderr, flush=True)
"""


@pytest.fixture
def fog(broker: object, tmp_path: Path) -> Iterator[Fog]:
    """A broker of its own."""
    del broker
    with private_fog(tmp_path, **PATIENCE) as made:
        yield made


def job(fog: Fog, *more: str, size: tuple[int, int] = (450, 720)) -> tuple[Program, Path, Path]:
    """Start a job on a photo; returns the run, the photo and where the result will be."""
    path = fog.save("in.png", photo(*size))
    out = fog.folder / "out.png"
    return fog.start_run(path, "-o", out, *TILES, *more), path, out


def moved_within_their_leases(heard: Hearing, device: str, since: float) -> None:
    """What it held and did not do itself in the end was given to others in time."""
    moved = [key for key in heard.open_at(device, since) if heard.done_by(key) != device]
    assert moved, f"{device} held nothing, so nothing was to be noticed"
    for key in moved:
        waited = heard.moved_at(key, device, since) - since
        lease_s = heard.lease_of(key, device)
        assert waited <= lease_s + BUSY_S, f"{key} moved after {waited:.1f} of {lease_s:.1f} s"


def never_left(fog: Fog, heard: Hearing, device: str) -> None:
    """The broker saw nothing of it: no will was published, no connection ended."""
    assert (device, "offline") not in heard.statuses
    assert f"Client {device} " not in fog.broker.log
    assert f"Client {device}:" not in fog.broker.log


def test_a_stopped_agent_is_noticed_by_its_leases_and_comes_back_with_no_wrong_result(
    fog: Fog,
) -> None:
    eya, *_ = fog.fleet(speed=SPEED)
    fog.examined()
    with hearing(fog.broker.url) as heard:
        run, path, out = job(fog)
        heard.wait_for_results(6)
        eya.signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        assert run.ended() == 0, run.said
        assert same(read(out), edges_of(path))
        moved_within_their_leases(heard, "eya", stopped_at)
        never_left(fog, heard, "eya")
        # It wakes up in the middle of another job, with old tiles and old answers in its hands.
        before = len(heard.results)
        again, path, out = job(fog)
        heard.wait_for_results(before + 6)
        eya.signal(signal.SIGCONT)
        assert again.ended() == 0, again.said
        assert same(read(out), edges_of(path))
        jobs = list(dict.fromkeys(key[0] for key, _, _ in heard.results))
        assert "eya" in {device for key, device, _ in heard.results if key[0] == jobs[-1]}
        never_left(fog, heard, "eya")
    assert eya.running


def test_a_stuck_operator_is_noticed_by_its_lease_and_its_device_is_used_again(
    fog: Fog, tmp_path: Path
) -> None:
    fog.path = install(tmp_path)
    devices = dict(zip(DEVICES, fog.fleet(speed=SPEED), strict=True))
    fog.examined()
    sticky = ("--pipeline", "misbehave how=stick")
    with hearing(fog.broker.url) as heard:
        run, path, out = job(fog, *sticky)
        heard.wait_for_results(6)
        (fog.folder / "stick").touch()
        pid = wait_for(lambda: stuck(fog), what="an operator that is stuck")
        stuck_at = time.monotonic()
        device = next(name for name, one in devices.items() if one.process.pid == pid)
        assert run.ended() == 0, run.said
        assert same(read(out), 255 - read(path))
        moved_within_their_leases(heard, device, stuck_at)
        never_left(fog, heard, device)
        before = len(heard.results)
        again, path, out = job(fog, *sticky)
        assert again.ended() == 0, again.said
        assert same(read(out), 255 - read(path))
        assert device in {by for _, by, _ in heard.results[before:]}
        never_left(fog, heard, device)


def stuck(fog: Fog) -> int | None:
    """The process of the device whose operator is stuck, None while there is none."""
    return next((int(file.name[6:]) for file in fog.folder.glob("stuck-*")), None)


def test_a_device_that_connects_and_dies_all_the_time_costs_a_few_tiles(fog: Fog) -> None:
    fog.settings["SCHEDULER__QUARANTINE_S"] = "30"
    # The job lasts until there were some lives, however long a start takes here.
    steady = [fog.device(name, "--emulate-speed", f"5000,{SPEED}") for name in DEVICES]
    for name, program in zip(DEVICES, steady, strict=True):
        program.says(f"{name} is online")
    fog.examined()
    lives = 0
    with hearing(fog.broker.url) as heard:
        run, path, out = job(fog, size=(720, 1000))
        heard.wait_for_results(3)
        while run.running:
            # Too slow to end a tile in one of its lives, which are of some 0.3 s.
            life = fog.device("flappy", "--emulate-speed", "1000")
            life.says("flappy is online")
            life.kill()
            lives += 1
            if lives == LIVES:
                for program in steady:
                    program.signal(signal.SIGUSR1)
        assert run.ended() == 0, run.said
    assert same(read(out), edges_of(path))
    assert lives >= LIVES, "the job was too short for that"
    given = [sent for sent in heard.sent if sent.device == "flappy"]
    # Its third death with tiles in hand is the last one for now, and each of these is sent again.
    assert len(given) <= min(lives, 3) * WINDOW, run.said


def test_no_jump_of_the_wall_clock_changes_a_job(fog: Fog, tmp_path: Path) -> None:
    """Of gateway and devices alike: every half second it is some hours earlier or later."""
    folder = tmp_path / "jumpy"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(JUMPY)
    fog.path = os.pathsep.join((str(folder), fog.path))
    jumped = fog.fleet(speed=SPEED)
    fog.examined()
    with hearing(fog.broker.url) as heard:
        run, path, out = job(fog)
        assert run.ended() == 0, run.said
    assert same(read(out), edges_of(path))
    assert "quarantine" not in run.said
    assert "is lost" not in run.said
    assert heard.statuses.count(("eya", "online")) == 1, "it never left"
    for program in (run, *jumped):
        assert "the clock jumps" in program.said
