"""Colours as they would be under white light."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator, learned, require_prepared
from fogmqtt.operators.colour.tone import apply_curve


@dataclass(frozen=True)
class WhiteBalance(Operator):
    """Gray world: each channel scaled so that all have the same mean over the whole image.

    Takes uint8 or uint16 of 3 channels and keeps both. Halo 0; the means are the whole image's.
    Whole is defined here, for OpenCV has no such function in its main modules: a value x of a
    channel with mean m becomes x * (mean of the three m) / m in float64, rounded half to even
    and clipped. Exact, the same on all devices.
    """

    name: ClassVar[str] = "whitebalance"
    exactness: ClassVar[str] = "whole is defined here, in float64; OpenCV has no such function"
    begins_stage: ClassVar[bool] = True

    #: Of each channel; what it is multiplied by.
    gains: tuple[float, ...] | None = learned()

    def __post_init__(self) -> None:
        fine = self.gains is None or (len(self.gains) == 3 and min(self.gains) >= 0)
        self._require(fine, "gains", "expected three factors of at least 0")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16"), channels=(3,))
        return spec

    def prepare(self, image: Image, original: Image) -> Self:
        del original
        sums = cv2.sumElems(image)[:3]  # whole numbers, so float64 is exact
        mean = sum(sums) / 3
        return replace(self, gains=tuple(mean / one if one else 1.0 for one in sums))

    def process(self, image: Image) -> Image:
        """Raises OperatorError unless `prepare` was called."""
        gains = require_prepared(self, self.gains)
        channels = zip(cv2.split(image), gains, strict=True)
        return cv2.merge([_scaled(channel, gain) for channel, gain in channels])


def _scaled(channel: Image, gain: float) -> Image:
    return apply_curve(channel, lambda values: np.multiply(values, gain))
