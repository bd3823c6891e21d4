"""Operators on each value by itself, from what is written alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator

#: float64 to float64, each value by itself.
Curve = Callable[[Image], Image]


def apply_curve(image: Image, curve: Curve) -> Image:
    """What `curve` makes of each value, rounded half to even and clipped; uint8 or uint16.

    The curve runs once over all values that there can be, in float64 of numpy: the same bits on
    every machine, wherever the pixel lies.
    """
    most = np.iinfo(image.dtype).max
    values = curve(np.arange(most + 1, dtype=np.float64))
    table = np.clip(np.rint(values), 0, most).astype(image.dtype)
    return cv2.LUT(image, table) if image.dtype == np.uint8 else table[image]


@dataclass(frozen=True)
class Invert(Operator):
    """The negative: 255 - x, or 65535 - x for 16 bits.

    Takes uint8 or uint16 of any channel count and keeps both. Halo 0. Exact.
    """

    name: ClassVar[str] = "invert"

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16"))
        return spec

    def process(self, image: Image) -> Image:
        return np.invert(image)


@dataclass(frozen=True)
class To8Bit(Operator):
    """16 bits to 8 by the high byte, as `cv2.imread` does; an 8-bit image passes unchanged.

    Takes uint8, uint16 or float32 of any channel count, gives uint8; float32 from 0 to 1 becomes
    0 to 255, rounded half to even and clipped. Halo 0. Exact.
    """

    name: ClassVar[str] = "to8bit"
    reduces_bytes: ClassVar[bool] = True

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16", "float32"))
        return replace(spec, dtype="uint8")

    def process(self, image: Image) -> Image:
        if image.dtype == np.float32:
            # NaN, which an operator of others may give, is black.
            scaled = np.nan_to_num(image * np.float32(255), nan=0)
            return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
        return image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)


@dataclass(frozen=True)
class ToFloat(Operator):
    """Values from 0 to 1 in float32: x / 255, or x / 65535 for 16 bits.

    Takes uint8, uint16 or float32 of any channel count, gives float32; a float32 image passes
    unchanged. Halo 0. Exact. Write such results as .tiff, or go back with `to8bit`.
    """

    name: ClassVar[str] = "tofloat"

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16", "float32"))
        return replace(spec, dtype="float32")

    def process(self, image: Image) -> Image:
        if image.dtype == np.float32:
            return image
        return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


@dataclass(frozen=True)
class Gamma(Operator):
    """Brighter or darker mid-tones: (x / most) ** (1 / gamma) * most, by a table.

    Takes uint8 or uint16 of any channel count and keeps both. Halo 0. Exact; `most` is 255 or
    65535, and the table is float64, rounded half to even.

    Parameters
    ----------
    gamma : float
        0.01 to 100; over 1 is brighter.
    """

    name: ClassVar[str] = "gamma"
    exactness: ClassVar[str] = (
        "whole is defined here, by a table in float64; OpenCV has no such function"
    )

    gamma: float = 2.2

    def __post_init__(self) -> None:
        self._require(0.01 <= self.gamma <= 100, "gamma", "expected 0.01 to 100")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16"))
        return spec

    def process(self, image: Image) -> Image:
        most = np.iinfo(image.dtype).max
        return apply_curve(image, lambda values: (values / most) ** (1 / self.gamma) * most)


@dataclass(frozen=True)
class Adjust(Operator):
    """Contrast and brightness: contrast * x + brightness, by a table.

    Takes uint8 or uint16 of any channel count and keeps both. Halo 0. Exact; float64, rounded
    half to even and clipped.

    Parameters
    ----------
    contrast : float
        0 to 100; 1 leaves it.
    brightness : float
        -255 to 255, in steps of 8 bits; times 257 for 16 bits.
    """

    name: ClassVar[str] = "adjust"
    exactness: ClassVar[str] = (
        "whole is defined here, by a table in float64; OpenCV has no such function"
    )

    contrast: float = 1.0
    brightness: float = 0.0

    def __post_init__(self) -> None:
        self._require(0 <= self.contrast <= 100, "contrast", "expected 0 to 100")
        self._require(abs(self.brightness) <= 255, "brightness", "expected -255 to 255")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16"))
        return spec

    def process(self, image: Image) -> Image:
        added = self.brightness * (257 if image.dtype == np.uint16 else 1)
        return apply_curve(image, lambda values: values * self.contrast + added)
