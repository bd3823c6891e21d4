"""Filters with given weights. Weights are whole numbers over a power of two, so sums are exact in
any order.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fogmqtt.errors import OperatorError, PipelineError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator, Samples
from fogmqtt.operators.filters.smoothing import Gaussian

_WEIGHTS = re.compile(r"-?\d{1,6}(,-?\d{1,6})*")
#: Number of weights → side. For larger kernels OpenCV uses the Fourier transform, whose rounding
#: depends on the tile.
_SIDES = {1: 1, 9: 3, 25: 5, 49: 7}
_DIVISORS = tuple(2**power for power in range(17))
#: The largest integer up to which float32 holds all, divided by the dtype's largest value.
_LARGEST_SUM = {"uint8": 2**24 // 255, "uint16": 2**24 // 65535}
_EXPECTED_AMOUNT = "expected 0.125 to 8 in steps of 0.125, so that sums are exact"


@dataclass(frozen=True)
class Kernel(Operator):
    """Correlation with a kernel of whole numbers over a power of two, by `cv2.filter2D`.

    Takes uint8 or uint16 of any channel count and keeps both. The kernel is not flipped. Results
    are rounded half to even and clipped. The border is reflected. Exact, the same on all devices:
    float32 holds every sum, because the sum of the weights' magnitudes is limited to 65793 for 8
    bits and 256 for 16 bits.

    Parameters
    ----------
    weights : str
        1, 9, 25 or 49 whole numbers of up to 6 digits, separated by commas, row by row:
        0,-1,0,-1,5,-1,0,-1,0. Halo: half the side of the kernel, rounded down.
    divisor : int
        Divisor of the sum: a power of two, 1 to 65536.
    offset : int
        Value that is added after the division, -255 to 255 steps of the dtype.
    """

    name: ClassVar[str] = "kernel"
    samples: ClassVar[Samples] = (
        {},
        {"weights": ",".join(("0123456789" * 5)[:49]), "divisor": 256},
    )

    weights: str = "0,-1,0,-1,5,-1,0,-1,0"
    divisor: int = 1
    offset: int = 0

    def __post_init__(self) -> None:
        valid = _WEIGHTS.fullmatch(self.weights) is not None
        self._require(valid, "weights", "expected whole numbers with commas between them")
        count = len(self.weights.split(","))
        self._require(count in _SIDES, "weights", f"expected 1, 9, 25 or 49 of them, not {count}")
        self._require(self.divisor in _DIVISORS, "divisor", "expected a power of 2 up to 65536")
        self._require(abs(self.offset) <= 255, "offset", "expected -255 to 255")

    @property
    def halo(self) -> int:
        return len(self._matrix()) // 2

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16"))
        total = int(np.abs(self._matrix()).sum()) + abs(self.offset) * self.divisor
        if total > _LARGEST_SUM[spec.dtype]:
            raise OperatorError(
                f"{self}: the weights' magnitudes and offset * divisor sum up to {total}, over "
                f"{_LARGEST_SUM[spec.dtype]}, where sums of {spec.dtype} are no longer exact"
            )
        return spec

    def process(self, image: Image) -> Image:
        kernel = (self._matrix() / self.divisor).astype(np.float32)
        return cv2.filter2D(image, -1, kernel, delta=self.offset)

    def _matrix(self) -> Image:
        weights = np.array([int(weight) for weight in self.weights.split(",")])
        return weights.reshape(math.isqrt(len(weights)), -1)


@dataclass(frozen=True)
class Sharpen(Operator):
    """Sharpening by `cv2.filter2D` with 1 + 4 * amount in the middle and -amount on its four sides.

    Takes uint8 or uint16 of any channel count and keeps both. Halo 1. The border is reflected.
    Exact, the same on all devices.

    Parameters
    ----------
    amount : float
        Strength, 0.125 to 8 in steps of 0.125.
    """

    name: ClassVar[str] = "sharpen"

    amount: float = 1.0

    def __post_init__(self) -> None:
        self._require(_is_in_eighths(self.amount), "amount", _EXPECTED_AMOUNT)

    @property
    def halo(self) -> int:
        return 1

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16"))
        return spec

    def process(self, image: Image) -> Image:
        side, middle = -self.amount, 1 + 4 * self.amount
        kernel = [[0, side, 0], [side, middle, side], [0, side, 0]]
        return cv2.filter2D(image, -1, np.array(kernel, np.float32))


@dataclass(frozen=True)
class Unsharp(Operator):
    """Unsharp mask: (1 + amount) * x - amount * `cv2.GaussianBlur` of x, by `cv2.addWeighted`.

    Takes uint8 or uint16 of any channel count and keeps both. The border is reflected.
    Exact, the same on all devices.

    Parameters
    ----------
    ksize : int
        Side of the Gaussian kernel in pixels, odd, 1 to 255; 0 derives it from sigma. Halo ksize //
        2; for ksize=0, about 4 * sigma.
    sigma : float
        Standard deviation, 0 to 31 pixels; 0 derives it from ksize.
    amount : float
        Strength, 0.125 to 8 in steps of 0.125.
    """

    name: ClassVar[str] = "unsharp"
    samples: ClassVar[Samples] = tuple({"amount": 0.625, **one} for one in Gaussian.samples)

    ksize: int = 5
    sigma: float = 0.0
    amount: float = 1.0

    def __post_init__(self) -> None:
        self._require(_is_in_eighths(self.amount), "amount", _EXPECTED_AMOUNT)
        try:
            self._blur()
        except PipelineError as problem:
            text = str(problem).removeprefix(f"{Gaussian.name}: ")
            raise PipelineError(f"{self.name}: {text}") from None

    @property
    def halo(self) -> int:
        return self._blur().halo

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16"))
        return spec

    def process(self, image: Image) -> Image:
        blurred = self._blur().process(image)
        return cv2.addWeighted(image, 1 + self.amount, blurred, -self.amount, 0)

    def _blur(self) -> Gaussian:
        return Gaussian(ksize=self.ksize, sigma=self.sigma)


def _is_in_eighths(amount: float) -> bool:
    return 0 < amount <= 8 and (amount * 8).is_integer()
