"""Connected components with areas, boxes and centroids, joined across seams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np

from fogmqtt.core.geometry import Rect, Seams, Tile
from fogmqtt.errors import OperatorError, WireError
from fogmqtt.images.cv import cv2
from fogmqtt.images.frames import frame
from fogmqtt.images.panels import box_corners, darkened, hue, pen
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Facts, Samples, learned, require_prepared
from fogmqtt.operators.api.measuring import Measuring, Part, Parts, with_note
from fogmqtt.operators.segmentation.labels import numbered
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

#: Number labels in a drawing: with more it cannot be read.
_MOST_NUMBERS = 60
#: Indices of components → their left, top, width, height and area, and their centroids.
_GetFigures = Callable[[Image], tuple[Image, Image]]


@dataclass(frozen=True)
class Components(Measuring):
    """Connected components of a mask, with area, box and centroid.

    Takes uint8 of 1 channel; values other than 0 are foreground: `gray | otsu | components`. Halo
    0. Exact, the same on all devices: areas, boxes, centroids and their order are those of
    `cv2.connectedComponentsWithStats` of the whole image.

    The facts::

        {"count": 2, "smaller": 0, "left_out": 0,
         "components": [{"number": 1, "area": 120, "left": 17, "top": 4, "width": 15,
                         "height": 10, "centroid": [24.5, 8.25]}]}

    Positions and lengths are pixels of the whole image. `count` components have at least
    `min_area`, and `smaller` have less. Components are numbered from 1 to `count`; with
    `min_area=1` the numbers are OpenCV's labels. `left_out` components, those with the smallest
    areas, are not listed, and `note` then says so. `labels` gives the image of the numbers.

    With `intensities`, each component has "intensity": {"mean": 97.5, "min": 12, "max": 201}, of
    the job's original image in gray, which must have the size of the mask. The gateway reads them.

    If the components of a tile would take more than half a byte for each of its pixels, the device
    sends the mask as bits instead, and the gateway finds the components.

    Parameters
    ----------
    connectivity : int
        8, or 4 for neighbours that share a side only.
    min_area : int
        The least area that counts, 1 to 2147483647 pixels.
    most : int
        The most components that are listed, 1 to 100000; a thousand take about 150 kB.
    intensities : bool
        Whether to measure the original image under each component.
    """

    name: ClassVar[str] = "components"
    part: ClassVar[type[Part]] = ComponentsPart
    part_pixel_bytes: ClassVar[float] = MOST_BYTES
    samples: ClassVar[Samples] = ({}, {"connectivity": 4})

    connectivity: int = 8
    min_area: int = 1
    most: int = 1000
    intensities: bool = False
    #: Row and column of the tile's first pixel.
    place: tuple[int, int] | None = learned()
    #: Means, smallest and largest values by number from 1 on. Only the gateway has them.
    _intensities: tuple[Image, Image, Image] | None = field(
        init=False, default=None, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        self._require(self.connectivity in (4, 8), "connectivity", "expected 4 or 8")
        self._require(1 <= self.min_area < 2**31, "min_area", "expected 1 to 2147483647 pixels")
        self._require(1 <= self.most <= 100_000, "most", "expected 1 to 100000")
        self._require(self.place is None or min(self.place) >= 0, "place", "expected 0 or more")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",), channels=(1,))
        return spec

    @property
    def reads_image(self) -> bool:
        return self.intensities

    def prepare(self, image: Image, original: Image) -> Self:
        """Return the operator with the intensities, if it measures them.

        Raises OperatorError if the original has another size than the mask.
        """
        if not self.intensities:
            return self
        if image.shape[:2] != original.shape[:2]:
            raise OperatorError(
                f"{self}: the mask is {Spec.of(image)}, the original {Spec.of(original)}: the "
                "pipeline must not change the size before it"
            )
        labels, count = numbered(image, self.connectivity, self.min_area)
        prepared = replace(self)
        object.__setattr__(prepared, "_intensities", _measured(labels, count, original))
        return prepared

    def for_tile(self, outer: Rect, size: tuple[int, int]) -> Self:
        del size
        return replace(self, place=(outer.top, outer.left))

    def measure(self, image: Image, core: Rect, seams: Seams) -> ComponentsPart:
        top, left = self.place or (0, 0)
        global_core = Rect(core.top + top, core.left + left, core.height, core.width)
        placement = CorePlacement(global_core, seams, self.connectivity)
        mask = image[core.slices]
        return encode_components(mask, find_components(mask, placement, self.min_area), placement)

    def gather(self, parts: Parts, image: Spec) -> Facts:
        """Raises WireError for components that a core cannot have."""
        del image
        found = [(tile, self._decoded(tile, part)) for tile, part in parts]
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

    def _decoded(self, tile: Tile, part: ComponentsPart) -> CoreComponents:
        placement = CorePlacement(tile.core, tile.seams, self.connectivity)
        try:
            return decode_components(part, placement, self.min_area)
        except WireError as problem:
            raise WireError(f"{self.name}: tile {tile.index}: {problem}") from None

    def _pairs(self, found: Sequence[tuple[Tile, CoreComponents]]) -> Image:
        """Return which rows of all tables touch across a seam, (n, 2) int64."""
        lines = list(_seam_lines(found))
        shifts = (-1, 0, 1) if self.connectivity == 8 else (0,)
        touching = [_touching(line, shift) for line in lines for shift in shifts]
        return np.concatenate([np.zeros((0, 2), np.int64), *touching]) - 1

    def _facts(self, areas: Image, figures: _GetFigures, smaller: int) -> Facts:
        """Return the facts of components with these areas, in OpenCV's order."""
        large = np.flatnonzero(areas >= self.min_area)
        listed = _largest(areas[large], self.most)
        stats, centroids = figures(large[listed])
        rows = zip((listed + 1).tolist(), stats.tolist(), centroids.tolist(), strict=True)
        components = [_component(*row) for row in rows]
        if self.intensities:
            means, smallest, largest = require_prepared(self, self._intensities)
            for one in components:
                at = one["number"] - 1
                values = {"mean": means[at], "min": smallest[at], "max": largest[at]}
                one["intensity"] = {name: value.item() for name, value in values.items()}
        facts = {
            "count": len(large),
            "smaller": smaller + len(areas) - len(large),
            "left_out": len(large) - len(listed),
            "components": components,
        }
        return with_note(facts, f"most={self.most} lists the largest; raise it, or min_area")

    def draw(self, picture: Image, facts: Facts) -> Image:
        """Draw the box of each component on the darkened image, and the numbers of the largest."""
        canvas = darkened(picture)
        components = sorted(facts["components"], key=lambda one: one["area"])
        for one in components[:-_MOST_NUMBERS]:
            (begin, _, end, _), colour = box_corners(one), hue(one["number"])
            cv2.rectangle(canvas, begin, end, colour, pen(canvas))
        for one in components[-_MOST_NUMBERS:]:
            frame(canvas, np.array(box_corners(one)), str(one["number"]), hue(one["number"]))
        return canvas


