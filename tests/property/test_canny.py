"""Canny in tiles is cv2.Canny of the whole image, bit for bit, in thousands of cases."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from fogmqtt.core.geometry import Grid, Size, cut
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import pipeline
from fogmqtt.operators.api.base import PasteMerger
from fogmqtt.operators.api.pipeline import Stage
from fogmqtt.operators.edges.canny import Canny
from tests.tiling import run_stage, tiled

#: Aperture → rough factor of the derivatives of its Sobel kernel.
_SCALE = {3: 1, 5: 16, 7: 256}


@dataclass(frozen=True)
class Case:
    image: Image
    operator: Canny
    plan: Size | Grid


def expected(case: Case) -> Image:
    operator = case.operator
    return cv2.Canny(
        case.image,
        operator.low,
        operator.high,
        apertureSize=operator.aperture,
        L2gradient=operator.l2,
    )


def spiral(side: int, faint: int) -> Image:
    """Two lines that wind outwards from the centre, strong there and faint after a few turns."""
    y, x = np.mgrid[:side, :side] - side / 2
    radius = np.hypot(y, x)
    arms = np.sin(np.arctan2(y, x) - radius * 2 * np.pi / 12)
    return (128 + np.maximum(faint, 120 - 4 * radius) * arms).astype(np.uint8)


def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Image:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def random_image(rng: np.random.Generator) -> Image:
    height, width = (int(side) for side in rng.integers(1, 64, 2))
    shape = (height, width, 3) if rng.random() < 0.4 else (height, width)
    match rng.integers(6):
        case 0:
            return noise(rng, shape)
        case 1:
            return np.full(shape, rng.integers(256), np.uint8)
        case 2:
            return np.add.outer(np.arange(height) * 3, np.arange(width) * 2).astype(np.uint8)
        case 3:
            return spiral(max(height, width), int(rng.integers(10, 60)))[:height, :width].copy()
    smooth = cv2.GaussianBlur(noise(rng, shape), (0, 0), float(rng.uniform(0.6, 3)))
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX)


def magnitude_in(rng: np.random.Generator, image: Image, operator: Canny) -> float:
    """Return the magnitude of a random pixel of the image."""
    channel = np.ascontiguousarray(image if image.ndim == 2 else image[..., 0])
    scale = 1 / 16 if operator.aperture == 7 else 1.0
    dx, dy = (
        cv2.Sobel(
            channel,
            cv2.CV_16S,
            *order,
            ksize=operator.aperture,
            scale=scale,
            borderType=cv2.BORDER_REPLICATE,
        ).astype(np.float64)
        for order in ((1, 0), (0, 1))
    )
    magnitude = np.hypot(dx, dy) if operator.l2 else abs(dx) + abs(dy)
    return float(rng.choice(magnitude.ravel())) / scale


def random_threshold(rng: np.random.Generator, image: Image, operator: Canny) -> float:
    match rng.integers(8):
        case 0:
            return 0.0
        case 1:
            return -float(rng.integers(1, 300))
        case 2 | 3 | 4:
            return magnitude_in(rng, image, operator)
    return float(rng.uniform(0, 250)) * _SCALE[operator.aperture]


def random_plan(rng: np.random.Generator, image: Image) -> Size | Grid:
    height, width = image.shape[:2]
    rows, columns = int(rng.integers(1, 6)), int(rng.integers(1, 6))
    if rng.random() < 0.5:
        return Grid(min(rows, height), min(columns, width))
    # Some of these tiles are smaller than the halo, and the last ones may be one pixel wide.
    return Size(-(-height // rows) + 1, -(-width // columns))


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    image = random_image(rng)
    operator = Canny(aperture=int(rng.choice((3, 5, 7))), l2=bool(rng.integers(2)))
    low = random_threshold(rng, image, operator)
    high = low if rng.random() < 0.15 else random_threshold(rng, image, operator)
    return Case(image, replace(operator, low=low, high=high), random_plan(rng, image))


@pytest.mark.parametrize("block", range(8))
def test_tiles_equal_the_whole_in_random_cases(block: int) -> None:
    for seed in range(block * 200, block * 200 + 200):
        case = random_case(seed)
        got = tiled((case.operator,), case.image, case.plan)
        assert np.array_equal(got, expected(case)), f"seed {seed}: {case.operator}, {case.plan}"


@pytest.mark.parametrize("plan", [Grid(1, 3), Grid(3, 1), Grid(7, 5), Size(17, 31), Size(8, 300)])
def test_a_spiral_that_is_strong_at_its_centre_crosses_every_seam(plan: Size | Grid) -> None:
    image = spiral(301, 20)
    case = Case(image, Canny(low=20, high=250), plan)
    whole = expected(case)
    assert np.count_nonzero(whole) > 10_000
    assert np.array_equal(tiled((case.operator,), image, plan), whole)


def test_an_image_larger_than_the_flood_s_blocks_is_exact() -> None:
    rng = np.random.default_rng(7)
    image = cv2.GaussianBlur(noise(rng, (700, 900)), (0, 0), 2.5)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    case = Case(image, Canny(low=40, high=330), Size(97, 113))
    assert np.array_equal(tiled((case.operator,), image, case.plan), expected(case))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tile_of_one_pixel_is_exact(channels: int) -> None:
    rng = np.random.default_rng(3)
    image = noise(rng, (9, 11) if channels == 1 else (9, 11, 3))
    for aperture in (3, 5, 7):
        high = 300.0 * _SCALE[aperture]
        case = Case(image, Canny(low=high / 4, high=high, aperture=aperture), Size(1, 1))
        assert np.array_equal(tiled((case.operator,), image, case.plan), expected(case))


# These tests break the method on purpose: the tests above must be able to fail.


def stage_with(case: Case) -> Stage:
    return pipeline.split_stages((case.operator,), Spec.of(case.image))[0]


def test_a_halo_one_pixel_smaller_would_be_noticed() -> None:
    def holds(seed: int) -> bool:
        case = random_case(seed)
        stage = stage_with(case)
        tiles = cut(case.image.shape[:2], case.plan, halo=stage.halo - 1)
        return np.array_equal(run_stage(stage, stage.operators, case.image, tiles), expected(case))

    assert not all(holds(seed) for seed in range(100))


def test_a_merge_that_does_not_flood_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def paste_merger(self: Canny, output: Spec) -> PasteMerger:
        return PasteMerger(output)

    monkeypatch.setattr(Canny, "merger", paste_merger)

    def holds(seed: int) -> bool:
        case = random_case(seed)
        states = tiled((case.operator,), case.image, case.plan)
        return np.array_equal(np.where(states == 255, 255, 0), expected(case))

    assert not all(holds(seed) for seed in range(100))
