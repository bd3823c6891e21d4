"""Measures live streams: 1080p frames in colour, gray and Canny, over three devices.

Each row is one stream: how frames were done, how many came out a second, how old they were when
they did, and what a frame cost in CPU time, that of broker and devices included. `overload` asks
for three times as many frames as came out as fast as it goes. `cv2` is this process alone, one
frame after the other, without any of it. A busy machine says little about ages: `others` is what
other programs used.

Run: .venv/bin/python benchmarks/bench_streams.py [--seconds 10] [--split auto tiles frames]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from cpu_time import CpuTime, Usage
from photo import photo

from fogmqtt.cli.demo import device_process, free_port
from fogmqtt.config import BrokerSettings, GatewayConfig, StreamSettings
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.jobs.model import JobRequest
from fogmqtt.gateway.streams.outputs import PublishedFrame
from fogmqtt.images.spec import Image
from fogmqtt.process_tuning import tune
from fogmqtt.setup.brokers import connector
from fogmqtt.streams.frame import Frame, SourceCounts, SourceStatus
from fogmqtt.transport.embedded import EmbeddedBroker

PIPELINE = "gray | canny low=50 high=150"
HEIGHT, WIDTH = 1080, 1920
DEVICES = 3
CAMERA_FPS = 30.0
OVERLOAD = 3.0
#: Seconds before a measurement, in which ways are tried and devices load what they need.
WARM_S = 3.0


@dataclass
class Pictures:
    """A source in memory: so many frames a second by the clock, or with 0 whenever it is asked."""

    pictures: list[Image]
    fps: float
    counts: SourceCounts = field(default_factory=SourceCounts)
    status: SourceStatus = field(default_factory=lambda: SourceStatus("connected"))
    began_at: float = field(default_factory=time.monotonic)
    number: int = -1

    async def next_frame(self) -> Frame:
        skipped, captured_at = 0, time.monotonic()
        if self.fps:
            newest = int((captured_at - self.began_at) * self.fps)
            skipped = max(0, newest - self.number - 1)
            self.number += 1 + skipped
            captured_at = self.began_at + self.number / self.fps
            await asyncio.sleep(max(0.0, captured_at - time.monotonic()))
        else:
            self.number += 1
            await asyncio.sleep(0)
            captured_at = time.monotonic()
        had = self.counts
        self.counts = replace(
            had,
            received=had.received + skipped + 1,
            given=had.given + 1,
            superseded=had.superseded + skipped,
        )
        image = self.pictures[self.number % len(self.pictures)]
        return Frame(self.number, captured_at, time.time(), "sensor", image, None, lambda: None)

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class Ages:
    """An output that keeps how old results were."""

    ages: list[float] = field(default_factory=list)
    needs_original: bool = False

    async def publish(self, frame: PublishedFrame) -> None:
        self.ages.append(frame.age_s)

    async def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class Row:
    name: str
    way: str
    fps: float
    ages: list[float]
    late: int
    dropped: int
    usage: Usage

    def __str__(self) -> str:
        ages = sorted(self.ages) or [float("nan")]
        p50, p99 = (1000 * ages[int(part * (len(ages) - 1))] for part in (0.5, 0.99))
        cpu_ms = 1000 * self.usage.cpu_s / max(1, len(self.ages))
        return (
            f"{self.name:<16}{self.way:<8}{self.fps:8.1f}{p50:9.1f}{p99:9.1f}{1000 * ages[-1]:9.1f}"
            f"{self.late:6}{self.dropped:9}{cpu_ms:9.1f}{self.usage.others:8.0%}"
        )


async def measure(gateway: Gateway, pictures: list[Image], name: str, fps: float, **more: object):
    """Run a stream for a while, and return its figures."""
    seconds = float(more.pop("seconds"))  # type: ignore[arg-type]
    source, output = Pictures(pictures, fps), Ages()
    settings = StreamSettings(source="memory", pipeline=PIPELINE, **more)  # type: ignore[arg-type]
    stream = gateway.open_stream("bench", settings, source, [("ages", output)])
    running = asyncio.create_task(gateway.run_stream(stream))
    await asyncio.sleep(WARM_S)
    before, cpu, began = replace(stream.view().books), CpuTime(), time.monotonic()
    output.ages.clear()
    await asyncio.sleep(seconds)
    view, took_s = stream.view(), time.monotonic() - began
    after = replace(view.books)
    ages = list(output.ages)
    usage = cpu.usage()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert view.books.problems() == [], view.books.problems()
    return Row(
        name,
        view.way,
        (after.published - before.published) / took_s,
        ages,
        after.late - before.late,
        after.dropped - before.dropped,
        usage,
    )


def alone(pictures: list[Image], seconds: float) -> Row:
    """Plain OpenCV in this process, one frame after the other."""
    cpu, began, ages = CpuTime(), time.monotonic(), []
    while time.monotonic() - began < seconds:
        begun = time.monotonic()
        gray = cv2.cvtColor(pictures[len(ages) % len(pictures)], cv2.COLOR_BGR2GRAY)
        cv2.Canny(gray, 50, 150)
        ages.append(time.monotonic() - begun)
    took_s = time.monotonic() - began
    return Row("as fast, cv2", "-", len(ages) / took_s, ages, 0, 0, cpu.usage())


async def bench(url: str, splits: list[str], seconds: float, show: Callable[[Row], None]) -> None:
    gray = photo(2)
    size = cv2.resize(gray, (WIDTH, HEIGHT))
    colour = cv2.merge([size, np.roll(size, 5, axis=1), np.roll(size, 9, axis=0)])
    pictures = [np.roll(colour, 7 * number, axis=1) for number in range(8)]
    show(alone(pictures, seconds / 2))
    for split in splits:
        # `auto` may do a frame on the gateway, as it does by default; the others are about devices.
        made = GatewayConfig()
        made = replace(
            made,
            broker=BrokerSettings(url=url, embedded="never"),
            gateway=replace(made.gateway, local="auto" if split == "auto" else "never"),
        )
        async with Gateway(made, "bench", connector(made, "bench"), broker_within_s=30) as gateway:
            while len(gateway.online()) < DEVICES:
                await asyncio.sleep(0.05)
            first = gateway.submit(JobRequest("first", PIPELINE, image=pictures[0]))
            outcome = await first.outcome()
            assert outcome.error is None, outcome.error
            more = {"seconds": seconds, "split": split}
            show(await measure(gateway, pictures, f"30 fps, {split}", CAMERA_FPS, **more))
            row = await measure(gateway, pictures, f"as fast, {split}", 0.0, **more)
            show(row)
            asked = OVERLOAD * max(row.fps, 1.0)
            show(await measure(gateway, pictures, f"overload, {split}", asked, **more))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--split", nargs="+", default=["auto", "tiles", "frames"])
    options = parser.parse_args()
    tune()
    print(
        f"{'':<16}{'way':<8}{'fps out':>8}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'late':>6}"
        f"{'dropped':>9}{'CPU ms':>9}{'others':>8}"
    )
    with ExitStack() as stack:
        broker = EmbeddedBroker.start(f"mqtt://127.0.0.1:{free_port()}")
        stack.callback(broker.stop)
        for number in range(DEVICES):
            stack.enter_context(device_process(f"d{number}", broker.url))
        show = lambda row: print(row, flush=True)  # noqa: E731
        asyncio.run(bench(broker.url, options.split, options.seconds, show))


if __name__ == "__main__":
    main()
