"""Trusted operators run in threads of the agent: they leave no process, and lose no tile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from fogmqtt.images import codec
from fogmqtt.images.spec import Image
from fogmqtt.transport.base import Received
from fogmqtt.wire.messages import Call, TileTask
from fogmqtt.workers import trusted
from fogmqtt.workers.pool import Pool
from fogmqtt.workers.trusted import TrustedTiles
from fogmqtt.workers.work import TileOutput, WorkFailed, WorkFinished
from tests.agent_rig import PIXELS, task
from tests.misbehaving import install, workers_of
from tests.processes import Fog, Program, photo, read, same, until

ABILITIES = ["invert/uint8", "median/uint8"]
RATES = {"invert": 0.0, "median": 0.0}


class TrustingPool:
    """A pool with one worker and a rule that trusts `invert` and `median`."""

    def __init__(self) -> None:
        self._before = workers_of(os.getpid())
        self._done: SimpleQueue[WorkFinished[int]] = SimpleQueue()
        self.pool = Pool[int](1, self._done.put, trusted=TrustedTiles())
        self.pool.learn(ABILITIES, RATES)

    def workers(self) -> list[psutil.Process]:
        return [one for one in workers_of(os.getpid()) if one not in self._before]

    def do(self, work: TileTask) -> WorkFinished[int]:
        now = time.monotonic()
        self.pool.start(0, work, received_at=now, deadline=now + 30)
        return self._done.get(timeout=30)


@pytest.fixture
def pool() -> Iterator[TrustingPool]:
    made = TrustingPool()
    yield made
    made.pool.close()


def pixels_of(finished: WorkFinished[int]) -> Image:
    output = finished.outcome
    assert isinstance(output, TileOutput), output
    return codec.decode(output.data, output.codec, output.shape, output.dtype)


def test_a_trusted_tile_needs_no_process(pool: TrustingPool) -> None:
    assert np.array_equal(pixels_of(pool.do(task())), 255 - PIXELS)
    assert pool.workers() == []


def test_warming_starts_no_process(pool: TrustingPool) -> None:
    pool.pool.warm()
    pool.do(task())
    assert pool.workers() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": [Call("gaussian", {"ksize": 5})]},
        {"codec": "png", "pixels": memoryview(codec.encode(PIXELS, "png"))},
    ],
    ids=["unchecked", "encoded"],
)
def test_a_tile_that_is_not_trusted_runs_in_a_process(
    changes: dict[str, Any], pool: TrustingPool
) -> None:
    pixels_of(pool.do(task(**changes)))
    assert len(pool.workers()) == 1


def test_an_operator_that_takes_too_long_goes_back_to_processes(
    pool: TrustingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trusted, "MAX_S", 1e-9)
    expected = 255 - PIXELS
    assert np.array_equal(pixels_of(pool.do(task())), expected)
    assert pool.workers() == []
    assert np.array_equal(pixels_of(pool.do(task())), expected)
    assert len(pool.workers()) == 1


def test_an_operator_that_raises_fails_its_tile_and_goes_back_to_processes(
    pool: TrustingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*_: object) -> None:
        raise ValueError("boom")

    monkeypatch.setattr("fogmqtt.operators.api.pipeline.run_tile", raises)
    failed = pool.do(task()).outcome
    assert isinstance(failed, WorkFailed)
    assert failed.reason == "ValueError: boom"
    assert "in raises" in failed.traceback
    assert np.array_equal(pixels_of(pool.do(task())), 255 - PIXELS)
    assert len(pool.workers()) == 1


def test_an_operator_cannot_write_to_the_pixels_of_its_tile(
    pool: TrustingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def writes(_operators: object, pixels: Image, *_: object) -> None:
        pixels[:] = 0

    monkeypatch.setattr("fogmqtt.operators.api.pipeline.run_tile", writes)
    failed = pool.do(task(pixels=memoryview(bytearray(PIXELS.tobytes())))).outcome
    assert isinstance(failed, WorkFailed)
    assert "read-only" in failed.reason


# Real agents at a real broker


def run(fog: Fog, image: Path, pipeline: str, **settings: str) -> Image:
    fog.run(image, "-o", "out.png", "--tiles", "grid 3x3", "--pipeline", pipeline, **settings)
    return read(fog.folder / "out.png")


def start_device(fog: Fog, name: str = "eya", **settings: str) -> Program:
    device = fog.device(name, **settings)
    device.says(f"{name} is online")
    fog.examined()
    return device


@pytest.mark.broker
def test_trusted_operators_run_in_the_agent(lone_fog: Fog) -> None:
    device = start_device(lone_fog, DEVICE__WORKERS="2")
    image = photo()
    made = run(lone_fog, lone_fog.save("in.png", image), "invert | median ksize=3")
    assert same(made, cv2.medianBlur(255 - image, 3))
    assert workers_of(device.process.pid) == []
    assert loads_opencv(device)


@pytest.mark.broker
def test_with_isolate_always_all_operators_run_in_processes(lone_fog: Fog) -> None:
    device = start_device(lone_fog, DEVICE__ISOLATE="always")
    image = photo()
    made = run(lone_fog, lone_fog.save("in.png", image), "invert | median ksize=3")
    assert same(made, cv2.medianBlur(255 - image, 3))
    assert len(workers_of(device.process.pid)) == 1
    assert not loads_opencv(device)


@pytest.mark.broker
@pytest.mark.parametrize("pipeline", ["codes", "denoise", "components", "misbehave how=raises"])
def test_all_other_operators_never_run_in_the_agent(
    pipeline: str, lone_fog: Fog, tmp_path: Path
) -> None:
    lone_fog.path = install(tmp_path)
    device = start_device(lone_fog)
    image = lone_fog.save("in.png", np.maximum(photo(120, 160)[:, :, 0], 14))
    output = "out.json" if pipeline in ("codes", "components") else "out.png"
    lone_fog.run(image, "-o", output, "--tiles", "grid 2x1", "--pipeline", pipeline)
    assert len(workers_of(device.process.pid)) == 1


@pytest.mark.broker
def test_an_agent_that_is_killed_in_a_trusted_operator_loses_nothing(lone_fog: Fog) -> None:
    eya, _ = (start_device(lone_fog, name) for name in ("eya", "oumayma"))
    image = photo(2000, 3000)
    path = lone_fog.save("in.png", image)
    # It is in the operator nearly all the time, since that takes much longer than the messages.
    pipeline = ("--pipeline", "bilateral d=13")
    with lone_fog.probe("fog/v1/gateways/+/results/eya") as heard:
        job = lone_fog.start_run(path, "-o", "out.png", *pipeline)
        until(lambda: len(heard.inbox.take(Received).payload) > 10_000, "a result")
        assert workers_of(eya.process.pid) == []
        eya.kill()
        assert job.ended() == 0, job.said
    assert same(read(lone_fog.folder / "out.png"), cv2.bilateralFilter(image, 13, 75, 75))


def loads_opencv(device: Program) -> bool:
    return any("cv2" in one.path for one in psutil.Process(device.process.pid).memory_maps())
