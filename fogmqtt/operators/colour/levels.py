"""Operators that change values depending on the values of the whole image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from fogmqtt.errors import OperatorError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator, learned, require_prepared
from fogmqtt.operators.colour.tone import apply_curve
from fogmqtt.operators.support.value_counts import count_values


def apply_to_luma(image: Image, work: Callable[[Image], Image]) -> Image:
    """Apply `work` to a gray image, or to the Y of a colour image in YCrCb, so that hues remain."""
    if image.ndim == 2:
        return work(image)
    done = cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb)
    done = cv2.insertChannel(work(luma(image)), done, 0)
    return cv2.cvtColor(done, cv2.COLOR_YCrCb2BGR)


def luma(image: Image) -> Image:
    """Return a gray image itself, or the Y of a colour image in YCrCb."""
    if image.ndim == 2:
        return image
    return cv2.extractChannel(cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb), 0)


@dataclass(frozen=True)
class Equalize(Operator):
    """Histogram equalisation by `cv2.equalizeHist`.

    Takes uint8 of 1 or 3 channels and keeps both. In a colour image it changes the Y of YCrCb. Halo
    0; the histogram is that of the whole image. Exact, the same on all devices.
    """

    name: ClassVar[str] = "equalize"
    begins_stage: ClassVar[bool] = True

    #: The new value of each of the 256 values.
    table: bytes | None = learned()

    def __post_init__(self) -> None:
        self._require(self.table is None or len(self.table) == 256, "table", "expected 256 bytes")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",), channels=(1, 3))
        return spec

    def prepare(self, image: Image, original: Image) -> Self:
        del original
        return replace(self, table=_equalizing_table(count_values(luma(image))).tobytes())

    def process(self, image: Image) -> Image:
        """Return the result for a tile. Raises OperatorError unless `prepare` was called."""
        table = np.frombuffer(require_prepared(self, self.table), np.uint8)
        return apply_to_luma(image, lambda gray: cv2.LUT(gray, table))

    def whole(self, image: Image) -> Image:
        return apply_to_luma(image, cv2.equalizeHist)


def _equalizing_table(counts: Image) -> Image:
    """Return the table of cv2.equalizeHist, computed in float32 as OpenCV does."""
    first = int(np.flatnonzero(counts)[0])
    others = int(counts.sum() - counts[first])
    if others == 0:
        return np.full(256, first, np.uint8)
    counts = counts.copy()
    counts[: first + 1] = 0
    scale = np.float32(255) / np.float32(others)
    table: Image = np.rint(counts.cumsum().astype(np.float32) * scale)
    return np.clip(table, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Normalize(Operator):
    """Linear scaling to the range `low` to `high` by `cv2.normalize` with `NORM_MINMAX`.

    Takes uint8, uint16 or float32 of any channel count and keeps both. Halo 0. The smallest value
    of the whole image, over all channels, becomes `low`, the largest `high`; an image of one value
    becomes `low`. Exact, the same on all devices. For uint16 and float32 fogmqtt defines the
    result, because the rounding of OpenCV depends on the column: (x - smallest) * (high - low) /
    (largest - smallest) + low in float64, for uint16 rounded half to even.

    Parameters
    ----------
    low : float
        Value of the smallest, 0 to 65535.
    high : float
        Value of the largest, over low to 65535; 0 is the largest value of the dtype, 1 for float32.
    """

    name: ClassVar[str] = "normalize"
    exactness: ClassVar[str] = (
        "uint16 and float32: defined by fogmqtt, in float64; cv2.normalize rounds by column"
    )
    begins_stage: ClassVar[bool] = True

    low: float = 0.0
    high: float = 0.0
    #: The smallest and the largest value of the whole image.
    smallest: float | None = learned()
    largest: float | None = learned()

    def __post_init__(self) -> None:
        self._require(0 <= self.low <= 65535, "low", "expected 0 to 65535")
        valid = self.low < self.high <= 65535 or self.high == 0
        self._require(valid, "high", f"expected over low={self.low:g}, to 65535, or 0")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16", "float32"))
        return spec

    def prepare(self, image: Image, original: Image) -> Self:
        """Raises OperatorError for an image with NaN or infinity."""
        del original
        smallest, largest = float(image.min()), float(image.max())
        if not math.isfinite(largest - smallest):
            raise OperatorError(f"{self}: the image holds values from {smallest} to {largest}")
        return replace(self, smallest=smallest, largest=largest)

    def process(self, image: Image) -> Image:
        """Return the result for a tile. Raises OperatorError unless `prepare` was called."""
        smallest, largest = (
            require_prepared(self, self.smallest),
            require_prepared(self, self.largest),
        )
        if image.dtype == np.uint8:
            return cv2.LUT(image, self._table(int(smallest), int(largest)))
        scale = (self._high(image) - self.low) / (largest - smallest or 1.0)
        if image.dtype == np.uint16:
            return apply_curve(image, lambda values: (values - smallest) * scale + self.low)
        return ((image.astype(np.float64) - smallest) * scale + self.low).astype(np.float32)

    def whole(self, image: Image) -> Image:
        if image.dtype != np.uint8:
            return self.process(image)
        done = np.empty_like(image)
        return cv2.normalize(image, done, self.low, self._high(image), cv2.NORM_MINMAX)

    def _table(self, smallest: int, largest: int) -> Image:
        """Return OpenCV's result for each value, computed for all values that occur at once."""
        table: Image = np.zeros(256, np.uint8)
        occurring = np.arange(smallest, largest + 1, dtype=np.uint8)
        # A multiple of 64 values: the remainder of a row might round differently.
        row = np.pad(occurring, (0, -len(occurring) % 64), mode="edge")[np.newaxis]
        done = cv2.normalize(row, np.empty_like(row), self.low, self._high(row), cv2.NORM_MINMAX)
        table[smallest : largest + 1] = done[0, : len(occurring)]
        return table

    def _high(self, image: Image) -> float:
        if self.high:
            return self.high
        return 1.0 if image.dtype == np.float32 else float(np.iinfo(image.dtype).max)


