"""Streams with memory over real devices that are killed: each frame is that of one machine."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fogmqtt.config import MemorySettings, RecordSettings, StreamSettings
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.streams.replay import Recording, replay
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.memory import FrameMemory
from fogmqtt.operators.api.pipeline import parse
from fogmqtt.streams.frame import Frame
from tests.frame_sources import Collected, Pictures, PlayedSource
from tests.integration.test_streams import gateway_of, waited
from tests.processes import Fog, photo

PICTURES = [np.roll(photo(120, 160), 7 * n, axis=1) for n in range(6)]


def settings(pipeline: str, **state: Any) -> StreamSettings:
    return StreamSettings(
        source="played",
        pipeline=pipeline,
        max_age_s=30.0,
        keep="all",  # all frames that the source gives are begun
        state=MemorySettings(**state),
    )


class Whole:
    """What one machine gives for the frames that were begun, from the first of them on."""

    def __init__(self, pipeline: str, frames: Sequence[Frame]) -> None:
        self._operators = parse(pipeline)
        self._frames = frames

    def results(self, first: int = 1) -> dict[int, Image]:
        """Return seq → result, for a machine that has seen the frames from `first` on."""
        memory, found = FrameMemory(), {}
        for count, frame in enumerate(self._frames[first - 1 :]):
            result = memory.run_whole(self._operators, frame.image, frame.image, count)
            assert isinstance(result, np.ndarray)
            found[first + count] = result
        return found


def wrong_pixels(results: Sequence[Any], expected: dict[int, Image]) -> int:
    return sum(int(np.count_nonzero(one.image != expected[one.seq])) for one, _ in results)


@dataclass
class Played:
    """A stream that a test plays, with what came out."""

    gateway: Gateway
    settings: StreamSettings
    source: PlayedSource = field(default_factory=lambda: PlayedSource(PICTURES, fps=10))
    output: Collected = field(default_factory=Collected)

    def __post_init__(self) -> None:
        outputs = [("", self.output)]
        self.stream = self.gateway.open_stream("yard", self.settings, self.source, outputs)
        self.task = asyncio.create_task(self.gateway.run_stream(self.stream))

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def check(self, *, epochs: int = 1) -> None:
        """Assert that each frame is that of one machine which saw all frames of its epoch."""
        view, results = self.stream.view(), self.output.results
        whole = Whole(self.settings.pipeline, self.source.given)
        assert (view.way, view.books.problems()) == ("tiles", [])
        assert (view.reseeds, view.epoch) == (epochs - 1, epochs)
        for epoch in range(1, epochs + 1):
            of_epoch = [one for one in results if one[0].epoch == epoch]
            expected = whole.results(of_epoch[0][0].seq if epoch > 1 else 1)
            assert wrong_pixels(of_epoch, expected) == 0
        # What was on its way at the kill, and when the test ends.
        assert view.books.failed <= 2 * epochs + 2

    def check_rows(self) -> None:
        """Assert that each row went on or began anew once, as one machine that saw all frames, or
        those from then on. Tiles are strips of whole rows.
        """
        view, results = self.stream.view(), [one for one, _ in self.output.results]
        assert (view.way, view.books.problems()) == ("tiles", [])
        assert view.books.failed <= 2 * view.reseeds + 2
        whole = Whole(self.settings.pipeline, self.source.given)
        anew = next(one.seq for one in results if one.epoch > 1)
        machines = [whole.results(first) for first in (1, *range(anew - 3, anew + 6))]
        for row in range(results[0].image.shape[0]):
            assert any(
                all(
                    np.array_equal(one.image[row], machine.get(one.seq, machines[0][one.seq])[row])
                    for one in results
                )
                for machine in machines
            ), row


def test_a_killed_device_costs_no_pixel_and_an_epoch_only_of_an_opaque_memory(
    lone_fog: Fog,
) -> None:
    lone_fog.fleet("eya", "manar", "oumayma")

    async def test() -> None:
        async with gateway_of(lone_fog, 3) as gateway:
            exact = [
                settings("gray | background rate=3 | open ksize=3", snapshot_s=0.5),
                settings("gray | background rate=3", standby=1, snapshot_s=0.0),
                settings("median_of frames=5 | gray"),
                settings("gray | mog2 history=40", standby=1),
            ]
            streams = [Played(gateway, one) for one in exact]
            lossy = Played(gateway, settings("gray | mog2 history=40", reseed="stream"))
            patched = Played(gateway, settings("gray | mog2 history=40", reseed="tile"))
            every = [*streams, lossy, patched]

            async def more(count: int) -> None:
                marks = [len(one.output.results) + count for one in every]
                await waited(
                    lambda: all(
                        len(one.output.results) >= mark
                        for one, mark in zip(every, marks, strict=True)
                    )
                )

            await more(12)
            lone_fog.programs.pop().kill()
            await waited(lambda: len(gateway.online()) == 2)
            await more(12)
            for one in every:
                await one.stop()
            for one in streams:
                one.check()
            # It begins anew if the device that was killed had one of its tiles.
            reseeds = lossy.stream.view().reseeds
            assert reseeds <= 1
            lossy.check(epochs=1 + reseeds)
            assert patched.stream.view().reseeds >= 1  # each device had a tile at least
            patched.check_rows()

    asyncio.run(test())


def test_without_devices_this_machine_remembers_and_devices_that_come_begin_anew(
    lone_fog: Fog,
) -> None:
    lone_fog.fleet("eya")
    pipeline = "gray | background rate=3"

    async def test() -> None:
        async with gateway_of(lone_fog, 1, local="always") as gateway:
            wanted = settings(pipeline)
            lone_fog.programs[-1].kill()
            await waited(lambda: not gateway.online())
            source, output = PlayedSource(PICTURES, count=20), Collected()
            stream = gateway.open_stream("yard", wanted, source, [("", output)])
            await gateway.run_stream(stream)
            view = stream.view()
            assert (view.way, view.books.published, view.reseeds) == ("here", 20, 0)
            assert wrong_pixels(output.results, Whole(pipeline, source.given).results()) == 0

    asyncio.run(test())


def test_frames_that_are_late_are_in_the_memory_of_those_that_follow(
    lone_fog: Fog, tmp_path: Path
) -> None:
    """While devices are frozen, frames get too old. They were begun, so the memories learn them."""
    devices = lone_fog.fleet("eya", "manar")

    async def test() -> None:
        async with gateway_of(lone_fog, 2) as gateway:
            wanted = replace(
                settings("gray | denoise search=9 | background rate=3"),
                keep="latest",
                max_age_s=2.0,
                record=RecordSettings(str(tmp_path / "kept"), 100_000_000),
            )
            played = Played(gateway, wanted, PlayedSource(PICTURES, fps=30, keeps=False))

            async def more(count: int) -> None:
                mark = len(played.output.results) + count
                await waited(lambda: len(played.output.results) >= mark)

            for freeze in (1, 2):
                await more(10)
                for device in devices:
                    device.signal(signal.SIGSTOP)
                await waited(lambda n=freeze: played.stream.view().books.late >= n)
                for device in devices:
                    device.signal(signal.SIGCONT)
            await more(10)
            played.source.end()
            await played.task
            books = played.stream.view().books
            assert books.problems() == []
            # Two frames at a time at most: none is begun before devices have done those before.
            assert 2 <= books.late + books.failed <= 4
            assert max(age for _, age in played.output.results) <= 2.0
            seqs = [one.seq for one, _ in played.output.results]
            assert seqs == sorted(seqs)
            assert played.stream.view().reseeds == 0
            assert played.stream.recording is not None
            recording = Recording(played.stream.recording)
            report = await replay(recording, lambda folder, _: Pictures(folder), lambda _: None)
            assert (report.texts, report.not_comparable) == ([], 0)
            assert report.compared >= books.published

    asyncio.run(test())
