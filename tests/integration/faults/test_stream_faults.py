"""Cameras that are away, wrong, frozen or damaged: what is said of them, and how they come back."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from fogmqtt.errors import SourceEnded
from fogmqtt.streams.open import OpenedSource, open_source
from fogmqtt.streams.settings import SourceSettings
from tests.cameras import (
    RtspCamera,
    UdpCamera,
    WebCamera,
    free_port,
    jpeg,
    number_of,
    painted,
    silent_server,
    write_video,
)

ROOT = Path(__file__).parents[3]
PATIENCE_S = 60.0
#: Quick to say that a source is lost, and quick to try it again.
QUICK = {"stall_s": 1.0, "retry_s": 0.1, "retry_max_s": 0.2}


def read(settings: SourceSettings, use: Callable[[OpenedSource], Awaitable[None]]) -> OpenedSource:
    """Open a source, use it, and close it; the books must balance."""

    async def run() -> OpenedSource:
        source = open_source("yard", settings)
        try:
            await asyncio.wait_for(use(source), PATIENCE_S)
        finally:
            await source.close()
        return source

    source = asyncio.run(run())
    counts = source.counts
    assert counts.received == counts.given + counts.decimated + counts.superseded + counts.gap
    return source


async def becomes(source: OpenedSource, state: str) -> None:
    """Wait for a state of the source, while somebody takes its frames."""
    while source.status.state != state:
        with suppress(TimeoutError):
            frame = await asyncio.wait_for(source.next_frame(), 0.05)
            frame.release()


async def newest_number(source: OpenedSource) -> int:
    frame = await source.next_frame()
    frame.release()
    return number_of(frame.image)


def reasons_for(*sources: str, **settings: object) -> list[str]:
    """Return why sources are lost that cannot be opened. They are tried at the same time."""

    async def reason(address: str) -> str:
        source = open_source("yard", SourceSettings(source=address, **(QUICK | settings)))
        try:
            await asyncio.wait_for(becomes(source, "lost"), PATIENCE_S)
            return source.status.reason
        finally:
            await source.close()

    async def run() -> list[str]:
        return list(await asyncio.gather(*map(reason, sources)))

    return asyncio.run(run())


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_why_a_camera_cannot_be_opened_is_said_in_words(scheme: str) -> None:
    with silent_server() as silent, WebCamera() as camera:
        assert reasons_for(
            f"{scheme}://127.0.0.1:{free_port()}/cam",
            f"{scheme}://127.0.0.1:{silent}/cam",
            camera.url("/nothing"),
            camera.url("/text"),
        ) == [
            "connection refused: nothing listens there",
            "it accepts the connection and sends nothing for 1 s",
            "there is nothing of this path (404)",
            "it sends text/html, and no picture; is the path right?",
        ]


def test_why_a_file_or_device_cannot_be_opened_is_said_in_words(tmp_path: Path) -> None:
    text, sound, empty = tmp_path / "a.mp4", tmp_path / "b.wav", tmp_path / "empty"
    text.write_text("no video")
    head = b"RIFF\x24\x10\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0"
    sound.write_bytes(head + b"data\0\x10\0\0" + bytes(4096))
    empty.mkdir()
    sources = [text, sound, empty, tmp_path / "no.mp4", "v4l2:/dev/video77", "picamera:0"]
    *reasons, picamera = reasons_for(*map(str, sources))
    assert reasons == [
        "it sends no video that FFmpeg can read",
        "it has no video",
        "there is no picture in this folder",
        "there is no such file or device",
        "there is no such file or device",
    ]
    assert "apt install python3-picamera2" in picamera


def test_a_wrong_password_is_said_and_the_right_one_shows_the_picture(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("wrong\n")
    with WebCamera(user="eya", password="ge:h e/im@ü") as camera:

        async def use(source: OpenedSource) -> None:
            await becomes(source, "lost")
            assert source.status.reason == "wrong user or password (401)"
            secret.write_text("ge:h e/im@ü\n")  # it is read each time the source is opened
            await newest_number(source)
            assert source.status.reason == ""

        settings = SourceSettings(
            source=camera.url("/stream"), username="eya", password_file=str(secret), **QUICK
        )
        read(settings, use)


def test_the_password_of_an_rtsp_camera_stands_nowhere_and_its_frames_come_by_udp(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "password"
    secret.write_text("wr:o ng@x\n")
    with caplog.at_level(logging.DEBUG), UdpCamera("eya", "ge:h e/im@x") as camera:

        async def use(source: OpenedSource) -> None:
            await becomes(source, "lost")
            assert source.status.reason == "wrong user or password (401)"
            secret.write_text("ge:h e/im@x\n")
            numbers = [await newest_number(source) for _ in range(10)]
            assert numbers == sorted(set(numbers))
            lines = [" ".join(one.cmdline()) for one in psutil.Process().children(recursive=True)]
            assert not any("ge:h" in line or "ge%3Ah" in line for line in lines)

        settings = SourceSettings(
            source=f"rtsp://127.0.0.1:{camera.port}/cam?key=hidden",
            transport="udp",
            username="eya",
            password_file=str(secret),
            **QUICK,
        )
        read(settings, use)
    sent = [base64.b64decode(one.removeprefix("Basic ")) for one in camera.asked]
    assert (sent[0], sent[-1]) == (b"eya:wr:o ng@x", b"eya:ge:h e/im@x")
    assert "no frames of rtsp://127.0.0.1" in caplog.text
    for word in ("ge:h", "ge%3A", "wr:o", "hidden"):
        assert word not in caplog.text


def test_a_frozen_camera_is_lost_and_comes_back_with_a_new_frame() -> None:
    with WebCamera(fps=30) as camera:

        async def use(source: OpenedSource) -> None:
            before = await newest_number(source)
            camera.silent.set()
            await becomes(source, "lost")
            assert source.status.reason == "it sends no picture for 1 s"
            sent = camera.sent
            camera.silent.clear()
            assert await newest_number(source) >= sent > before
            assert source.status.state == "connected"
            assert source.status.reconnects == 1

        read(SourceSettings(source=camera.url("/stream"), **QUICK), use)


def test_a_camera_that_nobody_looks_at_is_found_frozen_too() -> None:
    with WebCamera(fps=30) as camera:

        async def use(source: OpenedSource) -> None:
            while source.status.state != "connected":
                await asyncio.sleep(0.02)
            camera.silent.set()
            while source.status.state != "lost":
                await asyncio.sleep(0.02)

        read(SourceSettings(source=camera.url("/stream"), **QUICK), use)


def test_a_camera_that_is_started_again_is_opened_again() -> None:
    with WebCamera(fps=30) as camera:

        async def use(source: OpenedSource) -> None:
            await newest_number(source)
            camera.stop()
            await becomes(source, "lost")
            camera.restart()
            await becomes(source, "connected")
            await newest_number(source)

        read(SourceSettings(source=camera.url("/stream"), **QUICK), use)


def test_damaged_pictures_between_whole_ones_are_left_out_and_counted() -> None:
    def make(number: int) -> bytes:
        data = jpeg(painted(number))
        return (data[: len(data) // 2] + b"\xff\xd9") if number % 3 == 1 else data

    with WebCamera(fps=30) as camera:
        camera.make = make

        async def use(source: OpenedSource) -> None:
            for _ in range(10):
                assert await newest_number(source) % 3 != 1

        source = read(SourceSettings(source=camera.url("/stream"), **QUICK), use)
    assert source.counts.gap > 0
    assert source.status.reconnects == 0


def test_a_camera_that_sends_only_damaged_pictures_is_lost() -> None:
    with WebCamera(fps=30) as camera:
        camera.make = lambda number: jpeg(painted(number))[:2000] + b"\xff\xd9"
        reasons = reasons_for(camera.url("/stream"))
    assert reasons == ["what it sends is damaged; there is no picture for 1 s"]


def test_size_and_colour_may_change_while_a_camera_is_read() -> None:
    kinds = [painted(0), painted(0, 641, 77), painted(0)[..., 0].copy(), painted(0, 1, 1)]

    def make(number: int) -> bytes:
        return jpeg(kinds[number // 5 % len(kinds)])

    with WebCamera(fps=60) as camera:
        camera.make = make

        async def use(source: OpenedSource) -> None:
            shapes = set()
            while len(shapes) < 3:
                frame = await source.next_frame()
                shapes.add(frame.image.shape)
                frame.release()
            assert shapes == {(240, 320, 3), (77, 641, 3), (1, 1, 3)}

        source = read(SourceSettings(source=camera.url("/stream"), **QUICK), use)
    assert source.status.reconnects == 0


def test_damage_in_the_middle_of_a_video_loses_frames_and_not_the_rest(tmp_path: Path) -> None:
    video = write_video(tmp_path / "night.ts", 60, gop=10)
    data = bytearray(video.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = os.urandom(4000)
    video.write_bytes(data)

    async def use(source: OpenedSource) -> None:
        seen = []
        with suppress(SourceEnded):
            while True:
                seen.append(await newest_number(source))
        assert seen[0] == 0
        assert seen[-1] == 59
        assert 20 <= len(seen) < 60

    read(SourceSettings(source=str(video), keep="all"), use)


def test_an_rtsp_camera_that_is_frozen_killed_and_started_again(tmp_path: Path) -> None:
    write_video(tmp_path / "cam.mp4", 150, fps=15, gop=15)
    with RtspCamera(tmp_path) as camera:

        async def use(source: OpenedSource) -> None:
            first = [await newest_number(source) for _ in range(5)]
            assert first == sorted(set(first))
            clock = ""
            while clock != "rtcp":  # the camera tells its clock with its first report
                frame = await source.next_frame()
                clock = frame.clock
                frame.release()
            camera.process.send_signal(signal.SIGSTOP)
            await becomes(source, "lost")
            camera.process.send_signal(signal.SIGCONT)
            frame = await source.next_frame()
            assert time.monotonic() - frame.captured_at < 2
            frame.release()
            camera.process.kill()
            camera.process.wait()
            await becomes(source, "lost")
            camera.restart()
            await newest_number(source)
            assert source.status.codec == "h264"

        read(SourceSettings(source=camera.url("cam.mp4"), **QUICK), use)


def test_an_rtsp_camera_without_such_a_file_or_transport_is_said(tmp_path: Path) -> None:
    write_video(tmp_path / "cam.mp4", 15)
    with RtspCamera(tmp_path) as camera:
        assert reasons_for(camera.url("no.mp4")) == ["there is nothing of this path (404)"]
        (reason,) = reasons_for(camera.url("cam.mp4"), transport="udp")
        assert "try the other one, tcp or udp" in reason


def readers(me: psutil.Process) -> list[psutil.Process]:
    """The processes that read sources for these tests, among others such as a shared broker."""
    return [one for one in me.children() if "fogmqtt.streams.process" in str(one.cmdline())]


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.proof)])
def test_kills_of_its_process_in_a_row_leak_nothing(kills: int) -> None:
    """Each time, another process goes on, and the numbers of frames go on rising."""
    me = psutil.Process()
    with WebCamera(fps=60) as camera:

        async def use(source: OpenedSource) -> None:
            last = -1
            for kill in range(kills):
                frame = await source.next_frame()
                assert frame.number > last
                last = frame.number
                frame.release()
                if kill == 1:
                    files, threads, memory = me.num_fds(), me.num_threads(), me.memory_info().rss
                (child,) = readers(me)
                child.kill()
                await becomes(source, "lost")
            await newest_number(source)
            assert source.status.reconnects == kills
            assert len(readers(me)) == 1
            assert me.num_fds() <= files + 4  # viewers that the camera has not noticed are gone
            assert me.num_threads() <= threads + 4
            assert me.memory_info().rss < memory + (16 << 20)

        read(SourceSettings(source=camera.url("/stream"), **QUICK), use)
    assert readers(me) == []


def test_a_process_that_hangs_is_killed_and_replaced() -> None:
    me = psutil.Process()
    with WebCamera(fps=60) as camera:

        async def use(source: OpenedSource) -> None:
            await newest_number(source)
            (child,) = readers(me)
            child.suspend()
            await becomes(source, "lost")
            await newest_number(source)
            (other,) = readers(me)
            assert other.pid != child.pid

        read(SourceSettings(source=camera.url("/stream"), **QUICK), use)


def test_the_process_of_a_stream_ends_with_a_gateway_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import asyncio
from fogmqtt.streams.open import open_source
from fogmqtt.streams.settings import SourceSettings
async def main():
    source = open_source("yard", SourceSettings(source={str(tmp_path)!r}))
    await asyncio.sleep(1000)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as gateway:
        process = psutil.Process(gateway.pid)
        while not process.children():
            time.sleep(0.02)
        (child,) = process.children()
        gateway.kill()
        child.wait(PATIENCE_S)


def test_the_process_of_a_full_hd_camera_needs_at_most_120_mb(tmp_path: Path) -> None:
    write_video(tmp_path / "cam.mp4", 30, fps=15, gop=15, size=(1920, 1080))
    with RtspCamera(tmp_path) as camera:

        async def use(source: OpenedSource) -> None:
            for _ in range(20):
                frame = await source.next_frame()
                frame.release()
            (child,) = readers(psutil.Process())
            assert child.memory_info().rss <= 120 << 20

        read(SourceSettings(source=camera.url("cam.mp4")), use)
