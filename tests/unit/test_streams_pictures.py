"""Pictures of streams: the retained preview, and the newest frame for those who look."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fogmqtt.config import PreviewSettings, load_gateway
from fogmqtt.errors import UsageError
from fogmqtt.gateway.streams.newest_frame import FramePicture, NewestFrame
from fogmqtt.gateway.streams.outputs import PublishedFrame
from fogmqtt.gateway.streams.preview import PreviewOutput
from fogmqtt.gateway.threads import Threads
from fogmqtt.images.spec import Image
from fogmqtt.wire.topics import Topics
from tests.gateway_rig import eventually, run
from tests.unit.test_streams_service import YARD, Watched

PICTURE = np.random.default_rng(7).integers(0, 256, (90, 160, 3), np.uint8)


def decoded(data: bytes) -> Image:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def frame(seq: int, image: Image | None = PICTURE, original: Image | None = None) -> PublishedFrame:
    facts = {"found": seq} if image is None else None
    return PublishedFrame(
        "yard", seq, seq, 0.0, 1e9 + seq, "arrival", 1, image, facts, (90, 160), original
    )


class Link:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes, dict[str, Any]]] = []

    def publish(self, topic: str, payload: bytes, **more: Any) -> None:
        self.published.append((topic, payload, more))


def preview_of(threads: Threads, **settings: Any) -> tuple[PreviewOutput, Link]:
    link, made = Link(), PreviewSettings(**settings)
    return PreviewOutput("yard", made, link, Topics(), threads, measures=False), link  # type: ignore[arg-type]


def test_a_preview_is_a_small_retained_jpeg_and_comes_as_often_as_asked_at_most() -> None:
    async def test() -> None:
        threads = Threads()
        output, link = preview_of(threads, fps=0.001, height=45)
        for seq in range(1, 50):
            await output.publish(frame(seq))
        ((topic, data, more),) = link.published
        assert (topic, more["retain"], more["qos"]) == ("fog/v1/frames/yard/preview", True, 0)
        assert decoded(data).shape == (45, 80, 3)
        threads.close()

    run(test())


def test_a_preview_of_a_lower_quality_has_fewer_bytes() -> None:
    async def test() -> None:
        threads, sizes = Threads(), []
        for quality in (20, 90):
            output, link = preview_of(threads, quality=quality)
            await output.publish(frame(1))
            sizes.append(len(link.published[0][1]))
        assert sizes[0] < sizes[1] / 2
        threads.close()

    run(test())


def test_a_stream_keeps_a_preview_at_the_broker_and_none_with_fps_0() -> None:
    async def test() -> None:
        for fps, wanted in ((30.0, True), (0.0, False)):
            watched = Watched()
            stream = replace(YARD, preview=PreviewSettings(fps=fps))
            async with watched.gateway(yard=stream):
                await eventually(lambda: len(watched.said("frames/yard/frame")) > 3)  # noqa: B023
                if wanted:
                    await eventually(lambda: watched.said("frames/yard/preview"))  # noqa: B023
                    kept = watched.rig.broker.retained()
                    assert "fog/v1/frames/yard/preview" in kept
            assert bool(watched.said("frames/yard/preview")) == wanted

    run(test())


def test_of_facts_the_preview_is_the_frame_itself() -> None:
    async def test() -> None:
        watched = Watched()
        async with watched.gateway(yard=replace(YARD, pipeline="histogram")):
            await eventually(lambda: watched.said("frames/yard/preview"))
        assert decoded(watched.said("frames/yard/preview")[0]).shape == (48, 64)

    run(test())


def newest(*, measures: bool = False) -> tuple[NewestFrame, Threads]:
    threads = Threads()
    return NewestFrame(threads, lambda: None, measures=measures), threads


def test_who_looks_gets_the_newest_frame_once_and_then_waits_for_the_next() -> None:
    async def test() -> None:
        kept, threads = newest()
        for seq in (1, 2, 3):
            kept.take(frame(seq))
        first = await kept.picture(0, "", 1.0)
        assert first is not None
        assert (first.frame.seq, decoded(first.data).shape) == (3, (90, 160, 3))
        assert await kept.picture(0, first.version, 0.0) is None
        waiting = asyncio.create_task(kept.picture(0, first.version, 30.0))
        await asyncio.sleep(0)
        kept.take(frame(4))
        following = await waiting
        assert following is not None
        assert following.frame.seq == 4
        assert following.version != first.version
        threads.close()

    run(test())


def test_those_who_look_at_the_same_width_share_one_picture() -> None:
    async def test() -> None:
        kept, threads = newest()
        kept.take(frame(1))
        found = await asyncio.gather(*(kept.picture(80, "", 1.0) for _ in range(5)))
        pictures = [one for one in found if isinstance(one, FramePicture)]
        assert len(pictures) == 5
        assert all(one.data is pictures[0].data for one in pictures)
        assert decoded(pictures[0].data).shape == (45, 80, 3)
        threads.close()

    run(test())


def test_frames_of_a_measuring_pipeline_are_copied_only_while_somebody_looks() -> None:
    async def test() -> None:
        kept, threads = newest(measures=True)
        assert not kept.needs_original
        kept.take(frame(1, None))
        waiting = asyncio.create_task(kept.picture(0, "", 30.0))
        await asyncio.sleep(0)
        assert kept.needs_original
        kept.take(frame(2, None, PICTURE))
        found = await waiting
        assert found is not None
        assert found.frame.seq == 2
        threads.close()

    run(test())


def test_the_last_frame_of_a_stream_that_ended_is_not_shown() -> None:
    async def test() -> None:
        kept, threads = newest()
        kept.take(frame(1))
        await kept.close()
        assert await kept.picture(0, "", 0.0) is None
        threads.close()

    run(test())


def test_a_stream_has_a_card_that_says_how_it_does() -> None:
    async def test() -> None:
        watched = Watched()
        off = replace(YARD, enabled=False)
        async with watched.gateway(yard=YARD, gate=off) as gateway:
            await eventually(lambda: watched.said("frames/yard/frame"))
            await eventually(lambda: gateway.stream_cards()[0].sentence == "Runs.")
            counted, off_counted = gateway.metrics().streams
            assert (counted.up, off_counted.up) == (True, False)
            assert counted.ages is not None
            assert sum(counted.ages.counts) >= counted.frames["published"] > 0
            yard, gate = gateway.stream_cards()
            assert (yard.name, yard.status, yard.tone) == ("yard", "online", "good")
            assert yard.state is not None
            assert yard.state.published > 0
            assert (gate.status, gate.sentence) == ("disabled", "It is switched off.")
            assert gateway.newest_frame("yard") is not None
            assert gateway.newest_frame("nobody") is None

    run(test())


def configured(folder: Path, preview: str) -> PreviewSettings:
    path = folder / "config.yaml"
    path.write_text(f"streams: {{yard: {{source: 'rtsp://camera/1', preview: {preview}}}}}")
    return load_gateway(path, {}).streams["yard"].preview


@pytest.mark.parametrize("wrong", ["{fps: -1}", "{height: 0}", "{quality: 101}", "{fast: 1}"])
def test_a_preview_that_cannot_be_is_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(UsageError, match="yard"):
        configured(tmp_path, wrong)


def test_a_preview_can_be_configured_in_part(tmp_path: Path) -> None:
    assert configured(tmp_path, "{fps: 5}") == PreviewSettings(fps=5.0, height=360, quality=75)
