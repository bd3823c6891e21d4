"""Another size. cv2.resize has no offset, so at most ratios tiles cannot be exact."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from fogmqtt.errors import OperatorError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.base import Operator

Method = Literal["auto", "linear", "area"]

_LARGEST_SIDE = 1_000_000
_LARGEST = 500_000_000


@dataclass(frozen=True)
class Resize(Operator):
    """`cv2.resize`, whole, on the gateway.

    Takes uint8, uint16 or float32 of up to 4 channels and keeps both.

    Parameters
    ----------
    factor : float
        Both sides times this, over 0 to 100; instead of width and height.
    width, height : int
        Pixels; one alone keeps the proportions, 0 leaves it out.
    method : {"auto", "linear", "area"}
        Interpolation; auto is area to shrink and linear to grow.
    """

    name: ClassVar[str] = "resize"
    tiled: ClassVar[bool] = False

    factor: float = 0.0
    width: int = 0
    height: int = 0
    method: Method = "auto"

    def __post_init__(self) -> None:
        self._need(0 <= self.factor <= 100, "factor", "expected over 0, to 100")
        for side in ("width", "height"):
            fine = 0 <= getattr(self, side) <= _LARGEST_SIDE
            self._need(fine, side, f"expected 1 to {_LARGEST_SIDE} pixels")
        sides = bool(self.width or self.height)
        self._need(bool(self.factor) != sides, "factor", "give either a factor, or width or height")
        self._need(self.method in ("auto", "linear", "area"), "method", "expected linear or area")

    def output(self, spec: Spec) -> Spec:
        self._take(spec, dtypes=("uint8", "uint16", "float32"))
        height, width = self._size(spec)
        if max(height, width) > _LARGEST_SIDE or height * width > _LARGEST:
            raise OperatorError(f"{self} would make {width}x{height} pixels of {spec}; too many")
        return replace(spec, height=height, width=width)

    def process(self, image: Image) -> Image:
        spec = Spec.of(image)
        height, width = self._size(spec)
        if self.method == "auto":
            area = height * width < spec.height * spec.width
        else:
            area = self.method == "area"
        how = cv2.INTER_AREA if area else cv2.INTER_LINEAR
        return cv2.resize(image, (width, height), interpolation=how)

    def _size(self, spec: Spec) -> tuple[int, int]:
        factor = self.factor
        if self.width and self.height:
            return self.height, self.width
        if self.width:
            return max(1, round(spec.height * self.width / spec.width)), self.width
        if self.height:
            return self.height, max(1, round(spec.width * self.height / spec.height))
        return max(1, round(spec.height * factor)), max(1, round(spec.width * factor))
