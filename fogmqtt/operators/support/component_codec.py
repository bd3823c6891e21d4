"""Connected components of one core, and their compact encoding for the gateway.

A *block* is one pixel for connectivity 4, and 2 x 2 pixels of the whole image for connectivity 8.
OpenCV numbers components in the order of their first blocks, and no two components share a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np

from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.errors import OperatorError, WireError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.measuring import Part
from fogmqtt.operators.support.packing import Packed, pack, unpack

#: A component, in pixels of the whole image; bottom and right are exclusive. `row` and `column` are
#: those of its first block; `x` and `y` are sums over the coordinates of its pixels.
_FIELDS = ("row", "column", "area", "top", "left", "bottom", "right", "x", "y")
REGION = np.dtype([(name, np.int64) for name in _FIELDS])
#: Numbers for each component on the wire, see `_columns`.
_COLUMNS = 8
#: The most bytes of a part for each pixel of the core, plus _SPARE_BYTES. Masks that need more are
#: sent as bits.
MOST_BYTES = 0.5
_SPARE_BYTES = 64
_EMPTY: Packed = (b"", b"", b"", b"")


class ComponentsPart(Part, frozen=True):
    """The components of a core; or, if they are too many, the pixels of the core."""

    #: Eight numbers for each component, see `_columns`: the first number of all, then the second, …
    regions: Packed
    #: The components along the seams as runs: lengths minus 1, then numbers from 1, or 0.
    rim: Packed
    #: The number of components that are too small and touch no seam.
    smaller: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: One bit for each pixel, row by row, or empty.
    pixels: bytes = b""


@dataclass(frozen=True)
class CorePlacement:
    """The position of a core in the whole image, its seams, and the connectivity of pixels."""

    core: Rect
    seams: Seams
    connectivity: int

    @property
    def step(self) -> int:
        """The side of a block in pixels."""
        return 2 if self.connectivity == 8 else 1

    @property
    def blocks(self) -> Rect:
        """The blocks that the core has pixels of."""
        top, left = self.core.top // self.step, self.core.left // self.step
        height = -(-self.core.bottom // self.step) - top
        width = -(-self.core.right // self.step) - left
        return Rect(top, left, height, width)

    @property
    def rim(self) -> int:
        """The number of pixels along the seams; a pixel in a corner counts twice."""
        across = (self.seams.top + self.seams.bottom) * self.core.width
        return across + (self.seams.left + self.seams.right) * self.core.height


@dataclass(frozen=True)
class CoreComponents:
    """The components of a core, in order."""

    #: Of dtype REGION.
    table: Image
    #: For each pixel along the seams (top, left, bottom, right) the number of its component in the
    #: table, from 1, or 0.
    rim: Image
    smaller: int


def find_components(mask: Image, placement: CorePlacement, least: int) -> CoreComponents:
    """Return the components of a core's pixels, (height, width) uint8.

    Components smaller than `least` pixels are counted only, unless they touch a seam. Raises
    OperatorError if OpenCV numbers components in another order than that of the blocks.
    """
    core, blocks, step = placement.core, placement.blocks, placement.step
    above, before = core.top - blocks.top * step, core.left - blocks.left * step
    below = blocks.height * step - above - core.height
    behind = blocks.width * step - before - core.width
    # Padded to whole blocks, so that OpenCV's blocks are those of the whole image.
    full = cv2.copyMakeBorder(mask, above, below, before, behind, cv2.BORDER_CONSTANT, value=0)
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(
        full, connectivity=placement.connectivity, ltype=cv2.CV_32S
    )
    first = _first_blocks(labels, step)
    if len(first) != count - 1:
        raise OperatorError(f"OpenCV {cv2.__version__} numbers components in another order")
    table = _table(stats[1:], centroids[1:], (blocks.top * step, blocks.left * step))
    table["row"], table["column"] = np.divmod(first, blocks.width)
    table["row"] += blocks.top
    table["column"] += blocks.left
    inside = labels[above : above + core.height, before : before + core.width]
    return _relevant(table, np.concatenate(list(_rim_lines(inside, placement.seams))), least)


def _first_blocks(labels: Image, step: int) -> Image:
    """Return the index of the first block of each component, where a new largest number occurs."""
    if step == 2:
        rows = np.maximum(labels[::2], labels[1::2])
        labels = np.maximum(rows[:, ::2], rows[:, 1::2])
    highest = np.maximum.accumulate(labels.ravel())
    return np.flatnonzero(np.diff(highest, prepend=np.int32(0)))


def _table(stats: Image, centroids: Image, origin: tuple[int, int]) -> Image:
    """Return OpenCV's figures as integers, in coordinates of the whole image."""
    table = np.zeros(len(stats), REGION)
    left, top, width, height, area = stats.T.astype(np.int64)
    table["area"] = area
    table["top"], table["left"] = top + origin[0], left + origin[1]
    table["bottom"], table["right"] = table["top"] + height, table["left"] + width
    # OpenCV divides the sums by the area in float64: they are exact below 2 ** 51.
    table["x"] = np.rint(centroids[:, 0] * area).astype(np.int64) + area * origin[1]
    table["y"] = np.rint(centroids[:, 1] * area).astype(np.int64) + area * origin[0]
    return table


