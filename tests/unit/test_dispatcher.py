"""Tiles go out in the scheduler's order, results are checked, and long work delays no tile."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import Any, Literal

import msgspec
import numpy as np
import pytest

from fogmqtt.config.schema import VerifySettings, WireSettings
from fogmqtt.core.geometry import Auto, Grid, Tile
from fogmqtt.gateway.execution import stage_run
from fogmqtt.gateway.execution.local_workers import LocalWorkers
from fogmqtt.gateway.execution.stage_run import StageRun
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.results import TileResult
from fogmqtt.wire.messages import Accepted, Failure, Result, TileTask
from tests.gateway_rig import (
    Rig,
    accepted,
    config,
    do_nothing,
    eventually,
    inverted,
    request,
    result,
    run,
)


def test_tiles_are_published_in_the_order_in_which_they_were_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tile that takes long to encode is not overtaken by the next one for the same device."""
    encode = stage_run.make_task

    def slow_at_first(run: StageRun, tile: Tile, **options: Any) -> TileTask:
        if tile.index == 0:
            time.sleep(0.2)
        return encode(run, tile, **options)

    monkeypatch.setattr(stage_run, "make_task", slow_at_first)

    async def test() -> None:
        rig = Rig()
        device = rig.device()
        async with rig.gateway() as gateway:
            await gateway.submit(request(plan=Grid(4, 4))).outcome()
        first = [task.tile for task in device.tasks[:3]]
        assert first == sorted(first)

    run(test())


