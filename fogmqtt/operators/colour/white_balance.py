"""White balance."""

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
    """White balance by the gray-world assumption: all channels get the same mean.

    Takes uint8 or uint16 of 3 channels and keeps both. Halo 0; the means are those of the whole
    image. fogmqtt defines the result, because OpenCV's main modules have no such function: a value
    x of a channel with mean m becomes x * (mean of the three m) / m in float64, rounded half to
    even and clipped. Exact, the same on all devices.
    """

    name: ClassVar[str] = "whitebalance"
    exactness: ClassVar[str] = "defined by fogmqtt, in float64; OpenCV has no such function"
    begins_stage: ClassVar[bool] = True

    #: The factor of each channel.
    gains: tuple[float, ...] | None = learned()

    def __post_init__(self) -> None:
        valid = self.gains is None or (len(self.gains) == 3 and min(self.gains) >= 0)
        self._require(valid, "gains", "expected three factors of at least 0")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16"), channels=(3,))
        return spec

    def prepare(self, image: Image, original: Image) -> Self:
        del original
        sums = cv2.sumElems(image)[:3]  # sums of integers, which float64 holds exactly
        mean = sum(sums) / 3
        return replace(self, gains=tuple(mean / one if one else 1.0 for one in sums))

    def process(self, image: Image) -> Image:
        """Return the result for a tile. Raises OperatorError unless `prepare` was called."""
        gains = require_prepared(self, self.gains)
        channels = zip(cv2.split(image), gains, strict=True)
        return cv2.merge([_multiplied(channel, gain) for channel, gain in channels])


def _multiplied(channel: Image, gain: float) -> Image:
    return apply_curve(channel, lambda values: np.multiply(values, gain))