def _rim_lines(labels: Image, seams: Seams) -> Iterator[Image]:
    yield np.zeros(0, np.int64)
    if seams.top:
        yield labels[0]
    if seams.left:
        yield labels[:, 0]
    if seams.bottom:
        yield labels[-1]
    if seams.right:
        yield labels[:, -1]


def _relevant(table: Image, rim: Image, least: int) -> CoreComponents:
    """Keep the components that have at least `least` pixels or touch a seam, and renumber them."""
    relevant = table["area"] >= least
    relevant[rim[rim > 0] - 1] = True
    renumbered = np.concatenate([[0], np.cumsum(relevant) * relevant])
    return CoreComponents(table[relevant], renumbered[rim], int(np.count_nonzero(~relevant)))


# The encoding on the wire.


def encode_components(
    mask: Image, found: CoreComponents, placement: CorePlacement
) -> ComponentsPart:
    """Return the components as a part, of at most MOST_BYTES for each pixel of the mask."""
    runs = np.flatnonzero(np.diff(found.rim, prepend=-1))
    lengths = np.diff(runs, append=len(found.rim))
    rim = pack(np.concatenate([lengths - 1, found.rim[runs]]))
    regions = pack(np.concatenate(_columns(found.table, placement)))
    size = sum(len(level) for level in (*rim, *regions))
    if size <= mask.size * MOST_BYTES + _SPARE_BYTES:
        return ComponentsPart(regions, rim, found.smaller)
    return ComponentsPart(_EMPTY, _EMPTY, pixels=np.packbits(mask != 0).tobytes())


def decode_components(part: ComponentsPart, placement: CorePlacement, least: int) -> CoreComponents:
    """Return the components of a received part. Raises WireError for an impossible one."""
    if part.pixels:
        return find_components(_bits(part.pixels, placement.core), placement, least)
    table = _decode_table(unpack(part.regions), placement)
    runs = unpack(part.rim)
    lengths, numbers = runs[: len(runs) // 2] + 1, runs[len(runs) // 2 :]
    valid = len(lengths) == len(numbers) and (numbers <= len(table)).all()
    if not valid or (lengths > placement.rim).any() or lengths.sum() != placement.rim:
        raise WireError("the components along the seams do not fit the seams or the table")
    if part.smaller > placement.core.pixels:
        raise WireError("there are more small components than pixels")
    return CoreComponents(table, np.repeat(numbers, lengths), part.smaller)


def _bits(data: bytes, core: Rect) -> Image:
    if len(data) != -(-core.pixels // 8):
        raise WireError(f"{len(data)} bytes of pixels do not fit {core}")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=core.pixels)
    return bits.reshape(core.height, core.width)


def _columns(table: Image, placement: CorePlacement) -> list[Image]:
    """Return eight small numbers for each component.

    The first is its distance, in blocks, from the component before.
    """
    blocks, step = placement.blocks, placement.step
    index = (table["row"] - blocks.top) * blocks.width + table["column"] - blocks.left
    return [
        np.diff(index, prepend=-1) - 1,
        table["area"] - 1,
        table["top"] - table["row"] * step,
        table["column"] * step + step - 1 - table["left"],
        table["bottom"] - table["top"] - 1,
        table["right"] - table["left"] - 1,
        table["x"] - table["left"] * table["area"],
        table["y"] - table["top"] * table["area"],
    ]


def _decode_table(numbers: Image, placement: CorePlacement) -> Image:
    blocks, step, most = placement.blocks, placement.step, 4 * placement.core.pixels
    if len(numbers) % _COLUMNS or len(numbers) > _COLUMNS * placement.core.pixels:
        raise WireError("components are incomplete, or more than pixels")
    gap, area, down, across, height, width, x, y = numbers.reshape(_COLUMNS, -1)
    if (numbers[: -2 * len(gap)] > most).any():
        raise WireError("components are larger than the core")
    table = np.zeros(len(gap), REGION)
    index = np.cumsum(gap + 1) - 1
    row, column = np.divmod(index, blocks.width)
    table["row"], table["column"] = row + blocks.top, column + blocks.left
    table["area"] = area + 1
    table["top"] = table["row"] * step + down
    table["left"] = table["column"] * step + step - 1 - across
    table["bottom"], table["right"] = table["top"] + height + 1, table["left"] + width + 1
    if not _fits(table, placement) or (x > area * width + width).any():
        raise WireError("the core has no room for the components")
    if (y > area * height + height).any():
        raise WireError("the centroid of a component is outside its box")
    table["x"] = x + table["left"] * table["area"]
    table["y"] = y + table["top"] * table["area"]
    return table


def _fits(table: Image, placement: CorePlacement) -> bool:
    """Return whether the core has room for these components."""
    core, blocks = placement.core, placement.blocks
    sides = (table["bottom"] - table["top"]) * (table["right"] - table["left"])
    return bool(
        (table["row"] < blocks.bottom).all()
        and (table["top"] >= core.top).all()
        and (table["left"] >= core.left).all()
        and (table["bottom"] <= core.bottom).all()
        and (table["right"] <= core.right).all()
        and (table["area"] <= sides).all()
        and table["area"].sum() <= core.pixels
    )