def _measured(labels: Image, count: int, original: Image) -> tuple[Image, Image, Image]:
    """Return mean, smallest and largest value of each component in the original in gray."""
    gray = original if original.ndim == 2 else cv2.cvtColor(original, cv2.COLOR_BGR2GRAY)
    inside = labels > 0
    where, values = labels[inside] - 1, gray[inside]
    pixels = np.bincount(where, minlength=count)
    means = np.bincount(where, weights=values, minlength=count) / pixels
    order = np.argsort(where, kind="stable")
    starts = np.concatenate([[0], np.cumsum(pixels)[:-1]]).astype(np.int64)[:count]
    values = values[order]
    if not count:
        return means, values, values
    return means, np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)


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
    """Yield the two lines of pixels along each seam of the whole image, (2, length).

    A pixel's value is the row of its component in all tables, counted from 1, or 0.
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
    """Yield the tile's seams in the order of its rim.

    Each is its axis, its position, the side of it on which the tile lies, and its extent.
    """
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
    """Return the pairs of components on the two sides of a seam whose pixels are `shift` apart."""
    length = line.shape[1]
    one = line[0, max(0, -shift) : length - max(0, shift)]
    other = line[1, max(0, shift) : length - max(0, -shift)]
    both = (one > 0) & (other > 0)
    # Components touch along runs of pixels: the first pixel of each run is sufficient.
    both[1:] &= (one[1:] != one[:-1]) | (other[1:] != other[:-1])
    return np.stack([one[both], other[both]], axis=1)


def _join(table: Image, pairs: Image) -> None:
    """Join components that touch: the first row in the table gets the sums, the others area 0."""
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


#: Field → the function that combines the values of joined components.
_SUMS = {
    **dict.fromkeys(("area", "x", "y"), np.add),
    **dict.fromkeys(("top", "left"), np.minimum),
    **dict.fromkeys(("bottom", "right"), np.maximum),
}


def _index(table: Image) -> Image:
    """Return the numbers by which OpenCV orders components: their first blocks, row by row."""
    index: Image = table["row"] * (int(table["column"].max(initial=0)) + 1) + table["column"]
    return index


def _figures(table: Image) -> tuple[Image, Image]:
    """Return left, top, width, height and area (n, 5), and centroids (n, 2), as OpenCV does."""
    width, height = table["right"] - table["left"], table["bottom"] - table["top"]
    stats = np.stack([table["left"], table["top"], width, height, table["area"]], axis=1)
    return stats, np.stack([table["x"], table["y"]], axis=1) / table["area"][:, np.newaxis]


def _largest(areas: Image, most: int) -> Image:
    """Return the indices of the largest areas, in ascending order; of equal ones the first."""
    if len(areas) <= most:
        return np.arange(len(areas))
    least = np.partition(areas, -most)[-most]
    over, equal = np.flatnonzero(areas > least), np.flatnonzero(areas == least)
    return np.sort(np.concatenate([over, equal[: most - len(over)]]))
