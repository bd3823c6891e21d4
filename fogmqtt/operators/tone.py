"""Operators on each value by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.base import Operator


@dataclass(frozen=True)
class Invert(Operator):
    """The negative: 255 - x, or 65535 - x for 16 bits.

    Takes uint8 or uint16 of any channel count and keeps both. Halo 0.
    """

    name: ClassVar[str] = "invert"

    def output(self, spec: Spec) -> Spec:
        self._take(spec, dtypes=("uint8", "uint16"))
        return spec

    def process(self, image: Image) -> Image:
        return np.invert(image)


@dataclass(frozen=True)
class To8Bit(Operator):
    """16 bits to 8 by the high byte, as `cv2.imread` does; an 8-bit image passes unchanged.

    Takes uint8 or uint16 of any channel count, gives uint8. Halo 0.
    """

    name: ClassVar[str] = "to8bit"
    narrows: ClassVar[bool] = True

    def output(self, spec: Spec) -> Spec:
        self._take(spec, dtypes=("uint8", "uint16"))
        return replace(spec, dtype="uint8")

    def process(self, image: Image) -> Image:
        return image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)


@dataclass(frozen=True)
class Threshold(Operator):
    """`cv2.threshold`: `max` where a value is over `value`, else 0. Halo 0.

    Takes uint8 or uint16 of any channel count and keeps both.

    Parameters
    ----------
    value : float
        The bound itself counts as below, as in OpenCV; it is rounded down.
    max : float
        What the values above become, 0 or more; rounded to, and at most, the dtype's largest.
    inverse : bool
        `max` where a value is not over `value`.
    """

    name: ClassVar[str] = "threshold"

    value: float = 127.0
    max: float = 255.0
    inverse: bool = False

    def __post_init__(self) -> None:
        self._need(0 <= self.max <= 65535, "max", "expected 0 to 65535")
        self._need(abs(self.value) <= 65536, "value", "expected -65536 to 65536")

    def output(self, spec: Spec) -> Spec:
        self._take(spec, dtypes=("uint8", "uint16"))
        return spec

    def process(self, image: Image) -> Image:
        kind = cv2.THRESH_BINARY_INV if self.inverse else cv2.THRESH_BINARY
        return cv2.threshold(image, self.value, self.max, kind)[1]
