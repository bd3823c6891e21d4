"""Connected components of one core: found, and as few bytes for the gateway.

A *block* is a pixel with 4 neighbours, 2 x 2 pixels of the whole image with 8: components stand
in the order of their first blocks, which is how OpenCV numbers them, and no two share a block.
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

#: A component, in pixels of the whole image; bottom and right are exclusive. `row` and `column`
#: are its first block's, `x` and `y` the sums over its pixels.
_FIELDS = ("row", "column", "area", "top", "left", "bottom", "right", "x", "y")
REGION = np.dtype([(name, np.int64) for name in _FIELDS])
#: What one takes on the wire, see `_columns`.
_COLUMNS = 8
#: Bytes of a part for each pixel of the core, beside a few dozen: denser masks travel as bits.
MOST_BYTES = 0.5
_FEW_BYTES = 64
_NOTHING: Packed = (b"", b"", b"", b"")


class ComponentsPart(Part, frozen=True):
    """The components of a core; or, where those are too many, its pixels."""

    #: Eight numbers each, see `_columns`: the first number of all, then the second...
    regions: Packed
    #: Components along the seams, in runs: lengths less 1, then numbers from 1, or 0.
    rim: Packed
    #: Components that are too small to be told and touch no seam.
    smaller: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: One bit each, row after row, or nothing.
    pixels: bytes = b""


@dataclass(frozen=True)
class CorePlacement:
    """Where a core lies in the whole image, and what makes its pixels neighbours."""

    core: Rect
    seams: Seams
    connectivity: int

    @property
    def step(self) -> int:
        """The side of a block, pixels."""
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
        """How many pixels lie along the seams; one in a corner counts twice."""
        across = (self.seams.top + self.seams.bottom) * self.core.width
        return across + (self.seams.left + self.seams.right) * self.core.height


@dataclass(frozen=True)
class CoreComponents:
    """The components of a core, in order."""

    #: Of dtype REGION.
    table: Image
    #: For each pixel along the seams (top, left, bottom, right) its component's number in the
    #: table, from 1, or 0.
    rim: Image
    smaller: int


def find_components(mask: Image, around: CorePlacement, least: int) -> CoreComponents:
    """The components of a core's pixels, uint8; those under `least` only where they touch a seam.

    Raises OperatorError should OpenCV number components in an order that is not the blocks'.
    """
    core, blocks, step = around.core, around.blocks, around.step
    above, before = core.top - blocks.top * step, core.left - blocks.left * step
    below = blocks.height * step - above - core.height
    behind = blocks.width * step - before - core.width
    # With all of its blocks, so that OpenCV's are those of the whole image.
    full = cv2.copyMakeBorder(mask, above, below, before, behind, cv2.BORDER_CONSTANT, value=0)
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(
        full, connectivity=around.connectivity, ltype=cv2.CV_32S
    )
    first = _firsts(labels, step)
    if len(first) != count - 1:
        raise OperatorError(f"OpenCV {cv2.__version__} numbers components in another order")
    table = _table(stats[1:], centroids[1:], (blocks.top * step, blocks.left * step))
    table["row"], table["column"] = np.divmod(first, blocks.width)
    table["row"] += blocks.top
    table["column"] += blocks.left
    inside = labels[above : above + core.height, before : before + core.width]
    return _told(table, np.concatenate(list(_sides(inside, around.seams))), least)


def _firsts(labels: Image, step: int) -> Image:
    """The index of the first block of each component: where a larger number occurs than before."""
    if step == 2:
        rows = np.maximum(labels[::2], labels[1::2])
        labels = np.maximum(rows[:, ::2], rows[:, 1::2])
    highest = np.maximum.accumulate(labels.ravel())
    return np.flatnonzero(np.diff(highest, prepend=np.int32(0)))


def _table(stats: Image, centroids: Image, origin: tuple[int, int]) -> Image:
    """OpenCV's figures, in whole numbers and in the whole image."""
    table = np.zeros(len(stats), REGION)
    left, top, width, height, area = stats.T.astype(np.int64)
    table["area"] = area
    table["top"], table["left"] = top + origin[0], left + origin[1]
    table["bottom"], table["right"] = table["top"] + height, table["left"] + width
    # OpenCV divided the sums by the area: nothing is lost below 2 ** 51.
    table["x"] = np.rint(centroids[:, 0] * area).astype(np.int64) + area * origin[1]
    table["y"] = np.rint(centroids[:, 1] * area).astype(np.int64) + area * origin[0]
    return table


