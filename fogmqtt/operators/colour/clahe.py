"""CLAHE: contrast limited adaptive histogram equalisation.

OpenCV blends the tables of the four nearest cells by the pixel's position in the whole image. So
the gateway computes the tables, and a device blends them by the position of its tile. A whole image
is blended by the same code, since OpenCV on ARM fuses additions with multiplications.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, NamedTuple, Self

import numpy as np

from fogmqtt.core.geometry import Rect
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator, learned, require_prepared
from fogmqtt.operators.colour.levels import apply_to_luma, luma
from fogmqtt.operators.support.value_counts import count_values

_LEVELS = 256


@dataclass(frozen=True)
class Clahe(Operator):
    """Local contrast by `cv2.createCLAHE(clip, (columns, rows)).apply` (Zuiderveld, 1994).

    Takes uint8 of 1 or 3 channels and keeps both. In a colour image it changes the Y of YCrCb. Halo
    0; the histograms are those of the whole image. Exact, the same on all devices: the result is
    blended in float32 as OpenCV does on x86. On ARM, OpenCV itself rounds 0.01 % of the pixels
    otherwise.

    Parameters
    ----------
    clip : float
        Limit of the contrast, 0 to 1000; 0 is no limit.
    columns, rows : int
        Number of cells across and down, 1 to 16.
    """

    name: ClassVar[str] = "clahe"
    exactness: ClassVar[str] = (
        "as OpenCV on x86, on every device; cv2.CLAHE on ARM rounds 0.01 % of the pixels otherwise"
    )
    begins_stage: ClassVar[bool] = True

    clip: float = 2.0
    columns: int = 8
    rows: int = 8
    #: The tables of the cells, 256 values each, in row-major order.
    tables: bytes | None = learned()
    #: Height and width of a cell, pixels.
    cell: tuple[int, int] | None = learned()
    #: Row and column of the tile's first pixel in the image.
    place: tuple[int, int] | None = learned()

    def __post_init__(self) -> None:
        self._require(0 <= self.clip <= 1000, "clip", "expected 0 to 1000")
        for count in ("columns", "rows"):
            self._require(1 <= getattr(self, count) <= 16, count, "expected 1 to 16 cells")
        expected = self.rows * self.columns * _LEVELS
        valid = self.tables is None or len(self.tables) == expected
        self._require(valid, "tables", f"expected {expected} bytes")
        self._require(self.place is None or min(self.place) >= 0, "place", "expected 0 or more")
        self._require(self.cell is None or min(self.cell) > 0, "cell", "expected at least 1 pixel")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",), channels=(1, 3))
        return spec

    def prepare(self, image: Image, original: Image) -> Self:
        del original
        gray = self._padded(luma(image))
        height, width = gray.shape[0] // self.rows, gray.shape[1] // self.columns
        cells = (
            gray[top : top + height, left : left + width]
            for top in range(0, gray.shape[0], height)
            for left in range(0, gray.shape[1], width)
        )
        tables = b"".join(_table(one, self.clip).tobytes() for one in cells)
        return replace(self, tables=tables, cell=(height, width))

    def for_tile(self, outer: Rect, size: tuple[int, int]) -> Self:
        del size
        return replace(self, place=(outer.top, outer.left))

    def process(self, image: Image) -> Image:
        """Return the result for a tile. Raises OperatorError unless `prepare` was called."""
        return apply_to_luma(image, self._blended)

    def _padded(self, gray: Image) -> Image:
        """Return the image, reflected to whole cells.

        OpenCV pads both sides as soon as one of them is not a multiple.
        """
        height, width = gray.shape
        below, right = height % self.rows, width % self.columns
        if not below and not right:
            return gray
        more = self.rows - below, self.columns - right
        return cv2.copyMakeBorder(gray, 0, more[0], 0, more[1], cv2.BORDER_REFLECT_101)

    def _blended(self, gray: Image) -> Image:
        shape = self.rows, self.columns, _LEVELS
        stored = np.frombuffer(require_prepared(self, self.tables), np.uint8)
        tables = stored.reshape(shape).astype(np.float32)
        top, left = self.place or (0, 0)
        height, width = require_prepared(self, self.cell)
        done = np.empty_like(gray)
        across = list(_cell_spans(left, gray.shape[1], width, self.columns))
        for row in _cell_spans(top, gray.shape[0], height, self.rows):
            for column in across:
                part = row.pixels, column.pixels
                done[part] = _blend(tables, gray[part], row, column)
        return done


class _CellSpan(NamedTuple):
    """Consecutive pixels along one axis that lie between the same two cells."""

    pixels: slice
    before: int
    after: int
    #: Weight of `after` for each pixel, float32.
    share: Image


def _cell_spans(start: int, count: int, cell: int, cells: int) -> Iterator[_CellSpan]:
    """Yield the spans of a tile, computed in float32 as OpenCV does.

    A table holds at the middle of its cell. `start` is the tile's first pixel, `count` its size,
    `cell` the size of a cell, and `cells` their number.
    """
    at = np.arange(start, start + count).astype(np.float32)
    position = at * (np.float32(1) / np.float32(cell)) - np.float32(0.5)
    before = np.floor(position).astype(np.int64)
    share = position - before.astype(np.float32)
    cuts = [0, *(np.flatnonzero(np.diff(before)) + 1).tolist(), count]
    for first, end in pairwise(cuts):
        index = min(int(before[first]), cells - 1)
        yield _CellSpan(
            slice(first, end), max(index, 0), min(index + 1, cells - 1), share[first:end]
        )


def _blend(tables: Image, gray: Image, row: _CellSpan, column: _CellSpan) -> Image:
    upper, lower = (
        _mix(
            cv2.LUT(gray, tables[index, column.before]),
            cv2.LUT(gray, tables[index, column.after]),
            column.share,
        )
        for index in (row.before, row.after)
    )
    done = _mix(upper, lower, row.share[:, np.newaxis])
    return np.rint(done, out=done).astype(np.uint8)


def _mix(before: Image, after: Image, share: Image) -> Image:
    """Return `before` and `after` in float32, mixed by the share of `after`; overwrites both.

    Each product is rounded before the sum, on every processor.
    """
    before *= np.float32(1) - share
    after *= share
    before += after
    return before


def _table(cell: Image, clip: float) -> Image:
    counts = count_values(cell)
    if clip > 0:
        counts = _clipped(counts, max(1, int(clip * cell.size / _LEVELS)))
    scale = np.float32(_LEVELS - 1) / np.float32(cell.size)
    values: Image = np.rint(counts.cumsum().astype(np.float32) * scale)
    return np.clip(values, 0, _LEVELS - 1).astype(np.uint8)


def _clipped(counts: Image, limit: int) -> Image:
    """Spread the counts over the limit over all values, as evenly as OpenCV does."""
    over = int(np.maximum(counts - limit, 0).sum())
    each, rest = divmod(over, _LEVELS)
    counts = np.minimum(counts, limit) + each
    if rest:
        step = max(_LEVELS // rest, 1)
        counts[: rest * step : step] += 1
    return counts
