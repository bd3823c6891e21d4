"""Geometric operators: the same pixels at other places, and other sizes.

They run on the whole image, on the gateway. A device would send back every byte that it received,
and this transfer takes longer than moving the pixels in the gateway's memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from fogmqtt.errors import OperatorError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator

Axis = Literal["horizontal", "vertical", "both"]
Interpolation = Literal["auto", "linear", "area"]

_FLIPS = {"horizontal": 1, "vertical": 0, "both": -1}
_ROTATIONS = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}
#: Pixels of a side, and of a resized image.
_LARGEST_SIDE = 1_000_000
_MOST_PIXELS = 500_000_000


@dataclass(frozen=True)
class Flip(Operator):
    """Mirror image by `cv2.flip`.

    Takes any dtype and channel count and keeps both. Runs on the whole image, on the gateway.
    Exact.

    Parameters
    ----------
    axis : {"horizontal", "vertical", "both"}
        horizontal exchanges left and right, vertical exchanges top and bottom.
    """

    name: ClassVar[str] = "flip"
    tiled: ClassVar[bool] = False

    axis: Axis = "horizontal"

    def __post_init__(self) -> None:
        self._require(self.axis in _FLIPS, "axis", f"expected {', '.join(_FLIPS)}")

    def process(self, image: Image) -> Image:
        return cv2.flip(image, _FLIPS[self.axis])


@dataclass(frozen=True)
class Rotate(Operator):
    """Clockwise rotation by a multiple of 90° by `cv2.rotate`.

    Takes any dtype and channel count and keeps both. Runs on the whole image, on the gateway.
    Exact.

    Parameters
    ----------
    degrees : int
        Angle in degrees, clockwise: 90, 180 or 270.
    """

    name: ClassVar[str] = "rotate"
    tiled: ClassVar[bool] = False

    degrees: int = 90

    def __post_init__(self) -> None:
        self._require(self.degrees in _ROTATIONS, "degrees", "expected 90, 180 or 270")

    def output(self, spec: Spec) -> Spec:
        if self.degrees == 180:
            return spec
        return replace(spec, height=spec.width, width=spec.height)

    def process(self, image: Image) -> Image:
        return cv2.rotate(image, _ROTATIONS[self.degrees])


@dataclass(frozen=True)
class Crop(Operator):
    """A rectangle of the image.

    Takes any dtype and channel count and keeps both. Runs on the whole image, on the gateway.
    Exact.

    Parameters
    ----------
    left, top : int
        Column and row of the rectangle's first pixel, 0 to 1000000.
    width, height : int
        Size in pixels, 1 to 1000000; 0 extends to the image's border.
    """

    name: ClassVar[str] = "crop"
    tiled: ClassVar[bool] = False

    left: int = 0
    top: int = 0
    width: int = 0
    height: int = 0

    def __post_init__(self) -> None:
        for side in ("left", "top", "width", "height"):
            valid = 0 <= getattr(self, side) <= _LARGEST_SIDE
            self._require(valid, side, f"expected 0 to {_LARGEST_SIDE} pixels")

    def output(self, spec: Spec) -> Spec:
        height = self.height or spec.height - self.top
        width = self.width or spec.width - self.left
        down, across = self.top + height, self.left + width
        if min(height, width) < 1 or down > spec.height or across > spec.width:
            raise OperatorError(f"{self}: the rectangle exceeds the image, which is {spec}")
        return replace(spec, height=height, width=width)

    def process(self, image: Image) -> Image:
        spec = self.output(Spec.of(image))
        rows = slice(self.top, self.top + spec.height)
        return np.ascontiguousarray(image[rows, self.left : self.left + spec.width])


@dataclass(frozen=True)
class Resize(Operator):
    """Scaled image by `cv2.resize`.

    Takes uint8, uint16 or float32 of up to 4 channels and keeps both. Runs on the whole image, on
    the gateway. Exact. The result may have 500 million pixels at most.

    Parameters
    ----------
    factor : float
        Factor of both sides, over 0 to 100; instead of width and height.
    width, height : int
        Size in pixels, 1 to 1000000; 0 means not given. If only one is given, the proportions are
        kept.
    method : {"auto", "linear", "area"}
        Interpolation; auto uses area to shrink and linear to enlarge.
    """

    name: ClassVar[str] = "resize"
    tiled: ClassVar[bool] = False
    example_call: ClassVar[Mapping[str, Any]] = {"factor": 0.5}

    factor: float = 0.0
    width: int = 0
    height: int = 0
    method: Interpolation = "auto"

    def __post_init__(self) -> None:
        self._require(0 <= self.factor <= 100, "factor", "expected over 0, to 100")
        for side in ("width", "height"):
            valid = 0 <= getattr(self, side) <= _LARGEST_SIDE
            self._require(valid, side, f"expected 1 to {_LARGEST_SIDE} pixels")
        sides = bool(self.width or self.height)
        self._require(
            bool(self.factor) != sides, "factor", "give either a factor, or width or height"
        )
        self._require(
            self.method in ("auto", "linear", "area"), "method", "expected linear or area"
        )

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16", "float32"))
        height, width = self._size(spec)
        if max(height, width) > _LARGEST_SIDE or height * width > _MOST_PIXELS:
            raise OperatorError(f"{self} would make {width}x{height} pixels of {spec}; too many")
        return replace(spec, height=height, width=width)

    def process(self, image: Image) -> Image:
        spec = Spec.of(image)
        height, width = self._size(spec)
        if self.method == "auto":
            area = height * width < spec.height * spec.width
        else:
            area = self.method == "area"
        interpolation = cv2.INTER_AREA if area else cv2.INTER_LINEAR
        return cv2.resize(image, (width, height), interpolation=interpolation)

    def _size(self, spec: Spec) -> tuple[int, int]:
        factor = self.factor
        if self.width and self.height:
            return self.height, self.width
        if self.width:
            return max(1, round(spec.height * self.width / spec.width)), self.width
        if self.height:
            return self.height, max(1, round(spec.width * self.height / spec.height))
        return max(1, round(spec.height * factor)), max(1, round(spec.width * factor))
