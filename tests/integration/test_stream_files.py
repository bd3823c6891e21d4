"""Results of a stream in files: a real video by a process of its own, and lines of JSON."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from fogmqtt.errors import StreamOutputFailed
from fogmqtt.gateway.streams.file_outputs import FactsOutput, VideoOutput
from fogmqtt.gateway.streams.outputs import PublishedFrame
from fogmqtt.images.spec import Image
from tests.cameras import number_of, painted

#: The first second of a day, UTC.
DAY = 1_796_000_000 // 86_400 * 86_400


def result(number: int, image: Image | None = None, at: float = 0.0) -> PublishedFrame:
    image = painted(number) if image is None else image
    return PublishedFrame(
        *("yard", number, number, time.monotonic(), DAY + (at or number / 10), "arrival", 1),
        *(image, None, (image.shape[0], image.shape[1])),
    )


def facts(number: int) -> PublishedFrame:
    return PublishedFrame(
        *("yard", number, number, time.monotonic(), DAY + number, "arrival", 1),
        *(None, {"components": [number]}, (10, 10)),
    )


def read(path: Path) -> list[tuple[float, Image]]:
    with av.open(str(path)) as container:
        return [(one.time, one.to_ndarray(format="bgr24")) for one in container.decode(video=0)]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def test_a_video_has_each_frame_at_its_time(tmp_path: Path) -> None:
    async def test() -> None:
        output = VideoOutput(str(tmp_path / "yard.mp4"))
        for number in range(1, 16):
            await output.publish(result(number))
        await output.close()

    run(test())
    found = read(tmp_path / "yard.mp4")
    assert [number_of(image) for _, image in found] == list(range(1, 16))
    assert [round(at, 3) for at, _ in found] == [number / 10 for number in range(15)]


@pytest.mark.parametrize(
    "image",
    [
        np.full((48, 64), 200, np.uint8),
        np.full((47, 63, 4), 200, np.uint8),
        np.full((48, 64), 200 << 8, np.uint16),
        np.full((48, 64, 3), 0.785, np.float32),
    ],
    ids=["gray", "odd size and alpha", "16 bits", "floats"],
)
def test_results_of_any_kind_become_pictures_of_a_video(tmp_path: Path, image: Image) -> None:
    async def test() -> None:
        output = VideoOutput(str(tmp_path / "yard.mp4"))
        for number in (1, 2):
            await output.publish(result(number, image))
        await output.close()

    run(test())
    found = read(tmp_path / "yard.mp4")
    assert len(found) == 2
    assert abs(int(found[0][1].mean()) - 200) <= 4


def test_a_new_day_a_new_size_and_a_new_start_begin_a_new_file(tmp_path: Path) -> None:
    async def test() -> None:
        for _ in range(2):
            output = VideoOutput(str(tmp_path / "out" / "yard-%Y%m%d.mp4"))
            await output.publish(result(1))
            await output.publish(result(2, at=86_400.0))
            await output.publish(result(3, painted(3, 160, 120), at=86_401.0))
            await output.close()

    run(test())
    first, second = (time.strftime("yard-%Y%m%d", time.gmtime(DAY + n * 86_400)) for n in (0, 1))
    names = [f"{first}-2", first, f"{second}-2", f"{second}-3", f"{second}-4", second]
    assert sorted(one.stem for one in (tmp_path / "out").iterdir()) == sorted(names)
    assert all(read(path) for path in (tmp_path / "out").iterdir())


def test_a_killed_process_costs_this_output_a_moment_and_what_it_wrote_can_be_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fogmqtt.gateway.streams.file_outputs._PAUSE_S", 0.0)

    async def test() -> None:
        output = VideoOutput(str(tmp_path / "yard.mp4"))
        for number in range(1, 102):
            await output.publish(result(number))
        await asyncio.to_thread(until, lambda: (tmp_path / "yard.mp4").stat().st_size > 5_000)
        process = output._process
        assert process is not None
        process.kill()
        process.wait()
        with pytest.raises(StreamOutputFailed, match="the process that writes the video was ended"):
            await output.publish(result(102))
        await output.publish(result(103))
        await output.close()

    run(test())
    assert number_of(read(tmp_path / "yard-2.mp4")[0][1]) == 103
    assert number_of(read(tmp_path / "yard.mp4")[0][1]) == 1


def test_a_path_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    async def test() -> None:
        output = VideoOutput(str(tmp_path / "file" / "yard.mp4"))
        with pytest.raises(StreamOutputFailed, match="a file is where the folder should be; tried"):
            await publish_many(output)
        await output.publish(result(1))  # nothing is tried in the pause
        await output.close()

    run(test())


def test_facts_are_lines_that_are_added(tmp_path: Path) -> None:
    async def test() -> None:
        for number in (1, 2):
            output = FactsOutput(str(tmp_path / "%Y" / "facts.jsonl"))
            await output.publish(facts(number))
            await output.close()

    run(test())
    year = time.strftime("%Y", time.gmtime(DAY))
    lines = (tmp_path / year / "facts.jsonl").read_text().splitlines()
    assert [json.loads(line)["facts"] for line in lines] == [{"components": [n]} for n in (1, 2)]
    assert json.loads(lines[0])["captured_at"].endswith("+00:00")


def test_a_full_disk_is_one_sentence() -> None:
    async def test() -> None:
        output = FactsOutput("/dev/full")
        with pytest.raises(StreamOutputFailed, match=r"/dev/full: No space left on device"):
            await output.publish(facts(1))
        await output.close()

    run(test())


async def publish_many(output: VideoOutput) -> None:
    for number in range(1, 10_000):
        await output.publish(result(number))


def until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)
