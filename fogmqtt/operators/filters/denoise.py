"""Smoothing that keeps edges. These operators cost the most and gain the most from many devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import FLOAT_ALIGN, Operator, Samples, build_dependent


@dataclass(frozen=True)
class Bilateral(Operator):
    """Edge-preserving smoothing by `cv2.bilateralFilter(image, d, color, space)`.

    The bilateral filter of Tomasi and Manduchi, 1998.

    Takes uint8 of 1 or 3 channels and keeps both. float32 is not accepted, because OpenCV's weights
    then depend on the range of the whole image. The border is reflected. Float arithmetic, without
    IPP: exact only between devices with the same OpenCV build and kind of processor.

    Parameters
    ----------
    d : int
        Diameter of the neighbourhood in pixels, 1 to 101; 0 derives it from space. Halo d // 2; for
        d=0, 1.5 * space, rounded; at least 1.
    color : float
        Standard deviation of the weights by difference of values, over 0 to 1000.
    space : float
        Standard deviation of the weights by distance, over 0 to 100 pixels.
    """

    name: ClassVar[str] = "bilateral"
    exactness: ClassVar[str] = build_dependent("float arithmetic,")
    samples: ClassVar[Samples] = ({}, {"d": 5, "color": 30.0})
    align: ClassVar[int] = FLOAT_ALIGN

    d: int = 9
    color: float = 75.0
    space: float = 75.0

    def __post_init__(self) -> None:
        self._require(0 <= self.d <= 101, "d", "expected 0 to 101 pixels")
        self._require(0 < self.color <= 1000, "color", "expected over 0, to 1000")
        self._require(0 < self.space <= 100, "space", "expected over 0, to 100 pixels")

    @property
    def halo(self) -> int:
        # OpenCV uses a radius of at least 1 for every d.
        return max(self.d // 2 if self.d else round(1.5 * self.space), 1)

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",), channels=(1, 3))
        return spec

    def process(self, image: Image) -> Image:
        return cv2.bilateralFilter(image, self.d, self.color, self.space)


@dataclass(frozen=True)
class Denoise(Operator):
    """Non-local means by `cv2.fastNlMeansDenoising`, for colour `fastNlMeansDenoisingColored`.

    The algorithm of Buades, Coll and Morel, 2011.

    Takes uint8 of 1 or 3 channels, or uint16 of 1 channel (compared by absolute differences,
    `NORM_L1`), and keeps both. Halo template // 2 + search // 2. The border is reflected. Exact,
    the same on all devices.

    Parameters
    ----------
    h : float
        Filter strength, over 0 to 1000 steps of the dtype.
    color : float
        Filter strength for the colour components of a colour image, over 0 to 1000 steps.
    template : int
        Side of the patches that are compared, in pixels, odd, 1 to 21.
    search : int
        Side of the area that is searched, in pixels, odd, 1 to 61.
    """

    name: ClassVar[str] = "denoise"
    samples: ClassVar[Samples] = ({"h": 10.0, "color": 10.0, "search": 9},)

    h: float = 3.0
    color: float = 3.0
    template: int = 7
    search: int = 21

    def __post_init__(self) -> None:
        for strength in ("h", "color"):
            self._require(0 < getattr(self, strength) <= 1000, strength, "expected over 0, to 1000")
        for side, most in (("template", 21), ("search", 61)):
            value = getattr(self, side)
            valid = value % 2 == 1 and 1 <= value <= most
            self._require(valid, side, f"expected an odd number from 1 to {most}")

    @property
    def halo(self) -> int:
        return self.template // 2 + self.search // 2

    def output(self, spec: Spec) -> Spec:
        if spec.dtype == "uint16":
            self._accept(spec, channels=(1,))
        self._accept(spec, dtypes=("uint8", "uint16"), channels=(1, 3))
        return spec

    def process(self, image: Image) -> Image:
        sides = self.template, self.search
        if image.ndim == 3:
            return cv2.fastNlMeansDenoisingColored(image, None, self.h, self.color, *sides)
        done = np.empty_like(image)
        norm = cv2.NORM_L2 if image.dtype == np.uint8 else cv2.NORM_L1
        return cv2.fastNlMeansDenoising(image, [self.h], done, *sides, norm)
