"""Where two images differ."""

from __future__ import annotations

import numpy as np

from fogmqtt.images.spec import Image


def differing(image: Image, expected: Image) -> int:
    """How many pixels differ in any channel, bit for bit; all of them where the shapes differ."""
    if image.shape != expected.shape or image.dtype != expected.dtype:
        return int(expected.shape[0] * expected.shape[1])
    # By rows: a difference of the whole would need the image's memory again.
    return sum(_row(image[row], expected[row]) for row in range(image.shape[0]))


def _row(row: Image, expected: Image) -> int:
    bits = f"u{row.dtype.itemsize}"  # as integers: NaN equals itself, -0 is not 0
    differs = row.view(bits) != expected.view(bits)
    if differs.ndim == 2:
        differs = differs.any(axis=1)
    return int(np.count_nonzero(differs))