def test_the_event_loop_cuts_and_checks_light_tiles_and_threads_do_it_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[str] = []

    def watched(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            threads.append(threading.current_thread().name.partition("_")[0])
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(stage_run, "make_task", watched(stage_run.make_task))
    monkeypatch.setattr(stage_run, "decode_result", watched(stage_run.decode_result))

    async def used(image: Image, codec: Literal["raw", "png"] = "raw") -> set[str]:
        threads.clear()
        rig = Rig()
        rig.device()
        made = replace(config(), wire=WireSettings(codec=codec, max_message_bytes=10**7))
        async with rig.gateway(made) as gateway:
            whole = request(plan=Grid(1, 1), image=image)
            assert (await gateway.submit(whole).outcome()).error is None
        return set(threads)

    async def test() -> None:
        light, heavy = (np.zeros((1024, width), np.uint8) for width in (1024, 8192))
        assert await used(light) == {"MainThread"}
        assert await used(heavy) == {"tiles"}
        assert await used(light, "png") == {"tiles", "MainThread"}, "results are raw in any case"

    run(test())


def test_a_tile_whose_job_ended_while_it_was_encoded_is_not_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoding, go_on, encode = threading.Event(), threading.Event(), stage_run.make_task

    def waiting(run: StageRun, tile: Tile, **options: Any) -> TileTask:
        encoding.set()
        go_on.wait(10)
        return encode(run, tile, **options)

    monkeypatch.setattr(stage_run, "make_task", waiting)

    async def test() -> None:
        rig = Rig()
        device = rig.device()
        in_threads = replace(config(), wire=WireSettings(codec="png"))
        async with rig.gateway(in_threads) as gateway:
            handle = gateway.submit(request())
            await eventually(encoding.is_set)
            handle.cancel()
            await handle.outcome()
            go_on.set()
            monkeypatch.setattr(stage_run, "make_task", encode)
            await gateway.submit(request()).outcome()
        assert {task.job.split(".")[0] for task in device.tasks} != {handle.id}
        assert handle.id not in {task.job.split(".")[0] for task in device.tasks}

    try:
        run(test())
    finally:
        go_on.set()


def test_long_work_on_large_images_delays_no_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two large images that are being verified must not make devices look slow or silent."""
    busy, release = threading.Barrier(3), threading.Event()

    def long_work() -> None:
        busy.wait(10)
        release.wait(30)

    async def test() -> None:
        rig = Rig()
        rig.device()
        async with rig.gateway() as gateway:
            threads = gateway._threads
            long = [asyncio.ensure_future(threads.image(long_work, 10**8)) for _ in range(2)]
            await asyncio.get_running_loop().run_in_executor(None, lambda: busy.wait(10))
            outcome = await gateway.submit(request(plan=Grid(4, 4))).outcome()
            assert outcome.error is None
            assert outcome.report.retries == 0
            release.set()
            await asyncio.gather(*long)

    try:
        run(test())
    finally:
        release.set()


def test_a_result_of_the_wrong_shape_fails_its_attempt_and_another_is_asked_for() -> None:
    seen: set[int] = set()

    def wrong_at_first(task: TileTask) -> list[Accepted | Result]:
        good = result(task)
        if task.tile in seen:
            return [accepted(task), good]
        seen.add(task.tile)
        return [accepted(task), msgspec.structs.replace(good, digest="0" * 16)]

    async def test() -> None:
        rig = Rig()
        rig.device("eya", answer=wrong_at_first)
        rig.device("manar")
        async with rig.gateway() as gateway:
            outcome = await gateway.submit(request()).outcome()
        assert np.array_equal(outcome.image, inverted())

    run(test())


def test_a_result_of_a_device_that_was_never_asked_counts_for_nothing() -> None:
    async def test() -> None:
        rig = Rig()
        asked = rig.device("eya", answer=do_nothing)
        async with rig.gateway() as gateway:
            handle = gateway.submit(request(plan=Grid(1, 1)))
            await eventually(lambda: asked.tasks)
            stranger = rig.device("stranger", answer=do_nothing)
            forged = msgspec.structs.replace(asked.tasks[0], pixels=memoryview(bytes(96 * 128)))
            stranger.publish(asked.tasks[0], result(forged))
            await asyncio.sleep(0.1)
            assert handle.report.done == 0
            asked.publish(asked.tasks[0], result(asked.tasks[0]))
            assert np.array_equal((await handle.outcome()).image, inverted())

    run(test())


def test_of_two_results_for_one_tile_the_first_counts() -> None:
    def twice(task: TileTask) -> list[Accepted | Result]:
        return [accepted(task), result(task), result(task)]

    async def test() -> None:
        rig = Rig()
        rig.device(answer=twice)
        async with rig.gateway() as gateway:
            outcome = await gateway.submit(request(plan=Grid(3, 3))).outcome()
        assert outcome.report.done == 9
        assert np.array_equal(outcome.image, inverted())

    run(test())


def test_a_result_that_cannot_be_checked_fails_its_attempt_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The scheduler is told of an unexpected error: it does not wait until the lease is over."""
    decode, problems = stage_run.decode_result, [MemoryError("no room")]

    def fail_once(run: StageRun, tile: Tile, answer: Result) -> TileResult:
        if problems:
            raise problems.pop()
        return decode(run, tile, answer)

    monkeypatch.setattr(stage_run, "decode_result", fail_once)

    async def test() -> None:
        rig = Rig()
        rig.device()
        async with rig.gateway() as gateway:
            outcome = await gateway.submit(request(plan=Grid(1, 1), timeout_s=5.0)).outcome()
        assert outcome.error is None
        assert outcome.report.retries == 1

    run(test())
    assert "cannot be checked" in caplog.text


def test_a_job_ends_although_this_machine_cannot_tell_which_device_is_right(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(LocalWorkers, "do", fail)

    def wrong(task: TileTask) -> list[Accepted | Result]:
        pixels = memoryview(bytes(task.pixels.nbytes))
        return [accepted(task), result(msgspec.structs.replace(task, pixels=pixels))]

    async def test() -> None:
        rig = Rig()
        rig.device("eya")
        rig.device("manar", answer=wrong)
        checking = replace(config(), verify=VerifySettings(sample=1.0))
        async with rig.gateway(checking) as gateway:
            await gateway.settled()
            outcome = await gateway.submit(request(timeout_s=5.0)).outcome()
        assert outcome.error is None

    run(test())
    assert "cannot be arbitrated" in caplog.text


def test_a_stage_is_cut_smaller_if_a_device_cannot_send_its_results() -> None:
    """A result may be larger than its tile, so only the device meets the limit."""

    def too_large(task: TileTask) -> list[Accepted | Failure | Result]:
        answer = result(task)
        if answer.pixels.nbytes <= 20_000:
            return [accepted(task), answer]
        return [accepted(task), failure(task, packet_limit=20_000)]

    async def test() -> None:
        rig = Rig()
        rig.device(answer=too_large)
        async with rig.gateway() as gateway:
            image = np.zeros((200, 200), np.uint8)
            handle = gateway.submit(request(pipeline="tofloat", image=image, tiles=Auto()))
            outcome = await handle.outcome()
        assert outcome.error is None
        assert outcome.report.tiles == outcome.report.done >= 9
        assert not outcome.report.failures

    run(test())


def failure(task: TileTask, *, packet_limit: int) -> Failure:
    return Failure(
        job=task.job,
        tile=task.tile,
        attempt=task.attempt,
        reason="it failed",
        packet_limit=packet_limit,
    )


def test_a_limit_that_does_not_explain_the_failure_is_not_believed() -> None:
    def liar(task: TileTask) -> list[Accepted | Failure | Result]:
        return [failure(task, packet_limit=10**6)]

    async def test() -> None:
        rig = Rig()
        rig.device(answer=liar)
        async with rig.gateway() as gateway:
            outcome = await gateway.submit(request()).outcome()
        assert "it failed" in (outcome.error or "")

    run(test())
