"""Connected components, with areas and boxes, across seams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from fogmqtt.core.geometry import Rect, Seams, Tile
from fogmqtt.errors import WireError
from fogmqtt.images.cv import cv2
from fogmqtt.images.frames import frame
from fogmqtt.images.panels import box_corners, darkened, hue, pen
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Facts, Samples, learned
from fogmqtt.operators.api.measuring import Measuring, Part, Parts
from fogmqtt.operators.support.component_codec import (
    MOST_BYTES,
    ComponentsPart,
    CoreComponents,
    CorePlacement,
    decode_components,
    encode_components,
    find_components,
)
from fogmqtt.operators.support.union_find import roots

#: With more numbers, a picture is a heap of numbers.
_NUMBERED = 60
#: Indices of components → left, top, width, height, area of each, and their centroids.
_Figures = Callable[[Image], tuple[Image, Image]]


@dataclass(frozen=True)
class Components(Measuring):
    """Connected components of a mask: area, box and centroid of each, over all seams.

    Takes uint8 of 1 channel; what is not 0 is foreground, so write `gray | otsu | components`.
    Halo 0. Exact: areas, boxes and centroids are those of `cv2.connectedComponentsWithStats` of
    the whole image, and the order is its order, the same on all devices.

    The facts::

        {"count": 2, "smaller": 0, "left_out": 0,
         "components": [{"number": 1, "area": 120, "left": 17, "top": 4, "width": 15,
                         "height": 10, "centroid": [24.5, 8.25]}]}

    Pixels of the whole image. `count` is how many have at least `min_area`, `smaller` how many
    have less. They are numbered from 1 to `count`, with `min_area=1` as OpenCV labels them;
    `left_out` of them, the ones of the smallest areas, are not listed.

    Where components are so many that they would take more than half a byte for each pixel of a
    tile, its mask travels as bits and the gateway looks for them.

    Parameters
    ----------
    connectivity : int
        8, or 4 for neighbours that share a side only.
    min_area : int
        Pixels, 1 to 2 ** 31 - 1.
    most : int
        How many are listed, 1 to 100000; a thousand take some 150 kB.
    """

    name: ClassVar[str] = "components"
    part: ClassVar[type[Part]] = ComponentsPart
    part_pixel_bytes: ClassVar[float] = MOST_BYTES
    samples: ClassVar[Samples] = ({}, {"connectivity": 4})

    connectivity: int = 8
    min_area: int = 1
    most: int = 1000
    #: Row and column of the tile's first pixel.
    place: tuple[int, int] | None = learned()

    def __post_init__(self) -> None:
        self._require(self.connectivity in (4, 8), "connectivity", "expected 4 or 8")
        self._require(1 <= self.min_area < 2**31, "min_area", "expected 1 to 2147483647 pixels")
        self._require(1 <= self.most <= 100_000, "most", "expected 1 to 100000")
        self._require(self.place is None or min(self.place) >= 0, "place", "expected 0 or more")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",), channels=(1,))
        return spec

    def for_tile(self, outer: Rect, size: tuple[int, int]) -> Self:
        del size
        return replace(self, place=(outer.top, outer.left))

    def measure(self, image: Image, core: Rect, seams: Seams) -> ComponentsPart:
        top, left = self.place or (0, 0)
        moved = Rect(core.top + top, core.left + left, core.height, core.width)
        around = CorePlacement(moved, seams, self.connectivity)
        mask = image[core.slices]
        return encode_components(mask, find_components(mask, around, self.min_area), around)

    def gather(self, parts: Parts, image: Spec) -> Facts:
        """Raises WireError for components that a core cannot have."""
        del image
        found = [(tile, self._unpacked(tile, part)) for tile, part in parts]
        table = np.concatenate([one.table for _, one in found])
        _join(table, self._pairs(found))
        table = table[table["area"] > 0]
        order = np.argsort(_index(table))
        areas = table["area"][order]
        smaller = sum(one.smaller for _, one in found)
        return self._facts(areas, lambda listed: _figures(table[order[listed]]), smaller)

    def measure_whole(self, image: Image) -> Facts:
        _, _, stats, centroids = cv2.connectedComponentsWithStats(
            image, connectivity=self.connectivity, ltype=cv2.CV_32S
        )
        stats, centroids = stats[1:], centroids[1:]
        areas = stats[:, cv2.CC_STAT_AREA]
        return self._facts(areas, lambda listed: (stats[listed], centroids[listed]), 0)

    def _unpacked(self, tile: Tile, part: ComponentsPart) -> CoreComponents:
        around = CorePlacement(tile.core, tile.seams, self.connectivity)
        try:
            return decode_components(part, around, self.min_area)
        except WireError as problem:
            raise WireError(f"{self.name}: tile {tile.index}: {problem}") from None

    def _pairs(self, found: Sequence[tuple[Tile, CoreComponents]]) -> Image:
        """Which rows of all tables touch across a seam, (n, 2)."""
        lines = list(_seam_lines(found))
        shifts = (-1, 0, 1) if self.connectivity == 8 else (0,)
        touching = [_touching(line, shift) for line in lines for shift in shifts]
        return np.concatenate([np.zeros((0, 2), np.int64), *touching]) - 1

    def _facts(self, areas: Image, figures: _Figures, smaller: int) -> Facts:
        """The facts of components with these areas, in OpenCV's order."""
        large = np.flatnonzero(areas >= self.min_area)
        listed = _largest(areas[large], self.most)
        stats, centroids = figures(large[listed])
        rows = zip((listed + 1).tolist(), stats.tolist(), centroids.tolist(), strict=True)
        return {
            "count": len(large),
            "smaller": smaller + len(areas) - len(large),
            "left_out": len(large) - len(listed),
            "components": [_component(*row) for row in rows],
        }

    def draw(self, picture: Image, facts: Facts) -> Image:
        """Each in its box on the darkened picture, the largest with their numbers."""
        canvas = darkened(picture)
        components = sorted(facts["components"], key=lambda one: one["area"])
        for one in components[:-_NUMBERED]:
            (begin, _, end, _), colour = box_corners(one), hue(one["number"])
            cv2.rectangle(canvas, begin, end, colour, pen(canvas))
        for one in components[-_NUMBERED:]:
            frame(canvas, np.array(box_corners(one)), str(one["number"]), hue(one["number"]))
        return canvas


