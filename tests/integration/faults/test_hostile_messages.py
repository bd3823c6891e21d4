"""Thousands of malformed messages during a job: it is exact, all live, and memory stays."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from tests.fog import Probe
from tests.hostile import TOPICS, bombs, mutants, noise
from tests.processes import Fog, Program, edges_of, photo, private_fog, read, same

pytestmark = pytest.mark.broker

#: Of each process, over what it had before; a job's own tiles are in it.
GROWTH_BYTES = 50 * 1024 * 1024


@pytest.fixture(scope="module")
def besieged(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    del broker  # skips or fails where Mosquitto is missing
    with private_fog(tmp_path_factory.mktemp("siege")) as fog:
        fog.fleet()
        fog.serve()
        yield fog


def memory(program: Program) -> int:
    return int(psutil.Process(program.process.pid).memory_info().rss)


def besiege(client: Probe, seed: int, count: int) -> int:
    rng = random.Random(seed)
    sent = 0
    for payload in (*mutants(rng, count), *noise(rng, count // 4), *bombs()):
        topic = rng.choice(TOPICS)
        # What is retained on a status or info topic stays for whoever comes; also on tiles.
        client.publish(topic, payload, qos=rng.choice((0, 1)), retain=rng.random() < 0.02)
        sent += 1
    return sent


def warm(fog: Fog, name: str) -> None:
    """One job through everybody, so that what is loaded once is loaded."""
    fog.run(name, "-o", "warm.png", "--tiles", "grid 6x6")
    assert same(read(fog.folder / "warm.png"), edges_of(fog.folder / name))


def test_a_job_under_siege_is_exact_and_everybody_lives(besieged: Fog) -> None:
    fog = besieged
    image = fog.save("in.png", photo())
    warm(fog, "in.png")
    programs = [program for program in fog.programs if program.running]
    before = {program.log.stem: memory(program) for program in programs}
    with (
        fog.probe("fog/v1/replies/good/#", client_id="good") as good,
        fog.probe(client_id="hostile") as hostile,
    ):
        running = fog.start_run(image, "-o", "out.png", "--tiles", "size 40x40", "--verify")
        sent = besiege(hostile, 1, 1500)
        good.publish("fog/v1/submit/edges/good", image.read_bytes())
        sent += besiege(hostile, 2, 1500)
        assert sent > 3500
        assert running.ended() == 0, running.said
        status: dict[str, Any] = {"state": ""}
        while status["state"] not in ("done", "failed"):
            status = json.loads(good.message("fog/v1/replies/good/status", within=60).payload)
        assert status["state"] == "done", status
    assert same(read(fog.folder / "out.png"), edges_of(image))
    for program in programs:
        assert program.running, program.said[-3000:]
        assert "Traceback" not in program.said, program.said[-5000:]
        grown = memory(program) - before[program.log.stem]
        assert grown < GROWTH_BYTES, f"{program.log.stem} grew by {grown:,} bytes"
        assert len(program.said) < 200_000, (
            f"{program.log.stem} said {len(program.said):,} characters"
        )


def test_what_hostile_clients_left_retained_hinders_no_newcomer(besieged: Fog) -> None:
    fog = besieged
    with fog.probe(client_id="litter") as client:
        rng = random.Random(3)
        for topic in (*TOPICS[:7], "fog/v1/devices/late/info", "fog/v1/devices/late/tiles"):
            client.publish(topic, next(noise(rng, 1)) or b"x", retain=True)
    fog.device("late").says("late is online")
    fog.run("in.png", "-o", "after.png", "--tiles", "grid 5x5")
    assert same(read(fog.folder / "after.png"), edges_of(fog.folder / "in.png"))


def test_odd_pixels_of_a_valid_shape_are_still_only_pixels(besieged: Fog) -> None:
    """A picture of extremes, in case somebody reads a meaning into a byte."""
    extremes = np.tile(np.array([0, 255, 128, 127, 1], np.uint8), (60, 40))
    path = besieged.save("extremes.png", extremes)
    ran = besieged.run(path, "-o", "extremes-out.png", "--verify", "--tiles", "size 30x30")
    assert ran.report["differ"] == 0
