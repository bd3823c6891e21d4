"""A stream in a gateway: frames come, go through devices that the test plays, and out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from fogmqtt.config import StreamSettings
from fogmqtt.gateway.streams.stream import LiveStream
from fogmqtt.images.spec import Image
from fogmqtt.streams.frame import Frame
from fogmqtt.wire.messages import Overdue, TileTask
from tests.frame_sources import Collected, PlayedSource
from tests.gateway_rig import Rig, accepted, config, do_at_once, do_nothing, eventually, run

PICTURES = [np.random.default_rng(seed).integers(0, 256, (96, 128), np.uint8) for seed in range(5)]


def settings(**more: Any) -> StreamSettings:
    return StreamSettings(
        **{"source": "played", "pipeline": "invert", "max_age_s": 30.0, "output": (), **more}
    )


async def run_to_end(source: PlayedSource, **more: Any) -> tuple[LiveStream, Collected, Rig]:
    """Run a stream over two devices until its source ends."""
    rig, output = Rig(), Collected()
    for name in ("eya", "manar"):
        rig.device(name)
    async with rig.gateway(config(**more.pop("gateway", {}))) as gateway:
        await eventually(lambda: len(gateway.online()) == 2)
        made = settings(**more)
        outputs = [("test", output), *gateway.stream_outputs("yard", made)]
        stream = gateway.open_stream("yard", made, source, outputs)
        await gateway.run_stream(stream)
    return stream, output, rig


def whole(pipeline: str, image: Image) -> Image:
    if pipeline == "invert":
        return 255 - image
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return cv2.Canny(gray, 50, 150)


def same(results: list[Any], pictures: list[Image], pipeline: str = "invert") -> bool:
    return all(
        np.array_equal(frame.image, whole(pipeline, pictures[frame.number % len(pictures)]))
        for frame, _ in results
    )


@pytest.mark.parametrize("split", ["tiles", "frames", "auto"])
def test_each_frame_of_a_file_comes_out_as_one_machine_makes_it(split: str) -> None:
    async def test() -> None:
        source = PlayedSource(PICTURES, count=12)
        stream, output, _ = await run_to_end(source, split=split, keep="all")
        assert [frame.seq for frame, _ in output.results] == list(range(1, 13))
        assert same(output.results, PICTURES)
        assert stream.view().books.problems() == []
        assert output.closed

    run(test())


def test_a_pipeline_of_several_stages_is_done_stage_by_stage() -> None:
    async def test() -> None:
        colour = [np.repeat(one[:, :, None], 3, 2) for one in PICTURES]
        source = PlayedSource(colour, count=5)
        pipeline = "gray | canny low=50 high=150"
        _, output, _ = await run_to_end(source, pipeline=pipeline, keep="all", split="tiles")
        assert len(output.results) == 5
        assert same(output.results, colour, "canny")

    run(test())


def test_a_frame_has_no_job_and_is_cut_for_all_workers() -> None:
    async def test() -> None:
        _, _, rig = await run_to_end(PlayedSource(PICTURES, count=2), split="tiles", keep="all")
        told = [topic for topic in rig.broker.retained() if "/jobs/" in topic]
        assert told == []

    run(test())


def test_tiles_carry_what_is_left_of_the_time() -> None:
    async def test() -> None:
        seen: list[TileTask] = []

        def note(task: TileTask) -> list[Any]:
            seen.append(task)
            return do_at_once(task)

        rig = Rig()
        rig.device("eya", answer=note)
        async with rig.gateway() as gateway:
            await eventually(lambda: gateway.online())
            source = PlayedSource(PICTURES, count=2)
            await gateway.run_stream(gateway.open_stream("yard", settings(), source))
        assert seen
        assert all(0 < task.budget_s <= 30.0 for task in seen)

    run(test())


def test_a_device_that_drops_a_tile_over_its_budget_costs_that_frame() -> None:
    async def test() -> None:
        dropped: list[str] = []

        def drop_first(task: TileTask) -> list[Any]:
            if not dropped:
                dropped.append(task.job)
                overdue = Overdue(
                    job=task.job, tile=task.tile, attempt=task.attempt, after_s=task.budget_s
                )
                return [accepted(task), overdue]
            return do_at_once(task)

        rig, output = Rig(), Collected()
        rig.device("eya", answer=drop_first)
        async with rig.gateway() as gateway:
            await eventually(lambda: gateway.online())
            source = PlayedSource(PICTURES, count=4)
            stream = gateway.open_stream("yard", settings(), source, [("test", output)])
            await gateway.run_stream(stream)
        books = stream.view().books
        assert (books.late, books.published, books.problems()) == (1, 3, [])
        assert same(output.results, PICTURES)

    run(test())


def test_without_a_device_frames_are_dropped_with_that_reason() -> None:
    async def test() -> None:
        rig = Rig()
        async with rig.gateway() as gateway:
            source = PlayedSource(PICTURES, count=6)
            stream = gateway.open_stream("yard", settings(), source)
            await gateway.run_stream(stream)
        books = stream.view().books
        assert (books.no_device, books.begun, books.problems()) == (6, 0, [])
        assert sorted(source.released) == list(range(6))

    run(test())


def test_without_a_device_the_gateway_does_frames_if_it_may() -> None:
    async def test() -> None:
        rig, output = Rig(), Collected()
        async with rig.gateway(config(local="auto")) as gateway:
            source = PlayedSource(PICTURES, count=6)
            stream = gateway.open_stream("yard", settings(keep="all"), source, [("", output)])
            await gateway.run_stream(stream)
        assert len(output.results) == 6
        assert same(output.results, PICTURES)
        assert stream.view().way == "here"

    run(test())


def test_a_frame_that_no_device_answers_in_time_is_late_and_its_memory_comes_back() -> None:
    async def test() -> None:
        rig = Rig()
        rig.device("eya", answer=do_nothing)
        async with rig.gateway() as gateway:
            await eventually(lambda: gateway.online())
            source = PlayedSource(PICTURES, count=1)
            stream = gateway.open_stream("yard", settings(max_age_s=0.05), source)
            await gateway.run_stream(stream)
            books = stream.view().books
            assert (books.late, books.published, books.problems()) == (1, 0, [])
            await eventually(lambda: source.released == [0], "the memory of the frame")

    run(test())


def test_a_device_that_is_lost_costs_no_frame_while_others_have_time() -> None:
    async def test() -> None:
        rig, output = Rig(), Collected()
        silent = rig.device("eya", answer=do_nothing)
        rig.device("manar")
        async with rig.gateway() as gateway:
            await eventually(lambda: len(gateway.online()) == 2)
            source = PlayedSource(PICTURES, count=3)
            settled = settings(split="tiles", order="any")
            stream = gateway.open_stream("yard", settled, source, [("", output)])
            running = asyncio.create_task(gateway.run_stream(stream))
            await eventually(lambda: silent.tasks)
            silent.leave()
            await running
        assert stream.view().books.published == 3
        assert same(output.results, PICTURES)

    run(test())


def test_frames_that_the_pipeline_cannot_take_fail_with_the_reason() -> None:
    async def test() -> None:
        source = PlayedSource(PICTURES, count=3)
        stream, output, _ = await run_to_end(source, pipeline="hsv")
        view = stream.view()
        assert (view.books.failed, view.books.problems()) == (3, [])
        assert "hsv takes" in view.error
        assert output.results == []

    run(test())


def test_another_size_of_frames_begins_a_new_epoch() -> None:
    async def test() -> None:
        small = PICTURES[0][:64, :64].copy()
        pictures = [PICTURES[0], PICTURES[1], small, small]
        _, output, _ = await run_to_end(PlayedSource(pictures, count=4), keep="all")
        assert [frame.epoch for frame, _ in output.results] == [1, 1, 2, 2]
        assert same(output.results, pictures)

    run(test())


def test_a_share_of_the_frames_is_compared_with_one_machine() -> None:
    async def test() -> None:
        source = PlayedSource(PICTURES, count=5)
        stream, _, _ = await run_to_end(source, keep="all", verify=1.0)
        view = stream.view()
        assert (view.verified, view.wrong) == (5, 0)

    run(test())


def test_a_wrong_result_is_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        source = PlayedSource([one.copy() for one in PICTURES], count=3)
        rig = Rig()
        rig.device("eya", answer=lie)
        async with rig.gateway() as gateway:
            await eventually(lambda: gateway.online())
            wanted = settings(keep="all", verify=1.0)
            stream = gateway.open_stream("yard", wanted, source)
            await gateway.run_stream(stream)
        assert (stream.view().verified, stream.view().wrong) == (3, 3)
        assert "differs from this machine's result" in caplog.text

    run(test())


def lie(task: TileTask) -> list[Any]:
    pixels = np.frombuffer(task.pixels, np.uint8).copy()
    pixels[0] ^= 1
    return do_at_once(msgspec.structs.replace(task, pixels=memoryview(pixels)))


def test_facts_come_out_of_a_measuring_pipeline() -> None:
    async def test() -> None:
        source = PlayedSource(PICTURES, count=3)
        _, output, _ = await run_to_end(source, pipeline="histogram", keep="all")
        assert [frame.image for frame, _ in output.results] == [None] * 3
        assert all(frame.facts for frame, _ in output.results)

    run(test())


def test_an_output_that_hangs_delays_no_frame_and_no_other_output() -> None:
    async def test() -> None:
        class Hanging(Collected):
            async def publish(self, frame: Any) -> None:
                self.results.append((frame, 0.0))
                await hangs.wait()

        rig, good, bad = Rig(), Collected(), Hanging()
        hangs = asyncio.Event()
        rig.device("eya")
        async with rig.gateway() as gateway:
            await eventually(lambda: gateway.online())
            source = PlayedSource(PICTURES, count=10)
            outputs = [("good", good), ("bad", bad)]
            stream = gateway.open_stream("yard", settings(split="tiles"), source, outputs)
            running = asyncio.create_task(gateway.run_stream(stream))
            await eventually(lambda: stream.view().books.published == 10)
            hangs.set()
            await running
        assert good.results[-1][0].seq == 10
        assert [frame.seq for frame, _ in bad.results] in ([1, 10], [1, 9, 10])

    run(test())


def test_an_output_that_fails_is_told_and_the_next_frame_is_tried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        class Failing(Collected):
            async def publish(self, frame: Any) -> None:
                if frame.seq == 1:
                    raise OSError("the disk is full")
                await super().publish(frame)

        output = Failing()
        rig = Rig()
        rig.device("eya")
        async with rig.gateway() as gateway:
            await eventually(lambda: gateway.online())
            source = PlayedSource(PICTURES, count=3)
            stream = gateway.open_stream("yard", settings(keep="all"), source, [("folder", output)])
            await gateway.run_stream(stream)
        assert [frame.seq for frame, _ in output.results] == [2, 3]
        assert "stream yard folder: the disk is full" in caplog.text

    run(test())


def test_an_output_that_needs_it_gets_a_copy_of_the_frame_itself() -> None:
    async def test() -> None:
        rig, output = Rig(), Collected(needs_original=True)
        rig.device("eya")
        async with rig.gateway() as gateway:
            await eventually(lambda: gateway.online())
            source = PlayedSource(PICTURES, count=2)
            stream = gateway.open_stream("yard", settings(keep="all"), source, [("", output)])
            await gateway.run_stream(stream)
        for frame, _ in output.results:
            assert np.array_equal(frame.original, PICTURES[frame.number])
            assert frame.original is not PICTURES[frame.number]

    run(test())


def test_a_timestamp_in_the_past_is_too_old_to_begin() -> None:
    async def test() -> None:
        def old(frame: Frame) -> Frame:
            return replace(frame, captured_at=frame.captured_at - 60)

        source = PlayedSource(PICTURES, count=4, change=old)
        stream, output, _ = await run_to_end(source)
        books = stream.view().books
        assert (books.too_late, books.problems()) == (4, [])
        assert output.results == []

    run(test())


def test_a_folder_keeps_the_results_of_an_earlier_start(tmp_path: Path) -> None:
    for name in ("yard-00000007.json", "yard-12.png.part", "gate-00000100.png"):
        (tmp_path / name).touch()

    async def test() -> None:
        for _ in range(2):
            source = PlayedSource(PICTURES, count=2)
            await run_to_end(source, keep="all", output=(f"folder:{tmp_path}",))

    run(test())
    written = sorted(path.name for path in tmp_path.glob("yard-*.png"))
    assert written == [f"yard-{number:08d}.png" for number in (8, 9, 10, 11)]
