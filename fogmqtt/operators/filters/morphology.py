"""Morphology: the largest or smallest value around each pixel, and combinations of them.

Comparisons do not round, so all of these operators are exact for every dtype.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator

KernelShape = Literal["rect", "ellipse", "cross"]

_SHAPES: dict[str, int] = {
    "rect": cv2.MORPH_RECT,
    "ellipse": cv2.MORPH_ELLIPSE,
    "cross": cv2.MORPH_CROSS,
}
_ELEMENT = re.compile(r"[01]{1,31}(/[01]{1,31}){0,30}")


@dataclass(frozen=True)
class _Morphology(Operator):
    """Base of the morphological operators: `cv2.morphologyEx` with a kernel."""

    _operation: ClassVar[int] = cv2.MORPH_DILATE
    #: Number of dilations and erosions in one iteration.
    _passes: ClassVar[int] = 1

    ksize: int = 3
    shape: KernelShape = "rect"
    iterations: int = 1
    element: str = ""

    def __post_init__(self) -> None:
        self._require(1 <= self.ksize <= 255, "ksize", "expected 1 to 255")
        self._require(self.shape in _SHAPES, "shape", f"expected {', '.join(_SHAPES)}")
        self._require(1 <= self.iterations <= 100, "iterations", "expected 1 to 100")
        if self.element:
            self._require(_is_element(self.element), "element", _EXPECTED_ELEMENT)

    @property
    def halo(self) -> int:
        reach: int = max(self._kernel().shape) // 2
        return self._passes * self.iterations * reach

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16", "int16", "float32"))
        return spec

    def process(self, image: Image) -> Image:
        kernel = self._kernel()
        return cv2.morphologyEx(image, self._operation, kernel, iterations=self.iterations)

    def _kernel(self) -> Image:
        if self.element:
            return np.array([list(map(int, row)) for row in self.element.split("/")], np.uint8)
        return cv2.getStructuringElement(_SHAPES[self.shape], (self.ksize, self.ksize))


_EXPECTED_ELEMENT = (
    "expected rows of 0 and 1 of one length up to 31, with a 1 in them, as 010/111/010"
)


def _is_element(text: str) -> bool:
    rows = text.split("/")
    return bool(_ELEMENT.fullmatch(text)) and len(set(map(len, rows))) == 1 and "1" in text


@dataclass(frozen=True)
class Dilate(_Morphology):
    """Largest value around each pixel by `cv2.dilate`: bright shapes grow.

    Takes uint8, uint16, int16 or float32 of any channel count and keeps both. Pixels beyond the
    border do not count. Exact, the same on all devices.

    Parameters
    ----------
    ksize : int
        Side of the kernel in pixels, 1 to 255.
    shape : {"rect", "ellipse", "cross"}
        KernelShape of the kernel.
    iterations : int
        Number of repetitions, 1 to 100. Halo iterations * (ksize // 2).
    element : str
        A kernel instead of ksize and shape: rows of 0 and 1 of one length, up to 31 x 31, separated
        by slashes, such as 010/111/010.
    """

    name: ClassVar[str] = "dilate"
    _operation: ClassVar[int] = cv2.MORPH_DILATE


@dataclass(frozen=True)
class Erode(_Morphology):
    """Smallest value around each pixel by `cv2.erode`: bright shapes shrink.

    Takes uint8, uint16, int16 or float32 of any channel count and keeps both. Pixels beyond the
    border do not count. Exact, the same on all devices.

    Parameters
    ----------
    ksize : int
        Side of the kernel in pixels, 1 to 255.
    shape : {"rect", "ellipse", "cross"}
        KernelShape of the kernel.
    iterations : int
        Number of repetitions, 1 to 100. Halo iterations * (ksize // 2).
    element : str
        A kernel instead of ksize and shape: rows of 0 and 1 of one length, up to 31 x 31, separated
        by slashes, such as 010/111/010.
    """

    name: ClassVar[str] = "erode"
    _operation: ClassVar[int] = cv2.MORPH_ERODE


@dataclass(frozen=True)
class Open(_Morphology):
    """Opening (erode, then dilate) by `cv2.morphologyEx`: removes small bright spots.

    Takes uint8, uint16, int16 or float32 of any channel count and keeps both. Pixels beyond the
    border do not count. Exact, the same on all devices.

    Parameters
    ----------
    ksize : int
        Side of the kernel in pixels, 1 to 255.
    shape : {"rect", "ellipse", "cross"}
        KernelShape of the kernel.
    iterations : int
        Number of repetitions, 1 to 100. Halo 2 * iterations * (ksize // 2).
    element : str
        A kernel instead of ksize and shape: rows of 0 and 1 of one length, up to 31 x 31, separated
        by slashes, such as 010/111/010.
    """

    name: ClassVar[str] = "open"
    _operation: ClassVar[int] = cv2.MORPH_OPEN
    _passes: ClassVar[int] = 2


@dataclass(frozen=True)
class Close(_Morphology):
    """Closing (dilate, then erode) by `cv2.morphologyEx`: fills small dark gaps.

    Takes uint8, uint16, int16 or float32 of any channel count and keeps both. Pixels beyond the
    border do not count. Exact, the same on all devices.

    Parameters
    ----------
    ksize : int
        Side of the kernel in pixels, 1 to 255.
    shape : {"rect", "ellipse", "cross"}
        KernelShape of the kernel.
    iterations : int
        Number of repetitions, 1 to 100. Halo 2 * iterations * (ksize // 2).
    element : str
        A kernel instead of ksize and shape: rows of 0 and 1 of one length, up to 31 x 31, separated
        by slashes, such as 010/111/010.
    """

    name: ClassVar[str] = "close"
    _operation: ClassVar[int] = cv2.MORPH_CLOSE
    _passes: ClassVar[int] = 2


@dataclass(frozen=True)
class Gradient(_Morphology):
    """Morphological gradient (dilate minus erode) by `cv2.morphologyEx`: outlines.

    Takes uint8, uint16, int16 or float32 of any channel count and keeps both. Pixels beyond the
    border do not count. Exact, the same on all devices.

    Parameters
    ----------
    ksize : int
        Side of the kernel in pixels, 1 to 255.
    shape : {"rect", "ellipse", "cross"}
        KernelShape of the kernel.
    iterations : int
        Number of repetitions, 1 to 100. Halo iterations * (ksize // 2).
    element : str
        A kernel instead of ksize and shape: rows of 0 and 1 of one length, up to 31 x 31, separated
        by slashes, such as 010/111/010.
    """

    name: ClassVar[str] = "gradient"
    _operation: ClassVar[int] = cv2.MORPH_GRADIENT


@dataclass(frozen=True)
class TopHat(_Morphology):
    """Top hat (the image minus its opening) by `cv2.morphologyEx`: small bright spots.

    Takes uint8, uint16, int16 or float32 of any channel count and keeps both. Pixels beyond the
    border do not count. Exact, the same on all devices.

    Parameters
    ----------
    ksize : int
        Side of the kernel in pixels, 1 to 255.
    shape : {"rect", "ellipse", "cross"}
        KernelShape of the kernel.
    iterations : int
        Number of repetitions, 1 to 100. Halo 2 * iterations * (ksize // 2).
    element : str
        A kernel instead of ksize and shape: rows of 0 and 1 of one length, up to 31 x 31, separated
        by slashes, such as 010/111/010.
    """

    name: ClassVar[str] = "tophat"
    _operation: ClassVar[int] = cv2.MORPH_TOPHAT
    _passes: ClassVar[int] = 2


@dataclass(frozen=True)
class BlackHat(_Morphology):
    """Black hat (the closing minus the image) by `cv2.morphologyEx`: small dark gaps.

    Takes uint8, uint16, int16 or float32 of any channel count and keeps both. Pixels beyond the
    border do not count. Exact, the same on all devices.

    Parameters
    ----------
    ksize : int
        Side of the kernel in pixels, 1 to 255.
    shape : {"rect", "ellipse", "cross"}
        KernelShape of the kernel.
    iterations : int
        Number of repetitions, 1 to 100. Halo 2 * iterations * (ksize // 2).
    element : str
        A kernel instead of ksize and shape: rows of 0 and 1 of one length, up to 31 x 31, separated
        by slashes, such as 010/111/010.
    """

    name: ClassVar[str] = "blackhat"
    _operation: ClassVar[int] = cv2.MORPH_BLACKHAT
    _passes: ClassVar[int] = 2
