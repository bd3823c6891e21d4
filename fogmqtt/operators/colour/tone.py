"""Operators that change each value independently of all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator

#: A function of float64 values, applied to each value of an array.
Curve = Callable[[Image], Image]


def apply_curve(image: Image, curve: Curve) -> Image:
    """Return `curve` of each value of a uint8 or uint16 image, rounded half to even and clipped.

    The curve is computed once for each possible value, by numpy in float64, and looked up in a
    table. So the result has the same bits on every machine and at every position.
    """
    most = np.iinfo(image.dtype).max
    values = curve(np.arange(most + 1, dtype=np.float64))
    table = np.clip(np.rint(values), 0, most).astype(image.dtype)
    return cv2.LUT(image, table) if image.dtype == np.uint8 else table[image]


@dataclass(frozen=True)
class Invert(Operator):
    """Negative: 255 - x for uint8, 65535 - x for uint16.

    Takes uint8 or uint16 of any channel count and keeps both. Halo 0. Exact, the same on all
    devices.
    """

    name: ClassVar[str] = "invert"

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16"))
        return spec

    def process(self, image: Image) -> Image:
        return np.invert(image)


@dataclass(frozen=True)
class To8Bit(Operator):
    """Conversion to 8 bits; of 16 bits it keeps the high byte, as `cv2.imread` does.

    Takes uint8, uint16 or float32 of any channel count; the result is uint8. uint8 stays as it is.
    float32 values from 0 to 1 become 0 to 255, rounded half to even and clipped; NaN becomes 0.
    Halo 0. Exact, the same on all devices.
    """

    name: ClassVar[str] = "to8bit"
    reduces_bytes: ClassVar[bool] = True

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16", "float32"))
        return replace(spec, dtype="uint8")

    def process(self, image: Image) -> Image:
        if image.dtype == np.float32:
            # A plug-in may give NaN: it becomes black.
            scaled = np.nan_to_num(image * np.float32(255), nan=0)
            return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
        return image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)


@dataclass(frozen=True)
class ToFloat(Operator):
    """Conversion to float32 from 0 to 1: x / 255 for uint8, x / 65535 for uint16.

    Takes uint8, uint16 or float32 of any channel count; the result is float32. float32 stays as it
    is. Halo 0. Exact, the same on all devices. Write such a result as .tiff, or convert it with
    `to8bit`.
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
    """Gamma correction: (x / most) ** (1 / gamma) * most, by a table.

    Takes uint8 or uint16 of any channel count and keeps both; `most` is 255 or 65535. Halo 0.
    Exact, the same on all devices. fogmqtt defines the result, because OpenCV has no such function.
    The table is computed in float64 and rounded half to even.

    Parameters
    ----------
    gamma : float
        Exponent, 0.01 to 100; values over 1 brighten the mid-tones.
    """

    name: ClassVar[str] = "gamma"
    exactness: ClassVar[str] = (
        "defined by fogmqtt, by a table in float64; OpenCV has no such function"
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

    Takes uint8 or uint16 of any channel count and keeps both. Halo 0. Exact, the same on all
    devices. fogmqtt defines the result, because OpenCV has no such function. The table is computed
    in float64, rounded half to even and clipped.

    Parameters
    ----------
    contrast : float
        Factor, 0 to 100; 1 changes nothing.
    brightness : float
        Value that is added, -255 to 255 steps of 8 bits; for uint16 it is multiplied by 257.
    """

    name: ClassVar[str] = "adjust"
    exactness: ClassVar[str] = (
        "defined by fogmqtt, by a table in float64; OpenCV has no such function"
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
