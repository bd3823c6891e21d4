"""Test images that are the same on every machine: integers only, without a random generator."""

from __future__ import annotations

import numpy as np

from fogmqtt.images.spec import Image, Spec

# Vector code takes 8, 16, 32 or 64 pixels at once, and the remainder of a row may round otherwise.
# Which pixels remain depends on the processor. Widths of 63 modulo 64 leave the longest remainder
# for each of these numbers, so no two of them have the same one.

#: Height and width, pixels.
SMALL = (97, 191)
#: For arithmetic that rounds differently in one pixel of 100 000.
LARGE = (387, 511)
#: Rows that are too short for some vectors, which other code may compute from end to end.
NARROW = ((33, 31), (33, 63), (33, 127))

_LARGEST = 0xFFFF


def reference_image(spec: Spec) -> Image:
    """Return a test image of `spec`.

    The upper third of the rows is noise, the middle third slopes, the lower third edges with both.
    Integers span their dtype; floats are from -0.25 to 1.25.
    """
    values = _values(spec.height, spec.width, spec.channels).reshape(spec.array_shape)
    if spec.dtype.startswith("float"):
        return (values * (1.5 / _LARGEST) - 0.25).astype(spec.dtype)
    kind = np.iinfo(np.dtype(spec.dtype))
    bits = kind.bits if kind.bits < 64 else 63
    scaled = values << (bits - 16) if bits >= 16 else values >> (16 - bits)
    return (scaled + kind.min).astype(spec.dtype)


def _values(height: int, width: int, channels: int) -> Image:
    """Return integers from 0 to 65535, (height, width, channels) int64."""
    row, column, channel = np.indices((height, width, channels), np.int64)
    noise = _hashed((row * width + column) * channels + channel)
    slope = row * 300 + column * 170 + channel * 9000
    edges = ((row // 11 + column // 17 + channel) % 2) * 39000 + 9000
    third = row * 3 // height
    soft = slope + noise // 512
    everything = edges + slope // 4 + noise // 32
    chosen = np.where(third == 0, noise, np.where(third == 1, soft % 65536, everything))
    return np.clip(chosen, 0, _LARGEST)


def _hashed(index: Image) -> Image:
    """Return a 16-bit hash of each number; products stay below 2 ** 63."""
    mixed = index
    for factor in (0x45D9F3B, 0x119DE1F3):
        mixed = ((mixed ^ (mixed >> 15)) * factor) & 0xFFFFFFFF
    hashed: Image = (mixed ^ (mixed >> 13)) & _LARGEST
    return hashed
