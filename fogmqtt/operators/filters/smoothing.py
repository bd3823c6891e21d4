"""Smoothing filters. For 8 and 16 bits they use integer arithmetic, which is exact in tiles of any
size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fogmqtt.errors import OperatorError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator, Samples, build_dependent

_LARGEST = 255
#: For these kernels and a sigma that OpenCV derives itself, OpenCV 5 on ARM runs other code, which
#: rounds otherwise and is not used for images smaller than the kernel. With a given sigma it is not
#: used at all. These are the sigmas that OpenCV derives, so that other processors give the same.
_DERIVED_SIGMAS = {15: 2.6, 21: 3.5}


@dataclass(frozen=True)
class Gaussian(Operator):
    """Gaussian blur by `cv2.GaussianBlur(image, (ksize, ksize), sigma)`.

    Takes uint8, uint16 or float32 of any channel count and keeps both. The border is reflected.
    Exact; uint8 and uint16 use integer arithmetic and are the same on all devices, float32 only
    between devices with the same OpenCV build and kind of processor.

    Parameters
    ----------
    ksize : int
        Side of the kernel in pixels, odd, 1 to 255; 0 derives it from sigma. Halo ksize // 2; for
        ksize=0, about 4 * sigma.
    sigma : float
        Standard deviation, 0 to 31 pixels; 0 derives it from ksize.
    """

    name: ClassVar[str] = "gaussian"
    exactness: ClassVar[str] = build_dependent("float32")
    samples: ClassVar[Samples] = (
        {},
        {"ksize": 3},
        {"ksize": 7, "sigma": 1.5},
        {"ksize": 31},
        {"ksize": 0, "sigma": 1.4},
        *({"ksize": ksize} for ksize in _DERIVED_SIGMAS),
    )

    ksize: int = 5
    sigma: float = 0.0

    def __post_init__(self) -> None:
        odd = self.ksize % 2 == 1 and 1 <= self.ksize <= _LARGEST
        self._require(odd or self.ksize == 0, "ksize", "expected an odd number from 1 to 255, or 0")
        self._require(0 <= self.sigma <= 31, "sigma", "expected 0 to 31 pixels")
        self._require(bool(self.ksize or self.sigma), "sigma", "ksize=0 needs a sigma over 0")

    @property
    def halo(self) -> int:
        # For ksize 0, OpenCV's radius is 3 sigmas for 8 bits and 4 for other dtypes. The larger
        # one is sufficient for both.
        return (self.ksize or round(8 * self.sigma + 1) | 1) // 2

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16", "float32"))
        return spec

    def process(self, image: Image) -> Image:
        sigma = self.sigma or _DERIVED_SIGMAS.get(self.ksize, 0.0)
        return cv2.GaussianBlur(image, (self.ksize, self.ksize), sigma)


@dataclass(frozen=True)
class Blur(Operator):
    """Mean of a square of pixels by `cv2.blur(image, (ksize, ksize))`.

    Takes uint8, or uint16 up to ksize 9, of any channel count and keeps both. float32 is not
    accepted, because OpenCV's running sums depend on the pixels left of the tile. The border is
    reflected. Exact, the same on all devices.

    Parameters
    ----------
    ksize : int
        Side of the square in pixels, odd, 1 to 127. Halo ksize // 2.
    """

    # OpenCV divides by ksize² in float32 or in float64, depending on the column. Both round to the
    # same integer unless the quotient is closer to a half than float32 resolves. For an even ksize
    # it can be exactly a half. For an odd ksize it is at least 0.5 / ksize² away from a half, which
    # is sufficient within the accepted range.

    name: ClassVar[str] = "blur"
    samples: ClassVar[Samples] = ({}, {"ksize": 3}, {"ksize": 31})

    ksize: int = 5

    def __post_init__(self) -> None:
        valid = self.ksize % 2 == 1 and 1 <= self.ksize <= 127
        self._require(valid, "ksize", "expected an odd number from 1 to 127")

    @property
    def halo(self) -> int:
        return self.ksize // 2

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16"))
        if spec.dtype == "uint16" and self.ksize > 9:
            raise OperatorError(f"{self} takes uint16 up to ksize=9 only; put 'to8bit' before it")
        return spec

    def process(self, image: Image) -> Image:
        return cv2.blur(image, (self.ksize, self.ksize))


@dataclass(frozen=True)
class Median(Operator):
    """Median of a square of pixels by `cv2.medianBlur(image, ksize)`.

    Takes uint8, or uint16 and float32 up to ksize 5, of 1, 3 or 4 channels and keeps both. The
    border is repeated. Exact, the same on all devices.

    Parameters
    ----------
    ksize : int
        Side of the square in pixels, odd, 3 to 255. Halo ksize // 2.
    """

    name: ClassVar[str] = "median"
    samples: ClassVar[Samples] = ({}, {"ksize": 3}, {"ksize": 9})

    ksize: int = 5

    def __post_init__(self) -> None:
        valid = self.ksize % 2 == 1 and 3 <= self.ksize <= _LARGEST
        self._require(valid, "ksize", "expected an odd number from 3 to 255")

    @property
    def halo(self) -> int:
        return self.ksize // 2

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16", "float32"), channels=(1, 3, 4))
        if spec.dtype != "uint8" and self.ksize > 5:
            raise OperatorError(
                f"{self} takes {spec.dtype} up to ksize=5 only; put 'to8bit' before it"
            )
        return spec

    def process(self, image: Image) -> Image:
        return cv2.medianBlur(image, self.ksize)
