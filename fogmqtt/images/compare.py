"""Compares two images bit for bit."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from fogmqtt.core.geometry import Rect
from fogmqtt.images.spec import Image


class Difference(Struct, frozen=True):
    """The pixels that differ in any channel, bit for bit."""

    #: The number of pixels that differ.
    pixels: int
    #: The smallest rectangle around them, or None if no pixel differs.
    where: Rect | None
    #: A (height, width) uint8 mask, 255 where pixels differ, or None if no pixel differs.
    picture: Image | None


NO_DIFFERENCE = Difference(0, None, None)


def difference(image: Image, expected: Image) -> Difference:
    """Compare two images. If shape or dtype differ, all pixels of `expected` count as different."""
    height, width = expected.shape[:2]
    if image.shape != expected.shape or image.dtype != expected.dtype:
        everywhere = np.full((height, width), 255, np.uint8)
        return Difference(height * width, Rect(0, 0, height, width), everywhere)
    if _same(image, expected):
        return NO_DIFFERENCE
    rows = [_row(image[row], expected[row]) for row in range(height)]
    picture = np.stack(rows) * np.uint8(255)
    down, across = np.flatnonzero(picture.any(axis=1)), np.flatnonzero(picture.any(axis=0))
    top, left = int(down[0]), int(across[0])
    where = Rect(top, left, int(down[-1]) - top + 1, int(across[-1]) - left + 1)
    return Difference(int(np.count_nonzero(picture)), where, picture)


def _same(image: Image, expected: Image) -> bool:
    # Row by row: a comparison of the whole images would need the memory of another image.
    return not any(_row(image[row], expected[row]).any() for row in range(len(expected)))


def _row(row: Image, expected: Image) -> Image:
    bits = f"u{row.dtype.itemsize}"  # as integers, NaN equals itself and -0 differs from 0
    differs: Image = row.view(bits) != expected.view(bits)
    return np.logical_or.reduce(differs, axis=1) if differs.ndim == 2 else differs
