"""Measures what many cameras cost a small gateway: files of 720p at 5 frames a second, paced.

With `keep: keys`, of which a frame each 2 s is decoded, and with `keep: latest`, where all are. The
CPU time is that of all processes of the sources and of this one, which takes each frame.

Run: .venv/bin/python benchmarks/bench_cameras.py [--cameras 16] [--seconds 20]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import psutil
from cpu_time import CpuTime
from photo import photo

from fogmqtt.streams.frame import FrameSource
from fogmqtt.streams.open import open_source
from fogmqtt.streams.settings import Keep, SourceSettings

#: Seconds in which all processes start.
START_S = 10.0
SIZE = (720, 1280)


def write_video(path: Path, seconds: float) -> None:
    """Write a video at 5 frames a second, with a key frame each 2 s."""
    height, width = SIZE
    picture = np.resize(photo(1), SIZE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = 10
        stream.options = {"preset": "ultrafast"}
        for number in range(int(5 * seconds)):
            moved = np.roll(picture, 5 * number, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, "gray")))
        container.mux(stream.encode(None))


async def measure(path: Path, keep: Keep, cameras: int, seconds: float) -> None:
    frames: Counter[str] = Counter()

    async def take_all(source: FrameSource) -> None:
        while True:
            frame = await source.next_frame()
            frames[keep] += 1
            frame.release()

    settings = SourceSettings(source=str(path), keep=keep)
    sources = [open_source(f"camera{number}", settings) for number in range(cameras)]
    takers = [asyncio.create_task(take_all(one)) for one in sources]
    await asyncio.sleep(START_S)
    frames.clear()
    cpu, began_at = CpuTime(), time.monotonic()
    await asyncio.sleep(seconds)
    usage, took_s = cpu.usage(), time.monotonic() - began_at
    processes = psutil.Process().children(recursive=True)
    largest = max(one.memory_info().rss for one in processes)
    for taker in takers:
        taker.cancel()
    await asyncio.gather(*takers, return_exceptions=True)
    await asyncio.gather(*(one.close() for one in sources))
    print(
        f"{cameras} cameras, {keep}: {usage.cpu_s / took_s:.0%} of a core for "
        f"{frames[keep] / took_s:.1f} frames a second; the largest process has "
        f"{largest / 1e6:.0f} MB; others {usage.others:.0%}",
        flush=True,
    )


async def bench(cameras: int, seconds: float) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "camera.mp4"
        write_video(path, START_S + seconds + 10)
        for keep in ("keys", "latest"):
            await measure(path, keep, cameras, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    asyncio.run(bench(options.cameras, options.seconds))


if __name__ == "__main__":
    main()
