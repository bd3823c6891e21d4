"""Frames of real cameras, files and folders, through the process of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import av
import numpy as np
import pytest

from fogmqtt.errors import SourceEnded, UsageError
from fogmqtt.streams.frame import Frame
from fogmqtt.streams.newest import NewestPicture
from fogmqtt.streams.open import OpenedSource, open_source
from fogmqtt.streams.readers.container import read_webcam
from fogmqtt.streams.reasons import SourceFailed
from fogmqtt.streams.settings import SourceSettings
from tests.cameras import (
    WebCamera,
    jpeg,
    number_of,
    painted,
    write_video,
)

#: Seconds after which a test fails that waits for a frame or a state.
PATIENCE_S = 30.0


def read(settings: SourceSettings, use: Callable[[OpenedSource], Awaitable[None]]) -> OpenedSource:
    """Open a source, use it, and close it; the books must balance."""

    async def run() -> OpenedSource:
        source = open_source("yard", settings)
        try:
            await use(source)
        finally:
            await source.close()
        return source

    source = asyncio.run(run())
    counts = source.counts
    assert counts.received == counts.given + counts.decimated + counts.superseded + counts.gap
    return source


async def next_frame(source: OpenedSource) -> Frame:
    return await asyncio.wait_for(source.next_frame(), PATIENCE_S)


async def numbers(source: OpenedSource, count: int | None = None) -> list[int]:
    """Take frames, to the end if no count is given, and return the numbers in their pixels."""
    found: list[int] = []
    while count is None or len(found) < count:
        try:
            frame = await next_frame(source)
        except SourceEnded:
            break
        found.append(number_of(frame.image))
        frame.release()
    return found


def test_each_frame_of_a_file_is_given_if_all_are_kept(tmp_path: Path) -> None:
    video = write_video(tmp_path / "night.mp4", 40)

    async def use(source: OpenedSource) -> None:
        assert await numbers(source) == list(range(40))
        assert source.status.state == "ended"
        assert source.status.codec == "h264"
        with pytest.raises(SourceEnded):
            await source.next_frame()

    source = read(SourceSettings(source=str(video), keep="all"), use)
    assert source.counts.given == 40


@pytest.mark.parametrize("convert", ["bgr24", "gray"])
@pytest.mark.parametrize("size", [(320, 240), (322, 182)])
def test_a_frame_is_what_pyav_gives_for_it(tmp_path: Path, convert: str, size) -> None:
    video = write_video(tmp_path / "night.mp4", 4, size=size)
    with av.open(str(video)) as container:
        expected = [one.to_ndarray(format=convert) for one in container.decode(video=0)]

    async def use(source: OpenedSource) -> None:
        for image in expected:
            frame = await next_frame(source)
            assert np.array_equal(frame.image, image)
            assert not frame.image.flags.writeable
            frame.release()

    read(SourceSettings(source=str(video), keep="all", convert=convert), use)


def test_a_file_plays_at_its_pace_and_a_newer_frame_takes_the_place_of_one_that_waits(
    tmp_path: Path,
) -> None:
    video = write_video(tmp_path / "night.mp4", 50)

    async def use(source: OpenedSource) -> None:
        seen = []
        while True:
            try:
                frame = await next_frame(source)
            except SourceEnded:
                break
            seen.append(number_of(frame.image))
            assert frame.number == seen[-1]
            frame.release()
            await asyncio.sleep(0.1)
        assert seen == sorted(set(seen))
        assert seen[-1] == 49

    source = read(SourceSettings(source=str(video)), use)
    assert source.counts.received == 50
    assert source.counts.superseded > 0


def test_only_key_frames_are_decoded_if_only_they_are_kept(tmp_path: Path) -> None:
    video = write_video(tmp_path / "night.mp4", 30, gop=10, fps=60)

    async def use(source: OpenedSource) -> None:
        assert set(await numbers(source)) <= {0, 10, 20}

    source = read(SourceSettings(source=str(video), keep="keys"), use)
    assert source.counts.decimated == 27


def test_no_more_frames_than_fps_are_given_of_a_file(tmp_path: Path) -> None:
    video = write_video(tmp_path / "night.mp4", 50, fps=25)

    async def use(source: OpenedSource) -> None:
        assert len(await numbers(source)) in (10, 11)

    source = read(SourceSettings(source=str(video), keep="all", fps=5), use)
    assert source.counts.decimated in (39, 40)


def test_a_file_without_timestamps_loses_no_frame(tmp_path: Path) -> None:
    video = tmp_path / "night.mjpeg"
    video.write_bytes(b"".join(jpeg(painted(number)) for number in range(20)))

    async def use(source: OpenedSource) -> None:
        assert await numbers(source) == list(range(20))

    read(SourceSettings(source=str(video), keep="all"), use)


def test_timestamps_that_jump_back_lose_no_frame(tmp_path: Path) -> None:
    parts = [write_video(tmp_path / f"{first}.ts", 10, first=first) for first in (0, 10)]
    video = tmp_path / "night.ts"
    video.write_bytes(b"".join(part.read_bytes() for part in parts))

    async def use(source: OpenedSource) -> None:
        assert await numbers(source) == list(range(20))

    read(SourceSettings(source=str(video), keep="all"), use)


def test_pictures_of_a_folder_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"p{number}.jpg").write_bytes(jpeg(painted(number)))
    (tmp_path / "notes.txt").write_text("no picture")

    async def use(source: OpenedSource) -> None:
        assert await numbers(source) == list(range(12))

    read(SourceSettings(source=str(tmp_path), keep="all"), use)


def test_a_damaged_picture_of_a_folder_is_left_out_and_counted(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"p{number}.jpg").write_bytes(jpeg(painted(number)))
    whole = (tmp_path / "p1.jpg").read_bytes()
    (tmp_path / "p1.jpg").write_bytes(whole[: len(whole) // 2])

    async def use(source: OpenedSource) -> None:
        assert await numbers(source) == [0, 2, 3]

    source = read(SourceSettings(source=str(tmp_path), keep="all"), use)
    assert source.counts.gap == 1


def test_pictures_of_a_folder_may_differ_in_size_and_be_gray(tmp_path: Path) -> None:
    sizes = [(64, 48), (333, 77), (17, 19)]
    for number, (width, height) in enumerate(sizes):
        (tmp_path / f"p{number}.jpg").write_bytes(jpeg(painted(0, width, height)))
    (tmp_path / "p3.jpg").write_bytes(jpeg(painted(0)[..., 0]))

    async def use(source: OpenedSource) -> None:
        for width, height in [*sizes, (320, 240)]:
            frame = await next_frame(source)
            assert frame.image.shape == (height, width, 3)
            frame.release()

    read(SourceSettings(source=str(tmp_path), keep="all"), use)


def test_a_stream_of_jpegs_gives_the_newest_frame_and_the_file_that_the_camera_sent() -> None:
    with WebCamera(fps=50) as camera:

        async def use(source: OpenedSource) -> None:
            for _ in range(5):
                frame = await next_frame(source)
                assert frame.original == jpeg(painted(number_of(frame.image)))
                assert frame.clock == "arrival"
                frame.release()
                await asyncio.sleep(0.1)
            assert source.status.state == "connected"
            assert source.status.width == 320

        source = read(SourceSettings(source=camera.url("/stream")), use)
    assert source.counts.superseded > 0


def test_frames_stay_valid_until_they_are_released_also_after_the_source_is_closed() -> None:
    held: list[Frame] = []
    with WebCamera(fps=100) as camera:

        async def use(source: OpenedSource) -> None:
            held.extend([await next_frame(source) for _ in range(6)])

        read(SourceSettings(source=camera.url("/stream")), use)
    found = [number_of(frame.image) for frame in held]
    assert found == sorted(set(found))
    for frame in held:
        frame.release()


def test_a_snapshot_is_asked_for_as_often_as_fps_says() -> None:
    with WebCamera() as camera:

        async def use(source: OpenedSource) -> None:
            assert await numbers(source, 4) == [0, 1, 2, 3]

        read(SourceSettings(source=camera.url("/snapshot.jpg?x=1"), fps=20), use)


_PICAMERA2 = """
import time
from tests.cameras import painted

