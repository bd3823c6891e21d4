"""Trusted operators run in threads of the agent: they leave no process, and lose no tile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from fogmqtt.images import codec
from fogmqtt.images.spec import Image
from fogmqtt.operators.api import pipeline
from fogmqtt.transport.base import Received
from fogmqtt.wire.messages import Call, TileTask
from fogmqtt.workers import pool as pools
from fogmqtt.workers import trusted
from fogmqtt.workers.pool import Pool
from fogmqtt.workers.trusted import TrustedTiles
from fogmqtt.workers.work import TileOutput, WorkCancelled, WorkFailed, WorkFinished
from tests.agent_rig import PIXELS, task
from tests.fog import wait_for
from tests.misbehaving import install, workers_of
from tests.processes import Fog, Program, has_opencv, photo, read, same, until

ABILITIES = ["invert/uint8", "median/uint8"]
RATES = {"invert": 0.0, "median": 0.0}


class TrustingPool:
    """A pool with one worker and a rule that trusts `invert` and `median`."""

    def __init__(self) -> None:
        self._before = workers_of(os.getpid())
        self._done: SimpleQueue[WorkFinished[int]] = SimpleQueue()
        self.rule = TrustedTiles()
        self.pool = Pool[int](1, self._done.put, trusted=self.rule)
        self.pool.learn(ABILITIES, RATES)

    def workers(self) -> list[psutil.Process]:
        return [one for one in workers_of(os.getpid()) if one not in self._before]

    def do_until_given_up(self, work: TileTask, *, cancelled: bool = False) -> WorkFinished[int]:
        """Do a tile with a lease of a moment, while its owner looks for threads that hang."""
        now = time.monotonic()
        self.pool.start(0, work, received_at=now, deadline=now + 0.1)
        if cancelled:
            self.pool.cancel(0)
        wait_for(self._is_told_after_a_look, what="the end of its lease")
        return self.next()

    def _is_told_after_a_look(self) -> bool:
        self.pool.look(time.monotonic())
        return not self.all_is_told

    def do(self, work: TileTask) -> WorkFinished[int]:
        now = time.monotonic()
        self.pool.start(0, work, received_at=now, deadline=now + 30)
        return self.next()

    def next(self) -> WorkFinished[int]:
        return self._done.get(timeout=30)

    @property
    def all_is_told(self) -> bool:
        return self._done.empty()


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


def test_a_process_that_runs_does_the_first_tiles_and_then_this_thread_does_them(
    pool: TrustingPool,
) -> None:
    pool.pool.prepare()
    until(lambda: bool(pool.workers()), "a process")
    assert np.array_equal(pixels_of(pool.do(task())), 255 - PIXELS)
    assert not pool.rule.is_loaded
    (process,) = pool.workers()
    until(lambda: pool.rule.is_loaded, "OpenCV in this program")
    process.suspend()
    assert np.array_equal(pixels_of(pool.do(task())), 255 - PIXELS)
    process.resume()


def test_a_worker_that_never_pauses_loads_opencv_here_between_two_tiles(
    pool: TrustingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "_LOAD_AFTER_S", 600.0)
    monkeypatch.setattr(pools, "_LOAD_BY_S", 0.0)
    pool.pool.prepare()
    until(lambda: bool(pool.workers()), "a process")
    assert np.array_equal(pixels_of(pool.do(task())), 255 - PIXELS)
    until(lambda: pool.rule.is_loaded, "OpenCV in this program")


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


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Tiles in threads of this process hang until the event is set."""
    returns = threading.Event()
    run_tile = pipeline.run_tile

    def hangs(*arguments: Any) -> Any:
        returns.wait()
        return run_tile(*arguments)

    monkeypatch.setattr("fogmqtt.operators.api.pipeline.run_tile", hangs)
    monkeypatch.setattr(pools, "_HANGS_AFTER_S", 0.05)
    yield returns
    returns.set()


def test_a_thread_that_hangs_fails_its_tile_after_the_lease_and_is_replaced(
    pool: TrustingPool, hang: threading.Event
) -> None:
    failed = pool.do_until_given_up(task()).outcome
    assert isinstance(failed, WorkFailed)
    assert "did not return within its lease of 0.1 s" in failed.reason
    assert pool.pool.hanging == 1
    assert np.array_equal(pixels_of(pool.do(task())), 255 - PIXELS)
    assert len(pool.workers()) == 1, "tiles of its kind run in processes"
    hang.set()
    until(lambda: pool.pool.hanging == 0, "the end of the thread")
    assert pool.all_is_told, "a tile was told twice"


