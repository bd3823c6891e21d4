"""Windows at fixed positions, which make a detector exact for any tiling.

The result of a detector depends on all pixels that it gets. So an image is divided into *windows*:
squares of `side` pixels, every `stride` pixels down and across. Windows that would exceed the right
or bottom border are shifted inward, and an image smaller than a window is one window. A window
always has the same pixels and is searched alone, so it does not matter which device does it. It
belongs to the tile whose core contains its centre; with a halo of half a window that tile has all
of its pixels.

An object of at most `side - stride` pixels in width and height lies completely in some window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import msgspec
import numpy as np

from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.errors import OperatorError, WireError
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Facts, learned
from fogmqtt.operators.api.measuring import Measuring, Part, Parts, with_note

#: The most bytes of findings for each pixel that a window adds to the windows before it. With this
#: limit, a part is never larger than its tile.
_BYTES_PER_PIXEL = 0.25

#: One finding in a window, in the window's coordinates.
F = TypeVar("F", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """The windows of an image of `size` (height, width); `stride` is at most `side`."""

    size: tuple[int, int]
    side: int
    stride: int

    def __len__(self) -> int:
        return self._count(0) * self._count(1)

    def window(self, index: int) -> Rect:
        """Return the window of this index. Windows are numbered in row-major order."""
        row, column = divmod(index, self._count(1))
        height, width = (min(self.side, extent) for extent in self.size)
        return Rect(self._start(0, row), self._start(1, column), height, width)

    def owned(self, core: Rect) -> Iterator[int]:
        """Yield the windows that belong to the tile with this core, in order."""
        columns = list(self._centred(1, core.left, core.right))
        for row in self._centred(0, core.top, core.bottom):
            yield from (row * self._count(1) + column for column in columns)

    def added(self, window: Rect) -> int:
        """Return how many pixels a window adds to the windows before it."""
        return min(window.height, self.stride) * min(window.width, self.stride)

    def _count(self, axis: int) -> int:
        return max(0, -(-(self.size[axis] - self.side) // self.stride)) + 1

    def _start(self, axis: int, step: int) -> int:
        return max(0, min(step * self.stride, self.size[axis] - self.side))

    def _centred(self, axis: int, begin: int, end: int) -> Iterator[int]:
        """Yield the steps along an axis whose windows have their centre in `begin` to `end`."""
        half = min(self.side, self.size[axis]) // 2
        first = max(0, (begin - half) // self.stride)
        last = min(self._count(axis), (end - half) // self.stride + 2)
        for step in range(first, last):
            if begin <= self._start(axis, step) + half < end:
                yield step


class WindowFindings(msgspec.Struct, Generic[F], frozen=True, array_like=True):
    """The findings in one window."""

    window: int
    found: list[F]
    #: Number of findings that were left out because there were too many.
    left_out: int = 0


class TileFindings(Part, Generic[F], frozen=True):
    """The findings in a tile's windows, in order, without empty windows."""

    views: list[WindowFindings[F]]


