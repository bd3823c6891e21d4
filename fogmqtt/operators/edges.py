"""Slopes. Canny has a file of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.base import Operator


@dataclass(frozen=True)
class Sobel(Operator):
    """`cv2.Sobel(image, cv2.CV_16S, dx, dy, ksize=ksize)`; the border reflects.

    Takes uint8 of any channel count. Gives `cv2.convertScaleAbs` of the slope as uint8, which
    saturates at 255, or with `absolute=false` the slope itself as int16.

    Parameters
    ----------
    dx, dy : int
        Order of the derivative across and down, 0 to 2, not both 0, less than ksize.
    ksize : int
        Pixels: 1, 3, 5 or 7. Halo ksize // 2, at least 1.
    absolute : bool
        Whether to give the magnitude in 8 bits.
    """

    name: ClassVar[str] = "sobel"

    dx: int = 1
    dy: int = 0
    ksize: int = 3
    absolute: bool = True

    def __post_init__(self) -> None:
        self._need(self.ksize in (1, 3, 5, 7), "ksize", "expected 1, 3, 5 or 7")
        # OpenCV's kernel of size 1 is 3 wide along the derivative.
        most = min(2, max(self.ksize, 3) - 1)
        for order in ("dx", "dy"):
            self._need(0 <= getattr(self, order) <= most, order, f"expected 0 to {most}")
        self._need(self.dx + self.dy > 0, "dx", "dx and dy cannot both be 0")

    @property
    def halo(self) -> int:
        return max(self.ksize // 2, 1)

    def output(self, spec: Spec) -> Spec:
        self._take(spec, dtypes=("uint8",))
        return spec if self.absolute else replace(spec, dtype="int16")

    def process(self, image: Image) -> Image:
        slope = cv2.Sobel(image, cv2.CV_16S, self.dx, self.dy, ksize=self.ksize)
        return cv2.convertScaleAbs(slope) if self.absolute else slope