def _component(number: int, stats: list[int], centroid: list[float]) -> dict[str, Any]:
    left, top, width, height, area = stats
    return {
        "number": number,
        "area": area,
        "left": left,
        "top": top,
        "width": width,
        "height": height,
        "centroid": centroid,
    }


def _seam_lines(found: Sequence[tuple[Tile, CoreComponents]]) -> Iterator[Image]:
    """For each seam through the whole image the two lines of pixels along it, (2, length).

    A pixel is its component's row in all tables, from 1, or 0.
    """
    lines: dict[tuple[str, int], Image] = {}
    before = 0
    for tile, one in found:
        numbers = np.where(one.rim > 0, one.rim + before, 0)
        before += len(one.table)
        for axis, at, side, along in _seams(tile):
            length = tile.size[1] if axis == "row" else tile.size[0]
            line = lines.setdefault((axis, at), np.zeros((2, length), np.int64))
            count = along.stop - along.start
            line[side, along], numbers = numbers[:count], numbers[count:]
    yield from lines.values()


def _seams(tile: Tile) -> Iterator[tuple[str, int, int, slice]]:
    """The tile's seams in the order of its rim: where, on which side of it, and how far."""
    core, seams = tile.core, tile.seams
    across, down = slice(core.left, core.right), slice(core.top, core.bottom)
    if seams.top:
        yield "row", core.top, 1, across
    if seams.left:
        yield "column", core.left, 1, down
    if seams.bottom:
        yield "row", core.bottom, 0, across
    if seams.right:
        yield "column", core.right, 0, down


def _touching(line: Image, shift: int) -> Image:
    """Pairs across a seam, of pixels that are `shift` apart along it."""
    length = line.shape[1]
    one = line[0, max(0, -shift) : length - max(0, shift)]
    other = line[1, max(0, shift) : length - max(0, -shift)]
    both = (one > 0) & (other > 0)
    # Two that touch do so in runs: the first pixel of each is enough.
    both[1:] &= (one[1:] != one[:-1]) | (other[1:] != other[:-1])
    return np.stack([one[both], other[both]], axis=1)


def _join(table: Image, pairs: Image) -> None:
    """Make one of those that touch: the first of them in the table; the others lose their area."""
    nodes, places = np.unique(pairs, return_inverse=True)
    if not len(nodes):
        return
    root = roots(len(nodes), places.reshape(pairs.shape))
    order = np.argsort(root, kind="stable")
    starts = np.flatnonzero(np.diff(root[order], prepend=-1))
    pieces = table[nodes[order]]
    firsts = np.lexsort((_index(pieces), root[order]))[starts]
    joined = pieces[starts]
    joined["row"], joined["column"] = pieces["row"][firsts], pieces["column"][firsts]
    for name, add in _SUMS.items():
        joined[name] = add.reduceat(pieces[name], starts)
    table["area"][nodes] = 0
    table[nodes[order[starts]]] = joined


#: How each field of two is made that of one.
_SUMS = {
    **dict.fromkeys(("area", "x", "y"), np.add),
    **dict.fromkeys(("top", "left"), np.minimum),
    **dict.fromkeys(("bottom", "right"), np.maximum),
}


def _index(table: Image) -> Image:
    """By which OpenCV orders components: their first blocks, row by row."""
    index: Image = table["row"] * (int(table["column"].max(initial=0)) + 1) + table["column"]
    return index


def _figures(table: Image) -> tuple[Image, Image]:
    """As OpenCV gives them: left, top, width, height, area; and centroids."""
    width, height = table["right"] - table["left"], table["bottom"] - table["top"]
    stats = np.stack([table["left"], table["top"], width, height, table["area"]], axis=1)
    return stats, np.stack([table["x"], table["y"]], axis=1) / table["area"][:, np.newaxis]


def _largest(areas: Image, most: int) -> Image:
    """The indices of the largest, in order; of equal ones the first."""
    if len(areas) <= most:
        return np.arange(len(areas))
    least = np.partition(areas, -most)[-most]
    over, equal = np.flatnonzero(areas > least), np.flatnonzero(areas == least)
    return np.sort(np.concatenate([over, equal[: most - len(over)]]))
