"""Windows of fixed places: what makes a detector exact for any tiling.

What a detector answers depends on all that it sees. So the image is looked at in *windows*:
squares of `side` pixels, every `stride` pixels down and across; those that would reach beyond the
right or bottom border are moved inward, and an image smaller than a window is one window. A window
is always the same pixels, and is looked at alone: by whom does not matter. It belongs to the tile
whose core has its centre, and with a halo of half a window that tile has all of it.

What is at most `side - stride` pixels wide and high lies whole in some window.
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
from fogmqtt.operators.api.measuring import Measuring, Part, Parts

#: Of each pixel that a window adds to the windows before it, so many of its bytes may be facts:
#: a part is then never larger than the tile that it answers, whatever the image.
_FACT_SHARE = 0.25

#: One thing found in a window, in the window's coordinates.
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
        """The window of this index; they are counted in row-major order."""
        row, column = divmod(index, self._count(1))
        height, width = (min(self.side, extent) for extent in self.size)
        return Rect(self._start(0, row), self._start(1, column), height, width)

    def owned(self, core: Rect) -> Iterator[int]:
        """The windows that belong to the tile with this core, in order."""
        columns = list(self._centred(1, core.left, core.right))
        for row in self._centred(0, core.top, core.bottom):
            yield from (row * self._count(1) + column for column in columns)

    def added(self, window: Rect) -> int:
        """Pixels that a window adds to those before it."""
        return min(window.height, self.stride) * min(window.width, self.stride)

    def _count(self, axis: int) -> int:
        return max(0, -(-(self.size[axis] - self.side) // self.stride)) + 1

    def _start(self, axis: int, step: int) -> int:
        return max(0, min(step * self.stride, self.size[axis] - self.side))

    def _centred(self, axis: int, begin: int, end: int) -> Iterator[int]:
        """The steps along an axis whose windows have their centre from `begin` to `end`."""
        half = min(self.side, self.size[axis]) // 2
        first = max(0, (begin - half) // self.stride)
        last = min(self._count(axis), (end - half) // self.stride + 2)
        for step in range(first, last):
            if begin <= self._start(axis, step) + half < end:
                yield step


class WindowFindings(msgspec.Struct, Generic[F], frozen=True, array_like=True):
    """What one window shows."""

    window: int
    found: list[F]
    #: Things that were found and not told: there were too many.
    left_out: int = 0


class TileFindings(Part, Generic[F], frozen=True):
    """A tile's windows in which something was found, in order."""

    views: list[WindowFindings[F]]


@dataclass(frozen=True)
class WindowDetector(Measuring, Generic[F]):
    """Base of detectors. They say how large windows are, look at one, and merge what was found.

    A window may tell a quarter of a byte for each pixel of stride x stride; what is beyond that
    is left out, the last of `look` first, and counted.
    """

    #: Less than a byte for each pixel that was sent, so this never decides about tiles.
    part_pixel_bytes: ClassVar[float] = _FACT_SHARE

    #: Row and column of the tile's first pixel, height and width of the image.
    place: tuple[int, int, int, int] | None = learned()

    def __post_init__(self) -> None:
        self._require(self.place is None or min(self.place) >= 0, "place", "expected 0 or more")

    def window_layout(self) -> tuple[int, int]:
        """Side and stride of the windows, pixels."""
        raise NotImplementedError

    def detect(self, pixels: Image) -> Sequence[F]:
        """What is in a window, best first. Pure: the same pixels have the same answer."""
        raise NotImplementedError

    def merge(self, found: Sequence[tuple[Rect, F]], size: tuple[int, int]) -> Facts:
        """The facts of an image of `size` from all windows' findings, in the windows' order."""
        raise NotImplementedError

    @property
    def halo(self) -> int:
        return -(-self.window_layout()[0] // 2)

    def for_tile(self, outer: Rect, size: tuple[int, int]) -> Self:
        return replace(self, place=(outer.top, outer.left, *size))

    def measure(self, image: Image, core: Rect, seams: Seams) -> TileFindings[F]:
        """Raises OperatorError where the tile does not have its windows."""
        del seams
        here = image.shape[0], image.shape[1]
        top, left, *size = self.place or (0, 0, *here)
        outer = Rect(top, left, *here)
        lattice = self._lattice((size[0], size[1]))
        moved = Rect(core.top + top, core.left + left, core.height, core.width)
        views = (self._view(image, outer, lattice, index) for index in lattice.owned(moved))
        return TileFindings([view for view in views if view.found or view.left_out])

    def gather(self, parts: Parts, image: Spec) -> Facts:
        """Raises WireError for a window that is not the tile's, or tells too much."""
        lattice = self._lattice(image.size)
        views: list[WindowFindings[F]] = []
        for tile, part in parts:
            owned = set(lattice.owned(tile.core))
            strange = [view for view in part.views if not self._believed(view, owned, lattice)]
            if strange:
                raise WireError(
                    f"{self.name}: tile {tile.index} tells of window {strange[0].window} "
                    "what it cannot know, or more than it may"
                )
            views.extend(part.views)
        return self._facts(sorted(views, key=lambda view: view.window), lattice)

    def measure_whole(self, image: Image) -> Facts:
        lattice = self._lattice(Spec.of(image).size)
        whole = Rect(0, 0, *lattice.size)
        views = [self._view(image, whole, lattice, index) for index in range(len(lattice))]
        return self._facts(views, lattice)

    def _lattice(self, size: tuple[int, int]) -> WindowGrid:
        return WindowGrid(size, *self.window_layout())

    def _view(
        self, image: Image, outer: Rect, lattice: WindowGrid, index: int
    ) -> WindowFindings[F]:
        window = lattice.window(index)
        if not outer.contains(window):
            raise OperatorError(f"{self.name}: the tile {outer} does not have its window {window}")
        pixels = np.ascontiguousarray(image[window.within(outer).slices])
        found = list(self.detect(pixels))
        told = _within(found, int(lattice.added(window) * _FACT_SHARE))
        return WindowFindings(index, told, len(found) - len(told))

    def _believed(self, view: WindowFindings[F], owned: set[int], lattice: WindowGrid) -> bool:
        """Whether it is a window of the tile's, tells once, and no more than there is room for."""
        if view.window not in owned or view.left_out < 0:
            return False
        owned.remove(view.window)
        room = int(lattice.added(lattice.window(view.window)) * _FACT_SHARE)
        return len(_within(view.found, room)) == len(view.found)

    def _facts(self, views: Sequence[WindowFindings[F]], lattice: WindowGrid) -> Facts:
        found = [(lattice.window(view.window), one) for view in views for one in view.found]
        facts = self.merge(found, lattice.size)
        return {**facts, "left_out": sum(view.left_out for view in views)}


def _within(found: Sequence[F], room: int) -> list[F]:
    """The first of `found`, as many as take at most `room` bytes."""
    told: list[F] = []
    for one in found:
        room -= len(msgspec.msgpack.encode(one))
        if room < 0:
            break
        told.append(one)
    return told


def to_hundredths(values: Any) -> Any:
    """Pixels as whole hundredths, int64: how places travel, and are compared without rounding."""
    return np.rint(np.asarray(values, np.float64) * 100).astype(np.int64)
