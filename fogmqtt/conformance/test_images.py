"""Pictures that are the same on every machine: whole numbers only, from no library's generator."""

from __future__ import annotations

import numpy as np

from fogmqtt.images.spec import Image, Spec

#: Height and width, pixels: wide enough for vector code and for the tail of its rows.
SMALL = (97, 173)
#: Where one pixel in 100 000 may round differently.
LARGE = (387, 493)

_MOST = 0xFFFF


def reference_image(spec: Spec) -> Image:
    """Noise, slopes and edges: a third of the rows each, the last with all three.

    Integers span their dtype; floats are from -0.25 to 1.25.
    """
    values = _values(spec.height, spec.width, spec.channels).reshape(spec.array_shape)
    if spec.dtype.startswith("float"):
        return (values * (1.5 / _MOST) - 0.25).astype(spec.dtype)
    kind = np.iinfo(np.dtype(spec.dtype))
    bits = kind.bits if kind.bits < 64 else 63
    scaled = values << (bits - 16) if bits >= 16 else values >> (16 - bits)
    return (scaled + kind.min).astype(spec.dtype)


def _values(height: int, width: int, channels: int) -> Image:
    """Integers from 0 to 65535, int64, in three dimensions."""
    row, column, channel = np.indices((height, width, channels), np.int64)
    noise = _mixed((row * width + column) * channels + channel)
    slope = row * 300 + column * 170 + channel * 9000
    edges = ((row // 11 + column // 17 + channel) % 2) * 39000 + 9000
    third = row * 3 // height
    soft = slope + noise // 512
    everything = edges + slope // 4 + noise // 32
    chosen = np.where(third == 0, noise, np.where(third == 1, soft % 65536, everything))
    return np.clip(chosen, 0, _MOST)


def _mixed(index: Image) -> Image:
    """A hash of each number, 16 bits; products stay below 2 ** 63."""
    mixed = index
    for factor in (0x45D9F3B, 0x119DE1F3):
        mixed = ((mixed ^ (mixed >> 15)) * factor) & 0xFFFFFFFF
    hashed: Image = (mixed ^ (mixed >> 13)) & _MOST
    return hashed
