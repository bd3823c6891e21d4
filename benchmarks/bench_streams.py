"""Measures live streams: 1080p frames in colour, gray and Canny, over three devices.

Each row is one stream: how frames were done, how many came out a second, how old they were when
they did, and what a frame cost in CPU time, that of broker and devices included. `overload` asks
for three times as many frames as came out as fast as it goes. `cv2` is this process alone, one
frame after the other, without any of it. A busy machine says little about ages: `others` is what
other programs used.

`--peers` measures imagezmq, Dask and plain MQTT with the same frames in the same run. `--long`
minutes of overload by tiles show whether ages or memory grow. `--kills` kills a device every 10 s
at 5 frames a second, of which each is compared with one machine.

Run: .venv/bin/python benchmarks/bench_streams.py [--seconds 10] [--split auto tiles frames]
     [--peers] [--long 10] [--kills 3]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from subprocess import Popen

import cv2
import numpy as np
import psutil
import stream_peers
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
from fogmqtt.streams.frame import Frame, SourceAccount, SourceCounts, SourceStatus
from fogmqtt.transport.embedded import EmbeddedBroker

PIPELINE = "gray | canny low=50 high=150"
HEIGHT, WIDTH = 1080, 1920
DEVICES = 3
CAMERA_FPS = 30.0
OVERLOAD = 3.0
#: Seconds before a measurement, in which ways are tried and devices load what they need.
WARM_S = 3.0
KILL_S = 10.0


@dataclass
class Pictures:
    """A source in memory: so many frames a second by the clock, or with 0 whenever it is asked."""

    pictures: list[Image]
    fps: float
    counts: SourceCounts = field(default_factory=SourceCounts)
    status: SourceStatus = field(default_factory=lambda: SourceStatus("connected"))
    began_at: float = field(default_factory=time.monotonic)
    number: int = -1

    def account(self) -> SourceAccount:
        return SourceAccount(self.counts)

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
            f"{self.name:<20}{self.way:<8}{self.fps:8.1f}{p50:9.1f}{p99:9.1f}{1000 * ages[-1]:9.1f}"
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


@asynccontextmanager
async def fleet_gateway(url: str, pictures: list[Image], local: str) -> AsyncIterator[Gateway]:
    """A gateway that knows all devices, and has had them checked."""
    made = GatewayConfig()
    made = replace(
        made,
        broker=BrokerSettings(url=url, embedded="never"),
        gateway=replace(made.gateway, local=local),
    )
    async with Gateway(made, "bench", connector(made, "bench"), broker_within_s=30) as gateway:
        while len(gateway.online()) < DEVICES:
            await asyncio.sleep(0.05)
        first = gateway.submit(JobRequest("first", PIPELINE, image=pictures[0]))
        outcome = await first.outcome()
        assert outcome.error is None, outcome.error
        yield gateway


class NewestPictures:
    """The pictures for the lanes of a peer: so many a second by the clock, or with 0 at once."""

    def __init__(self, pictures: list[Image], fps: float) -> None:
        self._pictures = pictures
        self._fps = fps
        self._lock = threading.Lock()
        self._began_at = time.monotonic()
        self._number = -1
        self.dropped = 0

    def take(self) -> tuple[Image, float]:
        """Wait for the newest picture that no lane has; returns it, and when it was captured."""
        with self._lock:
            now = time.monotonic()
            if not self._fps:
                self._number += 1
                return self._pictures[self._number % len(self._pictures)], now
            newest = int((now - self._began_at) * self._fps)
            skipped = max(0, newest - self._number - 1)
            self.dropped += skipped
            self._number += 1 + skipped
            captured_at = self._began_at + self._number / self._fps
            time.sleep(max(0.0, captured_at - time.monotonic()))
            return self._pictures[self._number % len(self._pictures)], captured_at


def measure_peer(
    lanes: list[stream_peers.Lane], pictures: list[Image], name: str, fps: float, seconds: float
) -> Row:
    """Let all lanes of a peer do frames for a while."""
    source = NewestPictures(pictures, fps)
    ages: list[float] = []
    ends_at = time.monotonic() + seconds

    def work(lane: stream_peers.Lane) -> None:
        while time.monotonic() < ends_at:
            image, captured_at = source.take()
            lane(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
            ages.append(time.monotonic() - captured_at)

    cpu, began = CpuTime(), time.monotonic()
    threads = [threading.Thread(target=work, args=(lane,)) for lane in lanes]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    took_s = time.monotonic() - began
    return Row(name, "frames", len(ages) / took_s, ages, 0, source.dropped, cpu.usage())


def bench_peers(url: str, seconds: float, show: Callable[[Row], None]) -> None:
    """Measure each peer that is installed, at the camera's pace and as fast as it goes."""
    pictures = camera_pictures()
    gray = cv2.cvtColor(pictures[0], cv2.COLOR_BGR2GRAY)
    expected = stream_peers.edges(gray)
    peers, lacking = stream_peers.present((HEIGHT, WIDTH))
    for name, start in peers.items():
        with start(DEVICES, url) as lanes:
            for lane in lanes:
                assert np.array_equal(lane(gray), expected), name
            measure_peer(lanes, pictures, name, 0.0, WARM_S)
            show(measure_peer(lanes, pictures, f"30 fps, {name}", CAMERA_FPS, seconds))
            show(measure_peer(lanes, pictures, f"as fast, {name}", 0.0, seconds))
    for sentence in lacking:
        print(sentence)


