"""Where two images differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fogmqtt.core.geometry import Rect
from fogmqtt.images.spec import Image


@dataclass(frozen=True, slots=True)
class Difference:
    """Pixels that differ in any channel, bit for bit."""

    pixels: int
    #: The smallest rectangle that holds them; None where there are none.
    where: Rect | None
    #: (height, width) uint8: 255 where they differ; None where there are none.
    picture: Image | None


NONE = Difference(0, None, None)


def difference(image: Image, expected: Image) -> Difference:
    """Compare two images; all pixels differ where shape or dtype do."""
    height, width = expected.shape[:2]
    if image.shape != expected.shape or image.dtype != expected.dtype:
        everywhere = np.full((height, width), 255, np.uint8)
        return Difference(height * width, Rect(0, 0, height, width), everywhere)
    if _same(image, expected):
        return NONE
    rows = [_row(image[row], expected[row]) for row in range(height)]
    picture = np.stack(rows) * np.uint8(255)
    down, across = np.flatnonzero(picture.any(axis=1)), np.flatnonzero(picture.any(axis=0))
    top, left = int(down[0]), int(across[0])
    where = Rect(top, left, int(down[-1]) - top + 1, int(across[-1]) - left + 1)
    return Difference(int(np.count_nonzero(picture)), where, picture)


def _same(image: Image, expected: Image) -> bool:
    # By rows: comparing the whole would need the image's memory again.
    return not any(_row(image[row], expected[row]).any() for row in range(len(expected)))


def _row(row: Image, expected: Image) -> Image:
    bits = f"u{row.dtype.itemsize}"  # as integers: NaN equals itself, -0 is not 0
    differs: Image = row.view(bits) != expected.view(bits)
    return np.logical_or.reduce(differs, axis=1) if differs.ndim == 2 else differs