@dataclass(frozen=True)
class WindowDetector(Measuring, Generic[F]):
    """Base of detectors. A detector defines the windows, searches one, and merges the findings.

    The findings of a window may take a quarter of a byte for each pixel of stride x stride.
    Findings beyond that, the last ones of `detect` first, are left out and counted.
    """

    #: Less than a byte for each pixel that was sent, so it never limits the size of tiles.
    part_pixel_bytes: ClassVar[float] = _BYTES_PER_PIXEL
    #: The most findings of a window, whatever their bytes; None: any number.
    most_per_window: ClassVar[int | None] = None
    #: The most findings of all windows; those of the last windows are left out and counted.
    most_in_image: ClassVar[int | None] = None

    #: Row and column of the tile's first pixel, height and width of the image.
    place: tuple[int, int, int, int] | None = learned()

    def __post_init__(self) -> None:
        self._require(self.place is None or min(self.place) >= 0, "place", "expected 0 or more")

    def window_layout(self) -> tuple[int, int]:
        """Return side and stride of the windows, in pixels."""
        raise NotImplementedError

    def detect(self, pixels: Image) -> Sequence[F]:
        """Return the findings in a window, best first. A pure function of the pixels."""
        raise NotImplementedError

    def merge(self, found: Sequence[tuple[Rect, F]], size: tuple[int, int]) -> Facts:
        """Return the facts of an image of `size` from all findings, in the order of the windows."""
        raise NotImplementedError

    @property
    def halo(self) -> int:
        return -(-self.window_layout()[0] // 2)

    def for_tile(self, outer: Rect, size: tuple[int, int]) -> Self:
        return replace(self, place=(outer.top, outer.left, *size))

    def measure(self, image: Image, core: Rect, seams: Seams) -> TileFindings[F]:
        """Raises OperatorError if the tile does not contain its windows."""
        del seams
        tile_size = image.shape[0], image.shape[1]
        top, left, *size = self.place or (0, 0, *tile_size)
        outer = Rect(top, left, *tile_size)
        grid = self._window_grid((size[0], size[1]))
        global_core = Rect(core.top + top, core.left + left, core.height, core.width)
        views = (self._search(image, outer, grid, index) for index in grid.owned(global_core))
        return TileFindings([view for view in views if view.found or view.left_out])

    def gather(self, parts: Parts, image: Spec) -> Facts:
        """Raises WireError for a window that is not the tile's, or that has too many findings."""
        grid = self._window_grid(image.size)
        views: list[WindowFindings[F]] = []
        for tile, part in parts:
            owned = set(grid.owned(tile.core))
            invalid = [view for view in part.views if not self._is_valid(view, owned, grid)]
            if invalid:
                raise WireError(
                    f"{self.name}: tile {tile.index} has findings for window {invalid[0].window} "
                    "which is not its own, or more than are allowed"
                )
            views.extend(part.views)
        return self._facts(sorted(views, key=lambda view: view.window), grid)

    def measure_whole(self, image: Image) -> Facts:
        grid = self._window_grid(Spec.of(image).size)
        whole = Rect(0, 0, *grid.size)
        views = [self._search(image, whole, grid, index) for index in range(len(grid))]
        return self._facts(views, grid)

    def _window_grid(self, size: tuple[int, int]) -> WindowGrid:
        return WindowGrid(size, *self.window_layout())

    def _search(self, image: Image, outer: Rect, grid: WindowGrid, index: int) -> WindowFindings[F]:
        window = grid.window(index)
        if not outer.contains(window):
            raise OperatorError(
                f"{self.name}: the tile {outer} does not contain its window {window}"
            )
        pixels = np.ascontiguousarray(image[window.within(outer).slices])
        found = list(self.detect(pixels))
        room = int(grid.added(window) * _BYTES_PER_PIXEL)
        kept = _limit_bytes(found[: self.most_per_window], room)
        return WindowFindings(index, kept, len(found) - len(kept))

    def _is_valid(self, view: WindowFindings[F], owned: set[int], grid: WindowGrid) -> bool:
        """Return whether it is one of the tile's windows, new, and within its limit of bytes."""
        if view.window not in owned or view.left_out < 0:
            return False
        owned.remove(view.window)
        room = int(grid.added(grid.window(view.window)) * _BYTES_PER_PIXEL)
        return len(_limit_bytes(view.found[: self.most_per_window], room)) == len(view.found)

    def _facts(self, views: Sequence[WindowFindings[F]], grid: WindowGrid) -> Facts:
        found = [(grid.window(view.window), one) for view in views for one in view.found]
        left_out = sum(view.left_out for view in views)
        left_out += len(found) - len(found[: self.most_in_image])
        found = found[: self.most_in_image]
        room = int(grid.stride**2 * _BYTES_PER_PIXEL)
        most = f" and are {self.most_per_window} at most" if self.most_per_window else ""
        return with_note(
            {**self.merge(found, grid.size), "left_out": left_out},
            f"the findings of a window may take {room} bytes{most}; larger windows may have more",
        )


def _limit_bytes(found: Sequence[F], room: int) -> list[F]:
    """Return the first of `found` that together take at most `room` bytes."""
    kept: list[F] = []
    for one in found:
        room -= len(msgspec.msgpack.encode(one))
        if room < 0:
            break
        kept.append(one)
    return kept


def to_hundredths(values: Any) -> Any:
    """Return pixels as whole hundredths, int64, so that positions are compared without rounding."""
    return np.rint(np.asarray(values, np.float64) * 100).astype(np.int64)