async def long_overload(url: str, pictures: list[Image], minutes: int) -> None:
    """Print ages and memory of each minute of three times as many frames as can be done."""
    async with fleet_gateway(url, pictures, "never") as gateway:
        more = {"seconds": 10.0, "split": "tiles"}
        most = (await measure(gateway, pictures, "as fast", 0.0, **more)).fps
        asked = OVERLOAD * max(most, 1.0)
        source, output = Pictures(pictures, asked), Ages()
        settings = StreamSettings(source="memory", pipeline=PIPELINE, split="tiles")
        stream = gateway.open_stream("bench", settings, source, [("ages", output)])
        running = asyncio.create_task(gateway.run_stream(stream))
        await asyncio.sleep(WARM_S)
        firsts: list[float] = []
        for minute in range(1, minutes + 1):
            output.ages.clear()
            cpu = CpuTime()
            await asyncio.sleep(60)
            ages, others = sorted(output.ages) or [float("nan")], cpu.usage().others
            memory = psutil.Process().memory_info().rss / 1e6
            p99 = 1000 * ages[int(0.99 * (len(ages) - 1))]
            firsts = firsts or [p99, memory]
            print(
                f"{asked:.0f} fps asked, minute {minute}: {len(output.ages)} results, p99 "
                f"{p99:.0f} ms ({p99 / firsts[0]:.2f} of the first), gateway {memory:.1f} MB "
                f"({memory - firsts[1]:+.1f}), others {others:.0%}, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def kills(url: str, pictures: list[Image], count: int, fleet: Fleet) -> None:
    """Print what killed devices cost."""
    async with fleet_gateway(url, pictures, "never") as gateway:
        settings = StreamSettings(
            source="memory", pipeline=PIPELINE, split="tiles", verify=1.0, max_age_s=2.0
        )
        stream = gateway.open_stream("bench", settings, Pictures(pictures, 5.0), [])
        running = asyncio.create_task(gateway.run_stream(stream))
        await asyncio.sleep(WARM_S)
        before = replace(stream.view().books)
        for number in range(count):
            fleet.kill(number % DEVICES)
            await asyncio.sleep(KILL_S)
        view = stream.view()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    after = view.books
    print(
        f"{count} kills at 5 fps: {after.published - before.published} came out, "
        f"{after.late - before.late} late, {after.failed - before.failed} failed; "
        f"{view.verified} compared, {view.wrong} wrong"
    )


class Fleet:
    """The devices, each of which can be killed and comes back."""

    def __init__(self, stack: ExitStack, url: str) -> None:
        self._stack = stack
        self._url = url
        self._processes = [self._start(number) for number in range(DEVICES)]

    def kill(self, number: int) -> None:
        """Kill a device, and start it anew."""
        self._processes[number].kill()
        self._processes[number] = self._start(number)

    def _start(self, number: int) -> Popen[bytes]:
        return self._stack.enter_context(device_process(f"d{number}", self._url))


def camera_pictures() -> list[Image]:
    """Eight colour pictures of 1080p, which move."""
    size = cv2.resize(photo(2), (WIDTH, HEIGHT))
    colour = cv2.merge([size, np.roll(size, 5, axis=1), np.roll(size, 9, axis=0)])
    return [np.roll(colour, 7 * number, axis=1) for number in range(8)]


async def bench(url: str, splits: list[str], seconds: float, show: Callable[[Row], None]) -> None:
    pictures = camera_pictures()
    for split in splits:
        # `auto` may do a frame on the gateway, as it does by default; the others are about devices.
        local = "auto" if split == "auto" else "never"
        async with fleet_gateway(url, pictures, local) as gateway:
            more = {"seconds": seconds, "split": split}
            show(await measure(gateway, pictures, f"30 fps, {split}", CAMERA_FPS, **more))
            row = await measure(gateway, pictures, f"as fast, {split}", 0.0, **more)
            show(row)
            asked = OVERLOAD * max(row.fps, 1.0)
            show(await measure(gateway, pictures, f"overload, {split}", asked, **more))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--split", nargs="*", default=["auto", "tiles", "frames"])
    parser.add_argument("--peers", action="store_true", help="measure others, too")
    parser.add_argument("--long", type=int, default=0, help="minutes of overload")
    parser.add_argument("--kills", type=int, default=0, help="devices to kill")
    options = parser.parse_args()
    tune()
    print(
        f"{'':<20}{'way':<8}{'fps out':>8}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'late':>6}"
        f"{'dropped':>9}{'CPU ms':>9}{'others':>8}"
    )
    show = lambda row: print(row, flush=True)  # noqa: E731
    show(alone(camera_pictures(), options.seconds / 2))
    with ExitStack() as stack:
        broker = EmbeddedBroker.start(f"mqtt://127.0.0.1:{free_port()}")
        stack.callback(broker.stop)
        fleet = Fleet(stack, broker.url)
        asyncio.run(bench(broker.url, options.split, options.seconds, show))
        if options.peers:
            bench_peers(broker.url, options.seconds, show)
        if options.long:
            asyncio.run(long_overload(broker.url, camera_pictures(), options.long))
        if options.kills:
            asyncio.run(kills(broker.url, camera_pictures(), options.kills, fleet))


if __name__ == "__main__":
    main()