def test_a_thread_that_hangs_in_a_cancelled_tile_is_replaced_without_a_failure(
    pool: TrustingPool, hang: threading.Event
) -> None:
    del hang
    assert isinstance(pool.do_until_given_up(task(), cancelled=True).outcome, WorkCancelled)
    assert np.array_equal(pixels_of(pool.do(task())), 255 - PIXELS)


def test_a_tile_that_is_late_because_the_program_was_stopped_is_not_given_up(
    pool: TrustingPool, hang: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "_HANGS_AFTER_S", 60.0)
    now = time.monotonic()
    pool.pool.start(0, task(), received_at=now, deadline=now)
    until(lambda: pool.pool.look(time.monotonic()) > now + 50, "the start of the tile")
    hang.set()
    assert np.array_equal(pixels_of(pool.next()), 255 - PIXELS)
    assert pool.pool.hanging == 0


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
    path = lone_fog.save("in.png", image)
    use_threads(lone_fog, path, device)
    made = run(lone_fog, path, "invert | median ksize=3")
    assert same(made, cv2.medianBlur(255 - image, 3))


@pytest.mark.broker
def test_with_isolate_always_all_operators_run_in_processes(lone_fog: Fog) -> None:
    device = start_device(lone_fog, DEVICE__ISOLATE="always")
    image = photo()
    made = run(lone_fog, lone_fog.save("in.png", image), "invert | median ksize=3")
    assert same(made, cv2.medianBlur(255 - image, 3))
    assert len(workers_of(device.process.pid)) == 1
    assert not has_opencv(device)


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
    eya, oumayma = (start_device(lone_fog, name) for name in ("eya", "oumayma"))
    image = photo(2000, 3000)
    path = lone_fog.save("in.png", image)
    use_threads(lone_fog, lone_fog.save("small.png", photo()), eya, oumayma)
    # It is in the operator nearly all the time, since that takes much longer than the messages.
    pipeline = ("--pipeline", "bilateral d=13")
    with lone_fog.probe("fog/v1/gateways/+/results/eya") as heard:
        job = lone_fog.start_run(path, "-o", "out.png", *pipeline)
        until(lambda: len(heard.inbox.take(Received).payload) > 10_000, "a result")
        eya.kill()
        assert job.ended() == 0, job.said
    assert same(read(lone_fog.folder / "out.png"), cv2.bilateralFilter(image, 13, 75, 75))


#: Makes `median` hang in threads of every program; processes and other operators are not changed.
_HANG = """\
import time
from fogmqtt.workers import pool
run_here = pool._run_here
def hangs(task, kind, trusted):
    if task.stage[0].name == "median":
        time.sleep(3600)
    return run_here(task, kind, trusted)
pool._run_here = hangs
"""


@pytest.mark.broker
def test_an_agent_whose_threads_hang_goes_on_and_begins_anew_when_too_many_do(
    lone_fog: Fog, tmp_path: Path
) -> None:
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "sitecustomize.py").write_text(_HANG)
    lone_fog.path = f"{tmp_path / 'planted'}:{lone_fog.path}"
    device = start_device(lone_fog, DEVICE__WORKERS="2")
    image = photo()
    path = lone_fog.save("in.png", image)
    use_threads(lone_fog, path, device)
    for process in workers_of(device.process.pid):
        process.resume()
    brief = {"SCHEDULER__FIRST_LEASE_S": "3", "SCHEDULER__QUARANTINE_S": "1"}
    assert same(run(lone_fog, path, "median ksize=3", **brief), cv2.medianBlur(image, 3))
    assert "restarting with all tiles in processes" in device.said
    assert device.said.count("eya is online") == 2
    assert device.stop() == 0


def use_threads(fog: Fog, image: Path, *devices: Program) -> None:
    """Let the devices do tiles until their threads can, and stop the processes that did the first.

    A stopped process does no tile, so a job that ends was done in threads.
    """
    run(fog, image, "invert")
    fog.examined()  # before, tiles of other operators are for processes
    for device in devices:
        until(partial(has_opencv, device), "OpenCV in the agent")
        for process in workers_of(device.process.pid):
            process.suspend()