@dataclass(frozen=True)
class AutoLevels(Operator):
    """Contrast stretch that makes `clip` percent of the pixels black and as many white.

    Takes uint8 or uint16 of 1 or 3 channels and keeps both. Halo 0; the histograms are those of the
    whole image. fogmqtt defines the result, because OpenCV has no such function: black is the
    smallest value with more than `clip` percent of the pixels at or below it, white the largest
    with more than `clip` percent at or above it. Values between them become (x - black) * most /
    (white - black) in float64, rounded half to even, where `most` is the largest value of the
    dtype. Exact, the same on all devices.

    Parameters
    ----------
    clip : float
        Percent of the pixels at each end, 0 to 49.
    each : bool
        Whether each channel has its own histogram, which changes hues; else all channels share one.
    """

    name: ClassVar[str] = "autolevels"
    exactness: ClassVar[str] = "defined by fogmqtt, in float64; OpenCV has no such function"
    begins_stage: ClassVar[bool] = True

    clip: float = 0.5
    each: bool = False
    #: Black and white of the first channel, then of the next.
    bounds: tuple[int, ...] | None = learned()

    def __post_init__(self) -> None:
        self._require(0 <= self.clip <= 49, "clip", "expected 0 to 49 percent")
        valid = self.bounds is None or len(self.bounds) in (2, 6)
        self._require(valid, "bounds", "expected black and white of 1 or 3 channels")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16"), channels=(1, 3))
        return spec

    def prepare(self, image: Image, original: Image) -> Self:
        del original
        counts = [count_values(image, channel) for channel in range(Spec.of(image).channels)]
        if not self.each:
            counts = [np.sum(counts, axis=0)] * len(counts)
        bounds = (bound for one in counts for bound in self._bounds(one))
        return replace(self, bounds=tuple(bounds))

    def process(self, image: Image) -> Image:
        """Return the result for a tile. Raises OperatorError unless `prepare` was called."""
        bounds = require_prepared(self, self.bounds)
        pairs = zip(bounds[::2], bounds[1::2], strict=True)
        done = [
            _stretch(channel, *pair) for channel, pair in zip(cv2.split(image), pairs, strict=True)
        ]
        return done[0] if image.ndim == 2 else cv2.merge(done)

    def _bounds(self, counts: Image) -> tuple[int, int]:
        few = counts.sum() * (self.clip / 100)
        black = int(np.argmax(counts.cumsum() > few))
        white = len(counts) - 1 - int(np.argmax(counts[::-1].cumsum() > few))
        return black, white


def _stretch(channel: Image, black: int, white: int) -> Image:
    if white <= black:  # the channel has one value only
        return channel
    most = np.iinfo(channel.dtype).max
    return apply_curve(channel, lambda values: (values - black) * most / (white - black))
