"""A gateway makes events of what it finds in the frames of a stream, and says them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fogmqtt.config import EventSettings, MotionSettings, RecordSettings, StreamSettings
from fogmqtt.core.streaming.source_steps import SourceStep, Step
from fogmqtt.errors import SourceEnded, UsageError
from fogmqtt.gateway.streams.motion import MotionFinder
from fogmqtt.gateway.streams.replay import Recording, ReplayReport, replay
from fogmqtt.gateway.streams.sightings import sightings
from fogmqtt.gateway.streams.streams import check_stream
from fogmqtt.images.spec import Image
from fogmqtt.streams.frame import Frame, SourceAccount, SourceCounts, SourceStatus
from fogmqtt.transport.base import Received
from fogmqtt.transport.memory import MemoryTransport
from tests.fog import Inbox
from tests.frame_sources import Pictures
from tests.gateway_rig import Rig, config, eventually, run

#: Milliseconds since 1970 of the first frame; the others follow at ten a second.
BEGAN = 1_700_000_000_000


class PlayedSource:
    """A source that gives the frames that the test made, and then waits or ends."""

    def __init__(self, images: Sequence[Image], *, ends: bool = True) -> None:
        self._images = images
        self._ends = ends
        self.given = self.released = self._told = 0
        self.closed = False

    @property
    def counts(self) -> SourceCounts:
        return SourceCounts(received=self.given, given=self.given)

    @property
    def status(self) -> SourceStatus:
        return SourceStatus("connected")

    def account(self) -> SourceAccount:
        steps: tuple[Step, ...] = ("offered", "taken", "given")
        new, self._told = self.given - self._told, self.given
        return SourceAccount(self.counts, tuple(SourceStep(one) for one in steps * new))

    async def next_frame(self) -> Frame:
        if self.given == len(self._images):
            if self._ends:
                raise SourceEnded("that was the last frame")
            await asyncio.Event().wait()
        number, image = self.given, self._images[self.given]
        self.given += 1
        at = asyncio.get_running_loop().time()
        utc = BEGAN / 1000 + number / 10
        return Frame(number, at, utc, "sensor", image, None, self._release)

    def _release(self) -> None:
        self.released += 1

    async def close(self) -> None:
        self.closed = True


def scene(*blobs: tuple[int, int], size: tuple[int, int] = (120, 160)) -> Image:
    """A black picture with white squares of 20 pixels."""
    picture = np.zeros(size, np.uint8)
    for left, top in blobs:
        picture[top : top + 20, left : left + 20] = 255
    return picture


def heard(
    images: Sequence[Image], settings: StreamSettings, *, ends: bool = True
) -> dict[str, list[bytes]]:
    """What a gateway says of a stream until its source has ended, by the end of the topic."""
    rig, inbox = Rig(), Inbox()
    client = MemoryTransport(rig.broker, "client", inbox.put)
    for leaf in ("streams/yard/+", "frames/yard/+"):
        client.subscribe(f"fog/v1/{leaf}")
    client.start()
    made = replace(config(local="always"), streams={"yard": settings})
    source = PlayedSource(images, ends=ends)

    def messages(leaf: str) -> list[bytes]:
        events = [one for one in inbox.all() if isinstance(one, Received)]
        return [bytes(one.payload) for one in events if one.topic.endswith(f"/yard/{leaf}")]

    async def test() -> None:
        gateway = rig.gateway(made, serves=True, open_source=lambda name, how: source)
        async with gateway:
            if ends:
                await eventually(lambda: source.closed, "the end of the stream")
            else:
                await eventually(lambda: len(messages("events")) > 1, "the end of what is there")

    run(test())
    assert source.released == source.given
    return {leaf: messages(leaf) for leaf in ("events", "motion", "snapshot", "status")}


def stream(pipeline: str, **events: Any) -> StreamSettings:
    return StreamSettings(
        source="played", pipeline=pipeline, keep="all", events=EventSettings(**events)
    )


def told(said: dict[str, list[bytes]]) -> list[dict[str, Any]]:
    return [json.loads(one) for one in said["events"]]


def test_components_that_appear_stay_and_are_gone_are_one_event_with_a_picture() -> None:
    moving = [scene((10 * step, 40)) for step in range(1, 4)]
    said = heard(
        [scene(), *moving, scene(), scene(), scene()], stream("components", start=2, end=2)
    )
    start, end = told(said)
    assert (start["event_type"], end["event_type"]) == ("start", "end")
    assert start["id"] == end["id"] == f"{BEGAN + 200}-1"
    assert (start["stream"], start["label"], start["seq"]) == ("yard", "motion", 3)
    assert start["boxes"] == [[20.0, 40.0, 20.0, 20.0]]
    assert start["score"] == 10_000 * 400 // (120 * 160) / 10_000
    assert end["ended_at"] == "2023-11-14T22:13:20.300+00:00"
    assert said["motion"] == [b"OFF", b"ON", b"OFF"]
    (snapshot,) = said["snapshot"]
    picture = cv2.imdecode(np.frombuffer(snapshot, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (120, 160, 3)
    blue, _, red = picture[60, 20].astype(int)  # the box is drawn on it
    assert red > blue + 60


def test_what_lies_in_no_zone_or_in_an_excluded_one_is_no_event() -> None:
    zones = {"right": "0.5,0 1,0 1,1 0.5,1"}
    exclude = {"corner": "0.8,0.8 1,0.8 1,1 0.8,1"}
    frames = [scene((10, 40)), scene((140, 100)), scene((100, 40)), scene((100, 40))]
    (start, end) = told(heard(frames, stream("components", start=1, zones=zones, exclude=exclude)))
    assert (start["seq"], start["zones"]) == (3, ["right"])
    assert end["event_type"] == "end"


def test_a_code_that_appears_stays_and_is_gone_gives_an_event() -> None:
    code = cv2.resize(
        cv2.QRCodeEncoder.create().encode("gate 7"), (116, 116), interpolation=cv2.INTER_NEAREST
    )
    frames = []
    for left in (20, 60):  # it moves farther than its own boxes overlap
        picture = np.full((160, 320), 255, np.uint8)
        picture[22:138, left : left + 116] = code
        frames.append(picture)
    blank = np.full((160, 320), 255, np.uint8)
    said = told(heard([blank, *frames, blank], stream("codes size=160", start=2, end=1)))
    assert [(one["event_type"], one["label"]) for one in said] == [
        ("start", "qr:gate 7"),
        ("end", "qr:gate 7"),
    ]


def test_another_size_ends_what_was_there() -> None:
    frames = [scene((10, 40)), scene((10, 40)), scene((10, 40), size=(240, 320))]
    said = told(heard(frames, stream("components", start=1)))
    assert [one["event_type"] for one in said] == ["start", "end", "start", "end"]
    assert said[0]["id"] != said[2]["id"]


def test_an_event_ends_when_no_frame_comes_any_more() -> None:
    settings = replace(stream("components", start=1), stall_s=0.2)
    said = heard([scene((10, 40))], settings, ends=False)
    assert [one["event_type"] for one in told(said)] == ["start", "end"]
    assert told(said)[1]["seq"] is None


def test_a_pipeline_that_finds_nothing_with_a_place_has_no_events() -> None:
    said = heard([scene((10, 40))] * 2, stream("invert"))
    assert said["events"] == said["motion"] == said["snapshot"] == []


def street(*cars: tuple[int, int], light: int = 0, frame: int = 0) -> Image:
    """A picture with the noise of a camera, and bright squares of 60 pixels; 360 x 480, colour."""
    noise = np.random.default_rng(frame).normal(0, 2, (360, 480, 3))
    picture = np.clip(90 + light + noise, 0, 255).astype(np.uint8)
    for left, top in cars:
        picture[top : top + 60, left : left + 60] = (40, 200, 220)
    return picture


def quiet(count: int, light: int = 0) -> list[Image]:
    return [street(light=light, frame=number) for number in range(count)]


def test_motion_is_found_beside_any_pipeline_in_pixels_of_the_frame() -> None:
    passing = [street((70 * step, 200), frame=50 + step) for step in range(1, 6)]
    settings = replace(
        stream("invert", start=2, end=3, update_s=0), motion=MotionSettings(sensitivity=70)
    )
    said = told(heard([*quiet(20), *passing, *quiet(12)], settings))
    assert [one["event_type"] for one in said][0 :: len(said) - 1] == ["start", "end"]
    assert {one["label"] for one in said} == {"motion"}
    start = said[0]
    assert start["seq"] == 22
    (left, top, width, height), *others = start["boxes"]
    assert not others
    assert max(abs(left - 140), abs(top - 200), abs(width - 60), abs(height - 60)) <= 4
    assert abs(start["score"] - 60 * 60 / (360 * 480)) < 0.003


def test_noise_and_a_change_of_light_are_no_motion() -> None:
    settings = replace(stream("invert", start=1), motion=MotionSettings(sensitivity=70))
    said = heard([*quiet(20), *quiet(15, light=60)], settings)
    assert told(said) == []
    assert set(said["motion"]) == {b"OFF"}


def test_a_higher_sensitivity_finds_what_a_lower_one_does_not() -> None:
    found = []
    for sensitivity in (1, 100):
        finder = MotionFinder(MotionSettings(sensitivity=sensitivity, min_area=0.01))
        for image in quiet(20):
            finder.find(image, 1)
        faint = street(frame=60)
        faint[100:160, 100:160] += 20
        found.append(len(finder.find(faint, 1)["components"]))
    assert found == [0, 1]


def test_another_epoch_forgets_the_background() -> None:
    finder = MotionFinder(MotionSettings(sensitivity=70))
    for image in quiet(20):
        finder.find(image, 1)
    assert finder.find(street((100, 100), frame=60), 2) == {"components": []}


def test_motion_beside_a_pipeline_with_events_of_its_own_is_refused() -> None:
    settings = StreamSettings(
        source="rtsp://cam/h264", pipeline="components", motion=MotionSettings(sensitivity=50)
    )
    with pytest.raises(UsageError, match=r"motion.sensitivity: the pipeline ends with components"):
        check_stream(config(), settings)


def test_objects_are_read_as_boxes_in_hundredths_of_a_pixel() -> None:
    facts = {"objects": [{"class": "cat", "score": 0.9312, "box": [1.25, 2.5, 10.0, 20.05]}]}
    (cat,) = sightings(facts, 100, 100)
    assert (cat.label, cat.score, tuple(cat.box)) == ("cat", 9312, (125, 250, 1125, 2255))


def recorded(tmp_path: Path, images: Sequence[Image], settings: StreamSettings) -> Path:
    """Record a stream with its events; returns the recording."""
    kept = RecordSettings(str(tmp_path), 100_000_000)
    said = heard(images, replace(settings, record=kept))
    (folder,) = tmp_path.iterdir()
    lines = [json.loads(one) for one in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    in_log = [each for one in lines if one["type"] == "events" for each in one["events"]]
    assert [one["id"] for one in in_log] == [one["id"] for one in told(said)]
    assert lines[-1]["type"] == "last"  # the end of all events is in it
    return folder


def replayed(folder: Path) -> ReplayReport:
    return asyncio.run(replay(Recording(folder), lambda path, _: Pictures(path), lambda _: None))


BLOBS = [scene(), *(scene((10 * step, 40)) for step in range(1, 4)), scene(), scene(), scene()]


@pytest.mark.parametrize(
    "pipeline", ["components", "crop left=8 | components", "diff | components"]
)
def test_a_replay_makes_the_events_of_the_facts_again(tmp_path: Path, pipeline: str) -> None:
    report = replayed(recorded(tmp_path, BLOBS, stream(pipeline, start=2, end=2)))
    assert (report.texts, report.looked_at, report.events) == ([], len(BLOBS), 2)
    assert report.snapshots == 1


def test_a_replay_finds_the_same_motion_again(tmp_path: Path) -> None:
    passing = [street((70 * step, 200), frame=50 + step) for step in range(1, 6)]
    frames = [*quiet(20), *passing, *quiet(12)]
    motion = replace(stream("invert"), motion=MotionSettings(sensitivity=70))
    report = replayed(recorded(tmp_path, frames, motion))
    assert (report.texts, report.looked_at) == ([], len(frames))
    assert report.events >= 2
    assert report.snapshots >= 1


@pytest.mark.parametrize(
    ("line", "old", "new", "text"),
    [
        ("snapshot", '"digest":"', '"digest":"0', "picture of the events of frame with seq "),
        ("events", '"active":true', '"active":false', "motion is ON now, OFF in the recording"),
    ],
)
def test_a_picture_or_motion_that_is_another_now_is_named(
    tmp_path: Path, line: str, old: str, new: str, text: str
) -> None:
    folder = recorded(tmp_path, BLOBS, stream("components", start=2, end=2))
    log = folder / "log.jsonl"
    lines = log.read_text("utf-8").splitlines(keepends=True)
    at = next(n for n, one in enumerate(lines) if f'"type":"{line}"' in one and old in one)
    lines[at] = lines[at].replace(old, new)
    log.write_text("".join(lines), "utf-8")
    report = replayed(folder)
    assert report.differences == 1
    assert text in report.texts[0]


def test_an_event_that_is_another_now_is_named(tmp_path: Path) -> None:
    folder = recorded(tmp_path, BLOBS, stream("components", start=2, end=2))
    head = folder / "recording.json"
    head.write_text(head.read_text("utf-8").replace('"start": 2', '"start": 1'), "utf-8")
    report = replayed(folder)
    assert report.texts[0].startswith(
        f"events of frame with seq 2: start motion {BEGAN + 100}-1 now, none in the recording"
    )
