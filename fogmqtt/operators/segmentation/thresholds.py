"""Thresholds: a fixed one, one from the surroundings, and ones from the histogram of the image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import (
    FLOAT_ALIGN,
    Operator,
    Samples,
    build_dependent,
    learned,
    require_prepared,
)

Weights = Literal["mean", "gaussian"]


def _kind(inverse: bool) -> int:
    return cv2.THRESH_BINARY_INV if inverse else cv2.THRESH_BINARY


@dataclass(frozen=True)
class Threshold(Operator):
    """Fixed threshold by `cv2.threshold`: `max` for values over `value`, else 0.

    Takes uint8, uint16 or float32 of any channel count and keeps both. Halo 0. Exact, the same on
    all devices.

    Parameters
    ----------
    value : float
        The threshold, -65536 to 65536. A value equal to it is not over it, as in OpenCV. For
        integer images it is rounded down.
    max : float
        Result for values over the threshold, 0 to 65535; rounded to the dtype, and at most its
        largest value.
    inverse : bool
        Whether to exchange `max` and 0.
    """

    name: ClassVar[str] = "threshold"

    value: float = 127.0
    max: float = 255.0
    inverse: bool = False

    def __post_init__(self) -> None:
        self._require(0 <= self.max <= 65535, "max", "expected 0 to 65535")
        self._require(abs(self.value) <= 65536, "value", "expected -65536 to 65536")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16", "float32"))
        return spec

    def process(self, image: Image) -> Image:
        return cv2.threshold(image, self.value, self.max, _kind(self.inverse))[1]


@dataclass(frozen=True)
class Adaptive(Operator):
    """Threshold from the surroundings by `cv2.adaptiveThreshold`.

    Takes uint8 of 1 channel and keeps both. The result is `max` where a value is over the mean of
    its surroundings minus `c`, else 0. The border is repeated. Exact; method=gaussian uses float
    arithmetic and is exact only between devices with the same OpenCV build and kind of processor.

    Parameters
    ----------
    method : {"mean", "gaussian"}
        Weights of the surroundings.
    block : int
        Side of the surroundings in pixels, odd, 3 to 127. Halo block // 2.
    c : float
        Value that is subtracted from the mean, -255 to 255.
    max : float
        Result for values over the threshold, 0 to 255.
    inverse : bool
        Whether to exchange `max` and 0.
    """

    # For blocks over 127, the rounding of the mean depends on the column: see smoothing.Blur.

    name: ClassVar[str] = "adaptive"
    exactness: ClassVar[str] = build_dependent("method=gaussian")
    samples: ClassVar[Samples] = ({}, {"method": "gaussian"})

    method: Weights = "mean"
    block: int = 11
    c: float = 2.0
    max: float = 255.0
    inverse: bool = False

    def __post_init__(self) -> None:
        self._require(self.method in ("mean", "gaussian"), "method", "expected mean or gaussian")
        valid = self.block % 2 == 1 and 3 <= self.block <= 127
        self._require(valid, "block", "expected an odd number from 3 to 127")
        self._require(abs(self.c) <= 255, "c", "expected -255 to 255")
        self._require(0 <= self.max <= 255, "max", "expected 0 to 255")

    @property
    def halo(self) -> int:
        return self.block // 2

    def alignment(self, spec: Spec) -> int:
        return FLOAT_ALIGN if self.method == "gaussian" else super().alignment(spec)

    def variant(self, spec: Spec) -> str:
        del spec
        return "gaussian" if self.method == "gaussian" else ""

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",), channels=(1,))
        return spec

    def process(self, image: Image) -> Image:
        gaussian = self.method == "gaussian"
        weights = cv2.ADAPTIVE_THRESH_GAUSSIAN_C if gaussian else cv2.ADAPTIVE_THRESH_MEAN_C
        kind = _kind(self.inverse)
        return cv2.adaptiveThreshold(image, self.max, weights, kind, self.block, self.c)


@dataclass(frozen=True)
class _HistogramThreshold(Operator):
    """Base of the thresholds that follow from the histogram of the whole image."""

    begins_stage: ClassVar[bool] = True
    _method: ClassVar[int] = 0
    _dtypes: ClassVar[tuple[str, ...]] = ()

    max: float = 255.0
    inverse: bool = False
    #: The threshold of the whole image.
    value: float | None = learned()

    def __post_init__(self) -> None:
        self._require(0 <= self.max <= 65535, "max", "expected 0 to 65535")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=self._dtypes, channels=(1,))
        return spec

    def prepare(self, image: Image, original: Image) -> Self:
        del original
        return replace(self, value=float(cv2.threshold(image, 0, 0, self._method)[0]))

    def process(self, image: Image) -> Image:
        """Return the result for a tile. Raises OperatorError unless `prepare` was called."""
        return cv2.threshold(
            image, require_prepared(self, self.value), self.max, _kind(self.inverse)
        )[1]

    def whole(self, image: Image) -> Image:
        return cv2.threshold(image, 0, self.max, _kind(self.inverse) | self._method)[1]


@dataclass(frozen=True)
class Otsu(_HistogramThreshold):
    """Threshold by `cv2.threshold` with `THRESH_OTSU` (Otsu, 1979), for histograms with two peaks.

    Takes uint8 or uint16 of 1 channel and keeps both. Halo 0; the threshold is that of the whole
    image. Exact, the same on all devices.

    Parameters
    ----------
    max : float
        Result for values over the threshold, 0 to 65535; at most the largest value of the dtype.
    inverse : bool
        Whether to exchange `max` and 0.
    """

    name: ClassVar[str] = "otsu"
    _method: ClassVar[int] = cv2.THRESH_OTSU
    _dtypes: ClassVar[tuple[str, ...]] = ("uint8", "uint16")


@dataclass(frozen=True)
class Triangle(_HistogramThreshold):
    """Threshold by `cv2.threshold` with `THRESH_TRIANGLE` (Zack et al., 1977), for one peak.

    Takes uint8 of 1 channel and keeps both. Halo 0; the threshold is that of the whole image.
    Exact, the same on all devices.

    Parameters
    ----------
    max : float
        Result for values over the threshold, 0 to 65535; at most 255.
    inverse : bool
        Whether to exchange `max` and 0.
    """

    name: ClassVar[str] = "triangle"
    _method: ClassVar[int] = cv2.THRESH_TRIANGLE
    _dtypes: ClassVar[tuple[str, ...]] = ("uint8",)
