"""Measures decoding in a child process: the time compared with decoding here, and the memory.

Run: python benchmarks/bench_decode.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from fogmqtt.gateway.jobs.decode import Decoders
from fogmqtt.images import files, reader
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image
from fogmqtt.process_tuning import tune

Read = Callable[[Path], Image]
LARGE, SMALL = (4000, 6000), (400, 600)
MB = 1 << 20


def photograph(height: int, width: int) -> Image:
    """Return a smooth image with the noise of a camera."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    smooth = cv2.GaussianBlur(cv2.resize(coarse, (width, height)), (0, 0), 3)
    grain = rng.integers(0, 6, smooth.shape, np.uint8)
    return np.asarray(cv2.add(smooth, grain))


def here(path: Path) -> Image:
    return reader.read(path.read_bytes(), path.name).image


def apart(decoders: Decoders, path: Path) -> Image:
    file = os.open(path, os.O_RDONLY)
    try:
        return decoders.read(file, path.name, max_pixels=10**9)[0].image
    finally:
        os.close(file)


def seconds(read: Read, path: Path) -> float:
    began = time.perf_counter()
    image = read(path)
    image[::64, ::64].sum()  # touch the mapped pages
    return time.perf_counter() - began


def row(path: Path, there: Read, rounds: int) -> str:
    """Return the milliseconds of both, the difference and the ratio: medians of pairs."""
    assert np.array_equal(here(path), there(path))
    pairs = []
    for number in range(rounds):
        turns = (here, there) if number % 2 else (there, here)
        took = {read: seconds(read, path) for read in turns}
        pairs.append((took[here], took[there]))
    alone, with_it = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(second / first for first, second in pairs)
    return f"{alone:9.1f} {with_it:9.1f} {with_it - alone:+8.1f} {ratio:8.3f}"


def memory(there: Read, path: Path) -> str:
    """Return the memory of this process and of the child for an image."""
    us, before = psutil.Process(), psutil.Process().memory_full_info()
    image = there(path)
    image.sum()
    (child,) = us.children()
    held = us.memory_full_info().rss - before.rss - image.nbytes
    kept = child.memory_full_info()
    status = Path(f"/proc/{child.pid}/status").read_text("ascii")
    most = int(status.split("VmHWM:")[1].split()[0]) << 10
    return (
        f"gateway {held / MB:+.1f} MB beside the {image.nbytes / MB:.1f} MB of pixels; its process "
        f"took {most / MB:.0f} MB at most and keeps {kept.uss / MB:.1f} MB of its own, "
        f"{kept.pss / MB:.1f} MB with its share of libraries"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    tune()
    with tempfile.TemporaryDirectory() as name, Decoders() as decoders:

        def there(path: Path) -> Image:
            return apart(decoders, path)

        paths = []
        for height, width in (SMALL, LARGE):
            for suffix in (".jpg", ".png"):
                paths.append(Path(name) / f"{width}x{height}{suffix}")
                files.write(paths[-1], photograph(height, width))
        print(f"the first file, with the start of the process: {seconds(there, paths[0]):.2f} s")
        print("                 here ms  apart ms     more    ratio")
        for path in paths:
            rounds = options.rounds * (1 if str(LARGE[0]) in path.name else 8)
            print(f"{path.name:14} {row(path, there, rounds)}", flush=True)
        print(memory(there, paths[-1]))


if __name__ == "__main__":
    main()
