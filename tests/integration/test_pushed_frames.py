"""Frames over the broker: of a device with a camera, and of any client that sends JPEGs."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image as Pillow

from fogmqtt.config import StreamSettings
from fogmqtt.gateway.app import Gateway
from fogmqtt.transport.base import MessageProperties, Received
from fogmqtt.transport.link import Link
from fogmqtt.transport.paho import PahoTransport
from fogmqtt.wire.messages import FramesWanted, encode
from fogmqtt.wire.stream_messages import capture_properties, read_capture
from tests.cameras import WebCamera, jpeg, number_of, painted, write_video
from tests.fog import Probe, wait_for
from tests.gateway_rig import config
from tests.processes import Fog, private_fog

pytestmark = pytest.mark.broker

IN, WANTED, OUT = (
    "fog/v1/frames/porch/in",
    "fog/v1/frames/porch/wanted",
    "fog/v1/frames/porch/frame",
)


@pytest.fixture
def fog(tmp_path: Path) -> Iterator[Fog]:
    with private_fog(tmp_path) as made:
        yield made


def want(client: Probe, *, for_s: float = 30.0, fps: float = 0.0) -> None:
    client.publish(WANTED, encode(FramesWanted(for_s=for_s, fps=fps), "base64"), qos=1)


def frames_of(client: Probe, topic: str = IN) -> list[Received]:
    return [one for one in client.inbox.all() if isinstance(one, Received) and one.topic == topic]


def picture(data: bytes | memoryview) -> np.ndarray:
    return np.asarray(Pillow.open(io.BytesIO(bytes(data))).convert("RGB"))[..., ::-1]


def test_a_device_pushes_the_files_of_its_camera_while_somebody_wants_them(fog: Fog) -> None:
    with WebCamera(fps=20) as camera, fog.probe(IN) as client:
        device = fog.device("porch", "--camera", camera.url("/stream"))
        device.says("porch is online")
        process = psutil.Process(device.process.pid)
        assert camera.sent == 0  # nobody wants frames
        while len(frames_of(client)) < 10:
            want(client, for_s=3)
            with suppress(AssertionError):
                wait_for(lambda: len(frames_of(client)) >= 10, within=1)
        frames = frames_of(client)
        numbers = [number_of(picture(one.payload)) for one in frames]
        assert numbers == sorted(set(numbers))
        assert bytes(frames[0].payload) == jpeg(painted(numbers[0]))
        captured, clock = read_capture(frames[-1].properties.user)
        assert clock == "arrival"
        assert abs(captured - time.time()) < 30
        device.says("nobody wants the camera's frames", within=30)
        wait_for(lambda: _readers(process) == 0, within=30, what="the end of the reader")


def _readers(device: psutil.Process) -> int:
    children = device.children(recursive=True)
    return sum("fogmqtt.streams.process" in " ".join(one.cmdline()) for one in children)


def test_a_device_encodes_what_is_no_jpeg_in_another_process_and_stays_light(
    fog: Fog, tmp_path: Path
) -> None:
    video = write_video(tmp_path / "night.mp4", 25)
    with fog.probe(IN) as client:
        device = fog.device("porch", "--camera", str(video))
        device.says("porch is online")
        want(client, fps=10)
        # The file is played again and again.
        wait_for(lambda: len(frames_of(client)) >= 20, within=60, what="frames")
        numbers = [number_of(picture(one.payload)) for one in frames_of(client)]
        assert max(numbers) < 25
        maps = Path(f"/proc/{device.process.pid}/maps").read_text()
        assert not [name for name in ("libavcodec", "cv2", "_multiarray") if name in maps]


def test_a_device_cannot_have_a_camera_that_is_a_topic_or_converts(fog: Fog) -> None:
    program = fog.device("porch", "--camera", "mqtt")
    assert program.ended() == 2
    assert "give picamera:0" in program.said
    program = fog.device("porch", CAMERA__SOURCE="picamera:0", CAMERA__CONVERT="gray")
    assert program.ended() == 2
    assert "set convert in the gateway's stream" in program.said


def serve(fog: Fog, settings: StreamSettings, test) -> None:
    """Run a gateway with a stream named porch, and a coroutine with a client beside it."""
    made = replace(config(local="always"), streams={"porch": settings})
    link = Link(fog.broker.url, "mariem", 5)

    async def run(client: Probe) -> None:
        gateway = Gateway(
            made,
            "mariem",
            lambda deliver, will: PahoTransport(link, deliver, will=will),
            serves=True,
            open_source=lambda name, how: pytest.fail("a pushed stream opens nothing"),
        )
        async with gateway, asyncio.timeout(60):
            await test(gateway, client)

    with fog.probe("fog/v1/frames/porch/+", "fog/v1/streams/porch/+") as client:
        asyncio.run(run(client))


async def until(found, what: str) -> None:
    while not found():
        await asyncio.sleep(0.02)


PUSHED = StreamSettings(source="mqtt", pipeline="invert", max_age_s=20, stall_s=2)


def test_a_jpeg_of_any_client_goes_through_the_pipeline(fog: Fog) -> None:
    async def test(gateway: Gateway, client: Probe) -> None:
        await until(lambda: frames_of(client, WANTED), "the wish for frames")
        for count, number in enumerate((3, 4), 1):
            client.publish(IN, jpeg(painted(number)), qos=0)
            await until(lambda count=count: len(frames_of(client, OUT)) == count, "a result")
        results = [picture(one.payload) for one in frames_of(client, OUT)]
        assert [number_of(255 - one) for one in results] == [3, 4]
        (view,) = gateway.streams()
        assert view.clock == "arrival"
        assert view.source.state == "connected"
        await until(lambda: gateway.streams()[0].source.state == "lost", "the loss")
        assert gateway.streams()[0].source.reason == "no picture was pushed for 2 s"

    serve(fog, PUSHED, test)


def test_damaged_and_retained_pictures_are_refused_and_the_next_one_is_done(fog: Fog) -> None:
    whole = jpeg(painted(9))

    async def test(gateway: Gateway, client: Probe) -> None:
        await until(lambda: frames_of(client, WANTED), "the wish for frames")
        for data in (b"", b"no picture", whole[: len(whole) // 2], whole[:-300] + b"\xff\xd9"):
            gap = gateway.streams()[0].books.gap
            client.publish(IN, data, qos=0)
            await until(lambda gap=gap: gateway.streams()[0].books.gap > gap, "its count")
        client.publish(IN, whole, qos=0)
        await until(lambda: frames_of(client, OUT), "a result")
        assert gateway.streams()[0].books.problems() == []

    serve(fog, PUSHED, test)


def test_the_time_of_capture_comes_along_and_a_wrong_clock_is_not_believed(fog: Fog) -> None:
    def pushed(client: Probe, captured: float) -> None:
        user = capture_properties(captured, "sensor")
        client.publish(IN, jpeg(painted(1)), qos=0, properties=MessageProperties(user=user))

    async def test(gateway: Gateway, client: Probe) -> None:
        await until(lambda: frames_of(client, WANTED), "the wish for frames")
        pushed(client, time.time() - 1)
        await until(lambda: frames_of(client, OUT), "a result")
        (view,) = gateway.streams()
        assert view.clock == "sensor"
        assert view.age_s.max >= 1
        pushed(client, time.time() - 86_400)
        await until(lambda: len(frames_of(client, OUT)) > 1, "a result")
        assert gateway.streams()[0].clock == "arrival"

    serve(fog, PUSHED, test)


def test_frames_of_a_device_go_through_the_fleet(fog: Fog, tmp_path: Path) -> None:
    settings = tmp_path / "config.yaml"
    settings.write_text("streams: {porch: {source: mqtt, pipeline: invert, max_age_s: 20}}\n")
    with WebCamera(fps=20) as camera, fog.probe(OUT) as client:
        fog.device("porch", "--camera", camera.url("/stream")).says("porch is online")
        fog.device("eya").says("eya is online")
        fog.serve_with(settings, GATEWAY__LOCAL="never").says("mariem is online")
        wait_for(lambda: len(frames_of(client, OUT)) >= 5, within=60, what="results")
        numbers = [number_of(255 - picture(one.payload)) for one in frames_of(client, OUT)]
        assert numbers == sorted(set(numbers))
