"""Measures exact Canny in tiles, as ratios to plain cv2.Canny on one thread in the same run.

    .venv/bin/python -m benchmarks.bench_canny [--megapixels 100] [IMAGE…]

Without images it makes one like a photograph: smooth shading, shapes, and some fine texture.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from fogmqtt.core.geometry import Grid, Rect, Seams, cut
from fogmqtt.images import codec
from fogmqtt.images.cv import cv2, one_thread
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.edges.canny import Canny, SeamMerger

OPERATOR = Canny()
ALL = Seams(top=True, left=True, bottom=True, right=True)


def best_of(work: Callable[[], object], rounds: int) -> float:
    """Seconds of CPU in the fastest round: others on the machine disturb these least."""
    seconds = []
    for _ in range(rounds):
        start = time.thread_time()
        work()
        seconds.append(time.thread_time() - start)
    return min(seconds)


def ratio(work: Callable[[], object], plain: Callable[[], object], rounds: int = 25) -> float:
    """Return the ratio of medians; both are measured in turn, with the same disturbances."""
    pairs = [(best_of(work, 1), best_of(plain, 1)) for _ in range(rounds)]
    return statistics.median(pair[0] for pair in pairs) / statistics.median(p[1] for p in pairs)


def photo_like(height: int, width: int) -> Image:
    rng = np.random.default_rng(1)
    image: Image = np.full((height, width, 3), 110, np.float32)
    for side, strength in ((4, 60), (32, 25), (256, 9)):
        coarse = rng.standard_normal((side, side, 3)).astype(np.float32)
        image += strength * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(height * width // 30_000):
        centre = int(rng.integers(width)), int(rng.integers(height))
        axes = int(rng.integers(5, 60)), int(rng.integers(5, 60))
        colour = [float(value) for value in rng.integers(0, 256, 3)]
        cv2.ellipse(image, centre, axes, float(rng.integers(360)), 0, 360, colour, -1, cv2.LINE_AA)
    image = cv2.GaussianBlur(image, (0, 0), 1.2)
    return np.clip(image, 0, 255).astype(np.uint8)


def gray_of(image: Image) -> Image:
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def to_megapixels(gray: Image, megapixels: float) -> Image:
    """Enlarge an image by mirroring: scaling would leave hardly any edges."""
    factor = (megapixels * 1e6 / gray.size) ** 0.5
    sides = [(0, max(0, round(side * factor) - side)) for side in gray.shape]
    return np.pad(gray, sides, mode="symmetric")


def bench_device(image: Image) -> None:
    """The device's work on a tile of 1 megapixel with all four seams."""
    tile = image[:1004, :1004].copy()
    core = Rect(2, 2, tile.shape[0] - 4, tile.shape[1] - 4)
    for kind, pixels in (("gray", gray_of(tile)), ("colour", tile)):
        cost = ratio(
            partial(OPERATOR.process_tile, pixels, core, ALL), partial(OPERATOR.process, pixels)
        )
        states = OPERATOR.process_tile(pixels, core, ALL)
        size = len(codec.encode(states, "bitplanes")) / states.size
        edges = 100 * np.count_nonzero(states == 255) / states.size
        print(f"  device, {kind:6} tile: {cost:.2f} x cv2.Canny; {edges:.1f} % edges")
        print(f"  bitplanes, {kind:6} tile: {size:.4f} bytes/px")


def bench_gateway(gray: Image, grid: Grid) -> None:
    """Decode, paste and resolve all tiles of a picture."""
    tiles = cut(gray.shape[:2], grid, halo=OPERATOR.halo)
    merger = SeamMerger(Spec.of(gray))
    plain = best_of(lambda: OPERATOR.process(gray), 3)
    device = decode = size = 0.0
    for tile in tiles:
        start = time.thread_time()
        core = tile.core.within(tile.outer)
        states = OPERATOR.process_tile(gray[tile.outer.slices], core, tile.seams)
        device += time.thread_time() - start
        data = codec.encode(states, "bitplanes")
        size += len(data)
        start = time.thread_time()
        merger.paste(tile, codec.decode(data, "bitplanes", (*states.shape, 1), "uint8"))
        decode += time.thread_time() - start
    resolve = best_of(merger.resolve, 1)
    finish = best_of(merger.finish, 1)
    assert np.array_equal(merger.finish(), OPERATOR.process(gray))
    megapixels, side = gray.size / 1e6, f"{grid.columns}x{grid.rows}"
    print(
        f"  {megapixels:.0f} MP in {side}: cv2.Canny {plain * 1e3:.0f} ms; "
        f"devices {device / plain:.2f} x, decode and paste {decode / plain:.2f} x, "
        f"resolve {resolve / plain:.3f} x, finish {finish / plain:.3f} x; "
        f"{size / gray.size:.4f} bytes/px"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("images", nargs="*", type=Path)
    parser.add_argument("--megapixels", type=float, default=12)
    options = parser.parse_args()
    one_thread()
    sources = {path.name: cv2.imread(str(path)) for path in options.images}
    for name, image in (sources or {"made": photo_like(2000, 3000)}).items():
        if image is None:
            parser.error(f"{name} is no image")
        print(name)
        bench_device(image)
        large = to_megapixels(gray_of(image), options.megapixels)
        for side in (3, 8, 16, 32):
            bench_gateway(large, Grid(side, side))


if __name__ == "__main__":
    main()
