"""Rectangles and tiles: how an image is cut, in exact integers.

A tile has a *core*, the pixels of its result, and an *outer*, the pixels of its input: the core and
a *halo* around it, clipped at the image's border and never padded. So an operator meets the image's
border exactly where it is. Cores partition the image. A side of the core that is not on the image's
border is a *seam*.

All figures are pixels in (row, column) order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from msgspec import Struct

from fogmqtt.errors import PlanError


class Rect(Struct, frozen=True):
    """A rectangle of pixels; `bottom` and `right` are exclusive."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """The slices that cut this rectangle out of an array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def within(self, outer: Rect) -> Rect:
        """This rectangle in the coordinates of `outer`, which contains it."""
        return Rect(self.top - outer.top, self.left - outer.left, self.height, self.width)

    def contains(self, other: Rect) -> bool:
        return (
            self.top <= other.top
            and self.left <= other.left
            and other.bottom <= self.bottom
            and other.right <= self.right
        )

    def grown(self, halo: int, size: tuple[int, int], align: int = 1) -> Rect:
        """Grown by `halo` on each side, out to multiples of `align`, clipped to an image of `size`.

        With `align` over 1 it is also at least `align` wide and high where the image is, because
        float operators round differently in narrower rows.
        """
        top, bottom = _grown(self.top, self.bottom, halo, size[0], align)
        left, right = _grown(self.left, self.right, halo, size[1], align)
        return Rect(top, left, bottom - top, right - left)


def _grown(start: int, end: int, halo: int, extent: int, align: int) -> tuple[int, int]:
    start = max(0, (start - halo) // align * align)
    end = min(extent, -(-(end + halo) // align) * align)
    if align > 1 and end - start < align:
        start = max(0, (end - align) // align * align)
    return start, end


class Seams(Struct, frozen=True):
    """Which sides of a core are cuts, as opposed to the image's border."""

    top: bool = False
    left: bool = False
    bottom: bool = False
    right: bool = False


class Tile(Struct, frozen=True):
    """One piece of an image of `size` (height, width)."""

    index: int
    core: Rect
    outer: Rect
    size: tuple[int, int]

    @property
    def seams(self) -> Seams:
        return Seams(
            top=self.core.top > 0,
            left=self.core.left > 0,
            bottom=self.core.bottom < self.size[0],
            right=self.core.right < self.size[1],
        )


class Auto(Struct, frozen=True):
    """Cut by message limit and fleet."""


class Size(Struct, frozen=True):
    """Tiles of this height and width; the last row and column may be smaller."""

    height: int
    width: int


class Grid(Struct, frozen=True):
    """This number of rows and columns of tiles, as equal as possible."""

    rows: int
    columns: int


TilePlan = Auto | Size | Grid

_WRITTEN = re.compile(r"(size|grid)\s+(\d{1,9})\s*x\s*(\d{1,9})")


def parse_tile_plan(text: str) -> TilePlan:
    """`auto`, `size WIDTHxHEIGHT` or `grid COLUMNSxROWS`.

    Raises PlanError for anything else.
    """
    text = text.strip().lower()
    if text == "auto":
        return Auto()
    match = _WRITTEN.fullmatch(text)
    if match is None:
        raise PlanError(
            f"tiles: {text!r} is not a tile plan; write auto, "
            "'size 512x512' (width x height) or 'grid 3x1' (columns x rows)"
        )
    kind, across, down = match[1], int(match[2]), int(match[3])
    if across < 1 or down < 1:
        raise PlanError(f"tiles: {text!r} has no tiles; both figures must be at least 1")
    return Size(down, across) if kind == "size" else Grid(down, across)


def cut(
    size: tuple[int, int], plan: Size | Grid, *, halo: int = 0, align: int = 1
) -> tuple[Tile, ...]:
    """Cut an image of `size` (height, width) into tiles, in row-major order.

    Raises PlanError where the image has fewer rows or columns than the grid.
    """
    tiles = []
    for index, core in enumerate(_cores(size, plan)):
        tiles.append(Tile(index, core, core.grown(halo, size, align), size))
    return tuple(tiles)


def _cores(size: tuple[int, int], plan: Size | Grid) -> Iterator[Rect]:
    height, width = size
    if height < 1 or width < 1:
        raise PlanError(f"an image of {width}x{height} pixels has nothing to cut")
    if isinstance(plan, Grid):
        if plan.rows > height or plan.columns > width:
            raise PlanError(
                f"grid {plan.columns}x{plan.rows} (columns x rows) is finer than "
                f"the image's {width}x{height} pixels"
            )
        rows = [height * i // plan.rows for i in range(plan.rows + 1)]
        columns = [width * i // plan.columns for i in range(plan.columns + 1)]
    else:
        rows = [*range(0, height, plan.height), height]
        columns = [*range(0, width, plan.width), width]
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            yield Rect(top, left, bottom - top, right - left)
