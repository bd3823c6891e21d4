"""Smoothing that spares edges. What costs most and so gains most from many devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import FLOAT_ALIGN, Operator, Samples, build_dependent


@dataclass(frozen=True)
class Bilateral(Operator):
    """`cv2.bilateralFilter(image, d, color, space)`; the border reflects.

    Takes uint8 of 1 or 3 channels and keeps both; of float32, OpenCV's weights depend on the
    whole image's range, so it is not taken. Exact between devices of one kind, and never with
    IPP, which is off here: it is float arithmetic.

    Parameters
    ----------
    d : int
        Diameter in pixels, 1 to 101; 0 derives it from space. Halo d // 2.
    color : float
        Sigma of the values' distance, over 0 to 1000.
    space : float
        Sigma of the pixels' distance, over 0 to 100 pixels. For d=0 the halo is 1.5 * space,
        rounded, at least 1.
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
        # OpenCV makes the radius at least 1 whatever d is.
        return max(self.d // 2 if self.d else round(1.5 * self.space), 1)

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",), channels=(1, 3))
        return spec

    def process(self, image: Image) -> Image:
        return cv2.bilateralFilter(image, self.d, self.color, self.space)


@dataclass(frozen=True)
class Denoise(Operator):
    """Non-local means: `cv2.fastNlMeansDenoising`, `...Colored` for colour; the border reflects.

    Takes uint8 of 1 or 3 channels, or uint16 of 1 (by absolute distances, `NORM_L1`), and keeps
    both. Halo template // 2 + search // 2. Exact, the same on all devices.

    Parameters
    ----------
    h : float
        Strength, over 0 to 1000 steps of the dtype.
    color : float
        Strength for the colour parts of a colour image, over 0 to 1000.
    template : int
        Side of the patches that are compared, pixels, odd, 1 to 21.
    search : int
        Side of the area that is searched, pixels, odd, 1 to 61.
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
            fine = value % 2 == 1 and 1 <= value <= most
            self._require(fine, side, f"expected an odd number from 1 to {most}")

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
