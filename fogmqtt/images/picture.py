"""Converts any image to 8-bit colour for display."""

from __future__ import annotations

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image


def as_colour(image: Image) -> Image:
    """Return a (height, width, 3) uint8 BGR copy of an image of any dtype.

    16-bit values are cut to their upper 8 bits. Floats are scaled from 0 to 1. Of signed integers
    the absolute value counts, up to 255.
    """
    eight = _as_eight_bits(image)
    return cv2.cvtColor(eight, cv2.COLOR_GRAY2BGR) if eight.ndim == 2 else eight.copy()


def _as_eight_bits(image: Image) -> Image:
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    if image.dtype.kind == "f":
        return (np.nan_to_num(image).clip(0, 1) * 255).astype(np.uint8)
    return np.abs(image.astype(np.int64)).clip(0, 255).astype(np.uint8)