class Picamera2:
    def __init__(self, number):
        assert number == 0
        self.count = 0
    @staticmethod
    def global_camera_info():
        return [{"Num": 0}]
    def create_video_configuration(self, main):
        return main
    def configure(self, configuration):
        assert configuration == {"format": "RGB888"}
    def start(self):
        pass
    def close(self):
        pass
    def capture_request(self):
        time.sleep(0.02)
        self.count += 1
        return Request(self.count)

class Request:
    def __init__(self, number):
        self.number = number
    def get_metadata(self):
        return {"SensorTimestamp": time.clock_gettime_ns(time.CLOCK_BOOTTIME) - 30_000_000}
    def make_array(self, name):
        assert name == "main"
        return painted(self.number)
    def release(self):
        pass
"""


def test_a_camera_with_the_calls_of_picamera2_is_read_by_the_clock_of_its_sensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "picamera2.py").write_text(_PICAMERA2)
    monkeypatch.syspath_prepend(str(tmp_path))

    async def use(source: OpenedSource) -> None:
        frame = await next_frame(source)
        assert frame.clock == "sensor"
        assert np.array_equal(frame.image, painted(number_of(frame.image)))
        frame.release()
        assert len(await numbers(source, 3)) == 3

    read(SourceSettings(source="picamera:0"), use)
    assert reason_for(SourceSettings(source="picamera:3")) == "this board has no camera 3"


def reason_for(settings: SourceSettings) -> str:
    reasons = []

    async def use(source: OpenedSource) -> None:
        while source.status.state != "lost":
            await asyncio.sleep(0.02)
        reasons.append(source.status.reason)

    read(settings, use)
    return reasons[0]


def test_what_a_webcam_sends_is_read_until_it_is_unplugged(tmp_path: Path) -> None:
    """The device itself is not there: FFmpeg opens a file instead of it."""
    video = tmp_path / "webcam.mjpeg"
    video.write_bytes(b"".join(jpeg(painted(number)) for number in range(5)))
    newest = NewestPicture(keeps_all=False)
    with (
        av.open(str(video)) as container,
        pytest.raises(SourceFailed, match="it was unplugged"),
    ):
        read_webcam(container, SourceSettings(source="v4l2:/dev/video0"), newest)
    newest.want("pixels")
    taken = newest.take(0)
    assert taken is not None
    assert number_of(taken[1].decode().to_ndarray(format="bgr24")) == 4


def test_without_pyav_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"fogmqtt\[streams\]"):
        open_source("yard", SourceSettings(source="night.mp4"))