def _sides(labels: Image, seams: Seams) -> Iterator[Image]:
    yield np.zeros(0, np.int64)
    if seams.top:
        yield labels[0]
    if seams.left:
        yield labels[:, 0]
    if seams.bottom:
        yield labels[-1]
    if seams.right:
        yield labels[:, -1]


def _told(table: Image, rim: Image, least: int) -> CoreComponents:
    told = table["area"] >= least
    told[rim[rim > 0] - 1] = True
    renumbered = np.concatenate([[0], np.cumsum(told) * told])
    return CoreComponents(table[told], renumbered[rim], int(np.count_nonzero(~told)))


# On the wire.


def encode_components(mask: Image, found: CoreComponents, around: CorePlacement) -> ComponentsPart:
    """What was found in the mask, in at most MOST_BYTES for each of its pixels."""
    runs = np.flatnonzero(np.diff(found.rim, prepend=-1))
    lengths = np.diff(runs, append=len(found.rim))
    rim = pack(np.concatenate([lengths - 1, found.rim[runs]]))
    regions = pack(np.concatenate(_columns(found.table, around)))
    size = sum(len(rung) for rung in (*rim, *regions))
    if size <= mask.size * MOST_BYTES + _FEW_BYTES:
        return ComponentsPart(regions, rim, found.smaller)
    return ComponentsPart(_NOTHING, _NOTHING, pixels=np.packbits(mask != 0).tobytes())


def decode_components(part: ComponentsPart, around: CorePlacement, least: int) -> CoreComponents:
    """What is in a part of the core there. Raises WireError for what no core can have."""
    if part.pixels:
        return find_components(_bits(part.pixels, around.core), around, least)
    table = _regions(unpack(part.regions), around)
    runs = unpack(part.rim)
    lengths, numbers = runs[: len(runs) // 2] + 1, runs[len(runs) // 2 :]
    fine = len(lengths) == len(numbers) and (numbers <= len(table)).all()
    if not fine or (lengths > around.rim).any() or lengths.sum() != around.rim:
        raise WireError("seams of another length, or with components that it does not tell of")
    if part.smaller > around.core.pixels:
        raise WireError("more small components than pixels")
    return CoreComponents(table, np.repeat(numbers, lengths), part.smaller)


def _bits(data: bytes, core: Rect) -> Image:
    if len(data) != -(-core.pixels // 8):
        raise WireError(f"{len(data)} bytes of pixels for {core}")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=core.pixels)
    return bits.reshape(core.height, core.width)


def _columns(table: Image, around: CorePlacement) -> list[Image]:
    """Eight small numbers for each component: where it is from the one before, then the rest."""
    blocks, step = around.blocks, around.step
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


def _regions(numbers: Image, around: CorePlacement) -> Image:
    blocks, step, most = around.blocks, around.step, 4 * around.core.pixels
    if len(numbers) % _COLUMNS or len(numbers) > _COLUMNS * around.core.pixels:
        raise WireError("components that are incomplete, or more than pixels")
    gap, area, down, across, height, width, x, y = numbers.reshape(_COLUMNS, -1)
    if (numbers[: -2 * len(gap)] > most).any():
        raise WireError("components that are larger than the core")
    table = np.zeros(len(gap), REGION)
    index = np.cumsum(gap + 1) - 1
    row, column = np.divmod(index, blocks.width)
    table["row"], table["column"] = row + blocks.top, column + blocks.left
    table["area"] = area + 1
    table["top"] = table["row"] * step + down
    table["left"] = table["column"] * step + step - 1 - across
    table["bottom"], table["right"] = table["top"] + height + 1, table["left"] + width + 1
    if not _possible(table, around) or (x > area * width + width).any():
        raise WireError("components that the core cannot have")
    if (y > area * height + height).any():
        raise WireError("components with their middle outside of them")
    table["x"] = x + table["left"] * table["area"]
    table["y"] = y + table["top"] * table["area"]
    return table


def _possible(table: Image, around: CorePlacement) -> bool:
    """Whether the core has room for these components: where they begin and how far they go."""
    core, blocks = around.core, around.blocks
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
