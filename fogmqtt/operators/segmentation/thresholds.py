"""Black and white: by a fixed bound, by the pixel's surroundings, by the whole histogram."""

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

Method = Literal["mean", "gaussian"]


def _kind(inverse: bool) -> int:
    return cv2.THRESH_BINARY_INV if inverse else cv2.THRESH_BINARY


@dataclass(frozen=True)
class Threshold(Operator):
    """`cv2.threshold`: `max` where a value is over `value`, else 0. Halo 0. Exact.

    Takes uint8, uint16 or float32 of any channel count and keeps both.

    Parameters
    ----------
    value : float
        The bound itself counts as below, as in OpenCV; for integers it is rounded down.
    max : float
        What the values above become, 0 or more; rounded to, and at most, the dtype's largest.
    inverse : bool
        `max` where a value is not over `value`.
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
    """`cv2.adaptiveThreshold`: `max` where a value is over its surroundings' mean minus `c`.

    Takes uint8 of 1 channel and keeps both. Halo block // 2; the border is repeated. Exact; the
    gaussian mean is float arithmetic inside, so it is exact between devices of one kind.

    Parameters
    ----------
    method : {"mean", "gaussian"}
        How the surroundings are weighted.
    block : int
        Side of the surroundings in pixels, odd, 3 to 127.
    c : float
        Subtracted from the mean, -255 to 255.
    max : float
        What the values above become, 0 to 255.
    inverse : bool
        `max` where a value is not over.
    """

    # Blocks over 127: the mean rounds by column, see filters.Blur.

    name: ClassVar[str] = "adaptive"
    exactness: ClassVar[str] = build_dependent("method=gaussian")
    samples: ClassVar[Samples] = ({}, {"method": "gaussian"})

    method: Method = "mean"
    block: int = 11
    c: float = 2.0
    max: float = 255.0
    inverse: bool = False

    def __post_init__(self) -> None:
        self._require(self.method in ("mean", "gaussian"), "method", "expected mean or gaussian")
        fine = self.block % 2 == 1 and 3 <= self.block <= 127
        self._require(fine, "block", "expected an odd number from 3 to 127")
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
        how = cv2.ADAPTIVE_THRESH_GAUSSIAN_C if gaussian else cv2.ADAPTIVE_THRESH_MEAN_C
        kind = _kind(self.inverse)
        return cv2.adaptiveThreshold(image, self.max, how, kind, self.block, self.c)


@dataclass(frozen=True)
class _ByHistogram(Operator):
    begins_stage: ClassVar[bool] = True
    _method: ClassVar[int] = 0
    _dtypes: ClassVar[tuple[str, ...]] = ()

    max: float = 255.0
    inverse: bool = False
    #: The bound that the whole image's histogram gives.
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
        """Raises OperatorError unless `prepare` was called."""
        return cv2.threshold(
            image, require_prepared(self, self.value), self.max, _kind(self.inverse)
        )[1]

    def whole(self, image: Image) -> Image:
        return cv2.threshold(image, 0, self.max, _kind(self.inverse) | self._method)[1]


@dataclass(frozen=True)
class Otsu(_ByHistogram):
    """`cv2.threshold` with `THRESH_OTSU`: the bound that parts the histogram best. Halo 0.

    Takes uint8 or uint16 of 1 channel and keeps both. The bound is the whole image's. Exact.

    Parameters
    ----------
    max : float
        What the values above the bound become, 0 or more; at most the dtype's largest.
    inverse : bool
        `max` where a value is not above.
    """

    name: ClassVar[str] = "otsu"
    _method: ClassVar[int] = cv2.THRESH_OTSU
    _dtypes: ClassVar[tuple[str, ...]] = ("uint8", "uint16")


@dataclass(frozen=True)
class Triangle(_ByHistogram):
    """`cv2.threshold` with `THRESH_TRIANGLE`: for histograms of one peak. Halo 0.

    Takes uint8 of 1 channel and keeps both. The bound is the whole image's. Exact.

    Parameters
    ----------
    max : float
        What the values above the bound become, 0 or more; at most 255.
    inverse : bool
        `max` where a value is not above.
    """

    name: ClassVar[str] = "triangle"
    _method: ClassVar[int] = cv2.THRESH_TRIANGLE
    _dtypes: ClassVar[tuple[str, ...]] = ("uint8",)
