"""Streams over a real Mosquitto and real devices: overload, losses, jobs beside, the commands."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from fogmqtt.config import BrokerSettings, GatewayConfig, StreamSettings
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.jobs.model import JobRequest
from fogmqtt.images.spec import Image
from fogmqtt.setup.brokers import connector
from fogmqtt.wire.stream_messages import StreamState
from tests.cameras import WebCamera, painted, write_video
from tests.frame_sources import Collected, PlayedSource
from tests.processes import PATIENCE_S, Fog, photo

COLOUR = [np.roll(photo(240, 320), 11 * n, axis=1) for n in range(4)]
#: Work of some milliseconds for each frame, whose result is known.
PIPELINE = "gray | canny low=50 high=150"


def edges(image: Image) -> Image:
    return cv2.Canny(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), 50, 150)


EDGES = [edges(one) for one in COLOUR]


def settings(**more: Any) -> StreamSettings:
    return StreamSettings(**{"source": "played", "pipeline": PIPELINE, "max_age_s": 5.0, **more})


@asynccontextmanager
async def gateway_of(fog: Fog, devices: int, **more: Any) -> AsyncIterator[Gateway]:
    """A gateway in this process, beside real devices that are all known and checked."""
    made = GatewayConfig()
    made = replace(
        made,
        broker=BrokerSettings(url=fog.broker.url, embedded="never"),
        gateway=replace(made.gateway, **{"local": "never", **more}),
    )
    async with Gateway(made, "mariem", connector(made, "mariem"), broker_within_s=30) as gateway:
        await waited(lambda: len(gateway.online()) == devices)
        handle = gateway.submit(JobRequest("first", PIPELINE, image=COLOUR[0]))
        outcome = await handle.outcome()  # the devices are checked by then
        assert outcome.error is None, outcome.error
        yield gateway


async def waited(found: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not found():
            await asyncio.sleep(0.01)


async def streamed(gateway: Gateway, source: PlayedSource, **more: Any) -> tuple[Any, Any]:
    output = Collected()
    stream = gateway.open_stream("yard", settings(**more), source, [("", output)])
    await gateway.run_stream(stream)
    return stream.view(), output.results


def right(results: list[Any]) -> bool:
    return all(np.array_equal(frame.image, EDGES[frame.number % 4]) for frame, _ in results)


def test_real_devices_give_the_frames_of_one_machine(lone_fog: Fog) -> None:
    lone_fog.fleet("eya", "manar")

    async def test() -> None:
        async with gateway_of(lone_fog, 2) as gateway:
            for split in ("tiles", "frames"):
                source = PlayedSource(COLOUR, count=20)
                wanted = {"split": split, "keep": "all", "verify": 0.2}
                view, results = await streamed(gateway, source, **wanted)
                assert [frame.seq for frame, _ in results] == list(range(1, 21))
                assert right(results)
                assert (view.wrong, view.books.problems(), view.way) == (0, [], split)

    asyncio.run(test())


def test_under_overload_results_stay_young_and_in_order(lone_fog: Fog) -> None:
    lone_fog.fleet("eya", "manar", speed=2_000_000)

    async def test() -> None:
        async with gateway_of(lone_fog, 2) as gateway:
            source = PlayedSource(COLOUR, fps=500, count=1000)
            view, results = await streamed(gateway, source, max_age_s=2.0)
            books = view.books
            assert books.problems() == []
            assert books.superseded > 500
            assert books.published > 5
            assert max(age for _, age in results) <= 2.0
            seqs = [frame.seq for frame, _ in results]
            assert seqs == sorted(seqs)
            assert right(results)
            assert len(source.released) == books.received - books.superseded

    asyncio.run(test())


def test_devices_that_are_killed_and_come_back_cost_a_frame_each_and_no_pixel(
    lone_fog: Fog,
) -> None:
    """In any order: on a busy machine, frames overtake each other without a kill, too."""
    lone_fog.fleet("eya", "manar", "oumayma")

    async def test() -> None:
        async with gateway_of(lone_fog, 3) as gateway:
            source, output = PlayedSource(COLOUR, fps=20, keeps=False), Collected()
            chosen = settings(order="any")
            stream = gateway.open_stream("yard", chosen, source, [("", output)])
            running = asyncio.create_task(gateway.run_stream(stream))
            for _ in range(2):
                program = lone_fog.programs[-1]
                before = len(output.results)
                await waited(lambda count=before: len(output.results) >= count + 10)
                program.kill()
                await waited(lambda: len(gateway.online()) == 2)
                before = len(output.results)
                await waited(lambda count=before: len(output.results) >= count + 10)
                await asyncio.to_thread(lone_fog.fleet, "oumayma")
                await waited(lambda: len(gateway.online()) == 3)
            source.end()
            await running
            books = stream.view().books
            assert right(output.results)
            assert books.problems() == []
            assert (books.in_flight, len(output.results)) == (0, books.published)
            assert books.late + books.failed <= 2

    asyncio.run(test())


@pytest.mark.proof
def test_a_frozen_device_costs_the_frames_that_it_held(lone_fog: Fog) -> None:
    _, frozen = lone_fog.fleet("eya", "manar")

    async def test() -> None:
        async with gateway_of(lone_fog, 2) as gateway:
            source, output = PlayedSource(COLOUR, fps=20, keeps=False), Collected()
            stream = gateway.open_stream("yard", settings(max_age_s=1.0), source, [("", output)])
            running = asyncio.create_task(gateway.run_stream(stream))
            await waited(lambda: len(output.results) >= 10)
            frozen.process.send_signal(signal.SIGSTOP)
            try:
                before = len(output.results)
                await waited(lambda: len(output.results) >= before + 30)
            finally:
                frozen.process.send_signal(signal.SIGCONT)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert right(output.results)
            assert stream.view().books.problems() == []

    asyncio.run(test())


def test_a_stream_and_a_long_job_share_the_fleet(lone_fog: Fog) -> None:
    lone_fog.fleet("eya", "manar", speed=1_000_000)

    async def test() -> None:
        async with gateway_of(lone_fog, 2) as gateway:
            source, output = PlayedSource(COLOUR, fps=5, keeps=False), Collected()
            stream = gateway.open_stream("yard", settings(), source, [("", output)])
            running = asyncio.create_task(gateway.run_stream(stream))
            await waited(lambda: len(output.results) >= 5)
            scan = photo(2400, 2400)
            handle = gateway.submit(JobRequest("scan", PIPELINE, image=scan))
            await waited(lambda: handle.report.done >= 1)
            before = len(output.results)
            outcome = await handle.outcome()
            assert outcome.error is None
            assert np.array_equal(outcome.image, edges(scan))
            # The job took several seconds at this speed, and frames came out meanwhile.
            assert len(output.results) > before + 3
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert right(output.results)

    asyncio.run(test())


def test_a_file_goes_through_the_command_to_a_folder(lone_fog: Fog) -> None:
    lone_fog.fleet("eya")
    lone_fog.examined()
    clip = write_video(lone_fog.folder / "clip.mp4", 20)
    done = lone_fog.command("stream", str(clip), "--pipeline", PIPELINE, "-o", "out", "--verify")
    assert done.returncode == 0, done.stderr
    assert "20 frames, 20 came out" in done.stderr
    assert "20 compared with one machine, 0 wrong" in done.stderr
    assert len(list((lone_fog.folder / "out").glob("*.png"))) == 20


def test_pictures_of_other_sizes_and_colours_lose_no_frame_that_a_memory_needs(
    lone_fog: Fog,
) -> None:
    """Each change begins an epoch, and the frames under way end before it does."""
    lone_fog.fleet("eya", "manar")
    pictures = lone_fog.folder / "pictures"
    pictures.mkdir()
    for number in range(12):
        picture = painted(number) if number // 2 % 2 else painted(number)[:141, :97, number % 3]
        cv2.imwrite(str(pictures / f"{number}.png"), picture)
    done = lone_fog.command("stream", str(pictures), "--pipeline", "diff", "-o", "-")
    assert done.returncode == 0, done.stderr
    assert "12 frames, 12 came out" in done.stderr
    epochs = [json.loads(line)["epoch"] for line in done.stdout.splitlines()]
    assert epochs == [1 + number // 2 for number in range(12)]


def test_the_command_prints_a_line_for_each_result(lone_fog: Fog) -> None:
    clip = write_video(lone_fog.folder / "clip.mp4", 5)
    done = lone_fog.command(
        "stream", str(clip), "--pipeline", "histogram", "-o", "-", GATEWAY__LOCAL="auto"
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["seq"] for line in lines] == [1, 2, 3, 4, 5]
    assert all(line["facts"]["bins"] == 256 for line in lines)


def test_the_command_ends_quietly_when_nobody_reads_its_lines(lone_fog: Fog) -> None:
    clip = write_video(lone_fog.folder / "clip.mp4", 2000)
    command = ["-m", "fogmqtt.cli.gateway", "stream", str(clip), "--pipeline", "stats", "-o", "-"]
    reader, writer = os.pipe()
    settings = {"GATEWAY__LOCAL": "auto"}
    program = lone_fog._start("stream", command, settings, stdout=writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as lines:
        assert json.loads(lines.readline())["seq"] == 1
    assert program.process.wait(PATIENCE_S) == 0
    said = program.log.read_text()
    assert "came out; age p50" in said.splitlines()[-1]
    assert "roken" not in said


def test_the_command_ends_with_one_line_at_ctrl_c_and_with_1_if_nothing_came_out(
    lone_fog: Fog,
) -> None:
    clip = write_video(lone_fog.folder / "clip.mp4", 2000)
    command = ["-m", "fogmqtt.cli.gateway", "stream", str(clip), "--pipeline", "invert"]
    command += ["--keep", "latest"]  # at its own pace: it lasts 80 s
    program = lone_fog._start("stream", command, {"GATEWAY__LOCAL": "auto"})
    program.says("fps in")
    program.process.send_signal(signal.SIGINT)
    assert program.process.wait(PATIENCE_S) == 0
    last = program.log.read_text().splitlines()[-1]
    assert "came out; age p50" in last

    done = lone_fog.command("stream", str(clip), "--keep", "latest", "--for", "2")
    assert done.returncode == 1
    assert "no frame came out: no device can do it" in done.stderr
    done = lone_fog.command("stream", "gopher://camera", "--pipeline", "invert")
    assert done.returncode == 2
    assert "gopher:// is no source" in done.stderr
    done = lone_fog.command("stream", "nothing.mp4", "--pipeline", "invert")
    assert done.returncode == 2
    assert "'nothing.mp4' is no file, no folder and no configured stream" in done.stderr


def test_configured_streams_run_in_a_serving_gateway_and_are_listed(lone_fog: Fog) -> None:
    lone_fog.fleet("eya")
    pictures = lone_fog.folder / "pictures"
    pictures.mkdir()
    for number in range(8):
        cv2.imwrite(str(pictures / f"{number}.png"), painted(number))
    config = lone_fog.folder / "fog.yaml"
    config.write_text(
        f"streams:\n  yard: {{source: {pictures}, pipeline: {PIPELINE!r}, keep: all}}\n"
        "  gate: {source: 'http://127.0.0.1:9/none', pipeline: invert}\n"
    )
    topics = ("fog/v1/streams/#", "fog/v1/frames/#")
    with lone_fog.probe(*topics) as client:
        gateway = lone_fog.serve_with(config)
        seen: list[Image] = []
        while len(seen) < 8:
            message = client.message("fog/v1/frames/yard/frame", within=PATIENCE_S)
            data = np.frombuffer(message.payload, np.uint8)
            seen.append(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))
            assert dict(message.properties.user)["seq"] == str(len(seen))
        expected = [edges(painted(number)) for number in range(8)]
        assert all(np.array_equal(*pair) for pair in zip(seen, expected, strict=True))
        listed = json.loads(lone_fog.command("streams", "--json").stdout)
        assert listed["yard"]["gateway"] == "mariem"
        assert listed["gate"]["status"] == "online"
        assert listed["gate"]["source"] in ("connecting", "lost")
        table = lone_fog.command("streams").stdout
        assert "yard" in table
        assert "gate" in table
        client.publish("fog/v1/streams/gate/enabled/set", b"OFF")
        while (
            client.message("fog/v1/streams/gate/status", within=PATIENCE_S).payload != b"disabled"
        ):
            pass
        assert gateway.stop() == 0
        state = msgspec.convert(listed["yard"], StreamState)
        assert (state.received, state.published, state.source) == (8, 8, "ended")


def test_two_gateways_with_streams_of_one_name_say_so(lone_fog: Fog) -> None:
    config = lone_fog.folder / "fog.yaml"
    with WebCamera(fps=5) as camera:
        config.write_text(
            f"streams: {{yard: {{source: '{camera.url('/stream')}', pipeline: invert}}}}\n"
        )
        names = ("mariem", "salma")
        gateways = [
            lone_fog.serve_with(
                config,
                GATEWAY__ID=name,
                GATEWAY__LOCAL="always",
                GATEWAY__SPOOL=f"{name}/spool",
                GATEWAY__INBOX=f"{name}/inbox",
                GATEWAY__OUTBOX=f"{name}/outbox",
            )
            for name in names
        ]
        for gateway, other in zip(gateways, reversed(names), strict=True):
            gateway.says(f"yard: Gateway {other} has a stream of this name, too")
