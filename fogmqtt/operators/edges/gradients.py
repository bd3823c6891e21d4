"""Derivatives: Sobel, Scharr, Prewitt and Laplacian."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import FLOAT_ALIGN, Operator, Samples, build_dependent

_DTYPES = ("uint8", "uint16", "float32")


@dataclass(frozen=True)
class _Derivative(Operator):
    """Base of the derivatives: int16 holds those of uint8, float32 those of other dtypes."""

    exactness: ClassVar[str] = build_dependent("float32")

    def alignment(self, spec: Spec) -> int:
        return 1 if spec.dtype == "uint8" else FLOAT_ALIGN

    def process(self, image: Image) -> Image:
        depth = cv2.CV_16S if image.dtype == np.uint8 else cv2.CV_32F
        derivative = self._derivative(image, depth)
        if not self._magnitude:
            return derivative
        if image.dtype == np.uint8:
            return cv2.convertScaleAbs(derivative)
        magnitude = np.abs(derivative)
        if image.dtype == np.uint16:
            return np.minimum(magnitude, np.float32(65535)).astype(np.uint16)
        return magnitude

    @property
    def _magnitude(self) -> bool:
        raise NotImplementedError

    def _derivative(self, image: Image, depth: int) -> Image:
        raise NotImplementedError

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=_DTYPES)
        if self._magnitude:
            return spec
        return replace(spec, dtype="int16" if spec.dtype == "uint8" else "float32")


@dataclass(frozen=True)
class Sobel(_Derivative):
    """Derivative by `cv2.Sobel(image, depth, dx, dy, ksize=ksize)`.

    Takes uint8, uint16 or float32 of any channel count. The result is the magnitude in the same
    dtype, clipped to its range (`cv2.convertScaleAbs` for uint8); with `absolute=false` it is the
    signed value, int16 for uint8 and float32 for the others. The border is reflected. Exact; for
    float32 only between devices with the same OpenCV build and kind of processor.

    Parameters
    ----------
    dx, dy : int
        Order of the horizontal and of the vertical derivative, 0 to 2, not both 0, less than ksize.
    ksize : int
        Side of the kernel in pixels: 1, 3, 5 or 7. Halo ksize // 2, at least 1.
    absolute : bool
        Whether the result is the magnitude.
    """

    name: ClassVar[str] = "sobel"
    samples: ClassVar[Samples] = (
        {},
        {"dx": 0, "dy": 1, "absolute": False},
        {"dx": 2, "ksize": 1, "absolute": False},
        {"dy": 1, "ksize": 5},
        {"ksize": 7},
    )

    dx: int = 1
    dy: int = 0
    ksize: int = 3
    absolute: bool = True

    def __post_init__(self) -> None:
        self._require(self.ksize in (1, 3, 5, 7), "ksize", "expected 1, 3, 5 or 7")
        # For ksize 1, OpenCV uses a kernel of 3 pixels along the derivative.
        most = min(2, max(self.ksize, 3) - 1)
        for order in ("dx", "dy"):
            self._require(0 <= getattr(self, order) <= most, order, f"expected 0 to {most}")
        self._require(self.dx + self.dy > 0, "dx", "dx and dy cannot both be 0")

    @property
    def halo(self) -> int:
        return max(self.ksize // 2, 1)

    @property
    def _magnitude(self) -> bool:
        return self.absolute

    def _derivative(self, image: Image, depth: int) -> Image:
        return cv2.Sobel(image, depth, self.dx, self.dy, ksize=self.ksize)


@dataclass(frozen=True)
class _FirstDerivative(_Derivative):
    """Base of the first derivatives with a kernel of 3 x 3 pixels."""

    samples: ClassVar[Samples] = ({}, {"dx": 0, "dy": 1, "absolute": False})

    dx: int = 1
    dy: int = 0
    absolute: bool = True

    def __post_init__(self) -> None:
        for order in ("dx", "dy"):
            self._require(getattr(self, order) in (0, 1), order, "expected 0 or 1")
        self._require(self.dx + self.dy == 1, "dx", "expected dx=1 dy=0 or dx=0 dy=1")

    @property
    def halo(self) -> int:
        return 1

    @property
    def _magnitude(self) -> bool:
        return self.absolute


@dataclass(frozen=True)
class Scharr(_FirstDerivative):
    """First derivative by `cv2.Scharr(image, depth, dx, dy)`, with weights 3, 10, 3.

    Takes uint8, uint16 or float32 of any channel count. The result is the magnitude in the same
    dtype, clipped to its range (`cv2.convertScaleAbs` for uint8); with `absolute=false` it is the
    signed value, int16 for uint8 and float32 for the others. Halo 1. The border is reflected.
    Exact; for float32 only between devices with the same OpenCV build and kind of processor.

    Parameters
    ----------
    dx, dy : int
        1 and 0 for the horizontal derivative, 0 and 1 for the vertical one.
    absolute : bool
        Whether the result is the magnitude.
    """

    name: ClassVar[str] = "scharr"

    def _derivative(self, image: Image, depth: int) -> Image:
        return cv2.Scharr(image, depth, self.dx, self.dy)


@dataclass(frozen=True)
class Prewitt(_FirstDerivative):
    """First derivative by `cv2.filter2D` with -1, 0, 1 in three equal rows.

    Takes uint8, uint16 or float32 of any channel count. The result is the magnitude in the same
    dtype, clipped to its range (`cv2.convertScaleAbs` for uint8); with `absolute=false` it is the
    signed value, int16 for uint8 and float32 for the others. Halo 1. The border is reflected.
    Exact; for float32 only between devices with the same OpenCV build and kind of processor.

    Parameters
    ----------
    dx, dy : int
        1 and 0 for the horizontal derivative, 0 and 1 for the vertical one.
    absolute : bool
        Whether the result is the magnitude.
    """

    name: ClassVar[str] = "prewitt"

    def _derivative(self, image: Image, depth: int) -> Image:
        kernel = np.array([[-1, 0, 1]] * 3, np.float32)
        return cv2.filter2D(image, depth, kernel if self.dx else kernel.T)


@dataclass(frozen=True)
class Laplacian(_Derivative):
    """Sum of the second derivatives by `cv2.Laplacian(image, depth, ksize=ksize)`.

    Takes uint8, uint16 or float32 of any channel count. The result is the magnitude in the same
    dtype, clipped to its range (`cv2.convertScaleAbs` for uint8); with `absolute=false` it is the
    signed value, int16 for uint8 and float32 for the others. The border is reflected. Exact; for
    float32 only between devices with the same OpenCV build and kind of processor.

    Parameters
    ----------
    ksize : int
        Side of the kernel in pixels: 1, 3, 5 or 7. Halo ksize // 2, at least 1.
    absolute : bool
        Whether the result is the magnitude.
    """

    name: ClassVar[str] = "laplacian"
    samples: ClassVar[Samples] = ({}, {"ksize": 1, "absolute": False}, {"ksize": 5})

    ksize: int = 3
    absolute: bool = True

    def __post_init__(self) -> None:
        self._require(self.ksize in (1, 3, 5, 7), "ksize", "expected 1, 3, 5 or 7")

    @property
    def halo(self) -> int:
        return max(self.ksize // 2, 1)

    @property
    def _magnitude(self) -> bool:
        return self.absolute

    def _derivative(self, image: Image, depth: int) -> Image:
        return cv2.Laplacian(image, depth, ksize=self.ksize)
