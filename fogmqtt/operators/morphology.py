"""Operators on shapes: the largest or smallest value around each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.base import Operator

Shape = Literal["rect", "ellipse", "cross"]

_SHAPES: dict[str, int] = {
    "rect": cv2.MORPH_RECT,
    "ellipse": cv2.MORPH_ELLIPSE,
    "cross": cv2.MORPH_CROSS,
}


@dataclass(frozen=True)
class _Morphology(Operator):
    ksize: int = 3
    shape: Shape = "rect"
    iterations: int = 1

    def __post_init__(self) -> None:
        self._need(1 <= self.ksize <= 255, "ksize", "expected 1 to 255")
        self._need(self.shape in _SHAPES, "shape", f"expected {', '.join(_SHAPES)}")
        self._need(1 <= self.iterations <= 100, "iterations", "expected 1 to 100")

    @property
    def halo(self) -> int:
        return self.iterations * (self.ksize // 2)

    def output(self, spec: Spec) -> Spec:
        self._take(spec, dtypes=("uint8", "uint16", "int16"))
        return spec

    def _kernel(self) -> Image:
        return cv2.getStructuringElement(_SHAPES[self.shape], (self.ksize, self.ksize))


@dataclass(frozen=True)
class Dilate(_Morphology):
    """`cv2.dilate`: bright shapes grow. What is beyond the border does not count.

    Takes uint8, uint16 or int16 of any channel count and keeps both.

    Parameters
    ----------
    ksize : int
        Side of the kernel in pixels, 1 to 255.
    shape : {"rect", "ellipse", "cross"}
        The kernel's.
    iterations : int
        1 to 100. Halo iterations * (ksize // 2).
    """

    name: ClassVar[str] = "dilate"

    def process(self, image: Image) -> Image:
        return cv2.dilate(image, self._kernel(), iterations=self.iterations)


@dataclass(frozen=True)
class Erode(_Morphology):
    """`cv2.erode`: bright shapes shrink. What is beyond the border does not count.

    Takes uint8, uint16 or int16 of any channel count and keeps both.

    Parameters
    ----------
    ksize : int
        Side of the kernel in pixels, 1 to 255.
    shape : {"rect", "ellipse", "cross"}
        The kernel's.
    iterations : int
        1 to 100. Halo iterations * (ksize // 2).
    """

    name: ClassVar[str] = "erode"

    def process(self, image: Image) -> Image:
        return cv2.erode(image, self._kernel(), iterations=self.iterations)
