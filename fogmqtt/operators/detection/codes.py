"""QR codes, bar codes and ArUco markers, found across seams, and in photographs that they fill.

Windows of the image itself find what is small. Larger codes are found by coarser looks: the image
is halved until it fits into one window, and each halved image is searched in windows, too. Long
codes with thin bars, which no window holds and no halved image shows, are searched in the image
itself, in very large windows: that takes ZXing half a second for 24 million pixels. The gateway
takes these looks when it prepares a job. The coarser ones have a third of the pixels, and no tile
holds a window of any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, ClassVar, NamedTuple, Self, cast

import msgspec
import numpy as np

from fogmqtt.core.geometry import Rect
from fogmqtt.errors import OperatorError
from fogmqtt.images.cv import cv2
from fogmqtt.images.frames import Colour, frame
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Facts, Samples
from fogmqtt.operators.api.registry import suggestion
from fogmqtt.operators.detection.code_readers import (
    BARS,
    KINDS,
    Code,
    Corners,
    Kind,
    dictionaries,
    search,
    search_bars,
)
from fogmqtt.operators.detection.code_sample import sample_windows
from fogmqtt.operators.support.sliding_window import TileFindings, WindowDetector, WindowGrid

#: Windows of coarser looks are squares of so many times `size`: what fills them has enough pixels
#: to be read although they were halved.
_COARSE = 4
#: The side of windows in which long codes with thin bars are searched, at full resolution.
_BARS = 8192
#: Codes at one place that are compared side by side.
_MOST_NEAR = 32


class _Found(NamedTuple):
    """A code in the whole image. Of codes of a kind that overlap, the first in order is kept."""

    kind: Kind
    #: Minus its distance from the nearest cut side of its window.
    rank: int
    text: str
    corners: tuple[int, ...]


@dataclass(frozen=True)
class Codes(WindowDetector[Code]):
    """QR codes, bar codes and ArUco markers, with their texts and corners.

    Takes uint8 of 1 or 3 channels. The image is searched in windows: squares of twice `size`, every
    `size` pixels. OpenCV's detectors find QR codes, bar codes of goods (EAN-13, EAN-8, UPC) and
    ArUco markers, ZXing finds QR codes, Code 128, Data Matrix and PDF417. Then the gateway searches
    the image at half its size, a quarter and so on until it fits into one window of four times
    `size`, so that a code may fill a photograph; there, ZXing alone searches QR codes. It searches
    the whole image for Code 128 and PDF417 as well, whose thin bars may be longer than a window. Of
    overlapping codes of one kind, the one of the finest look is kept, and in it the one that is
    farthest from a cut side of its window. Halo: `size`. Exact for any tiling, between devices that
    find alike in a test image and have the same OpenCV and ZXing.

    The facts::

        {"codes": [{"kind": "qr", "text": "…", "corners": [[x, y], [x, y], [x, y], [x, y]]}],
         "left_out": 0}

    Codes are listed in reading order, with their corners in pixels of the whole image, to a
    hundredth, in the detector's order. Only codes whose text could be read are listed. The text of
    an ArUco marker is its number. Invalid UTF-8 becomes U+FFFD. The findings of a window may take
    `size` squared / 4 bytes (a code takes about 40 bytes and its text); `left_out` counts the codes
    beyond that, the smallest ones. Code 128 and PDF417 are read at any angle. A PDF417 whose bars
    are too thin for the looks that hold it is read within a degree of level or upright only.

    Parameters
    ----------
    kinds : str
        The kinds to search, separated by commas: qr, bar, aruco, code128, datamatrix, pdf417.
    dictionary : str
        The dictionary of the ArUco markers: one of OpenCV's, such as 4x4_50 or apriltag_36h11.
    size : int
        The largest code that is certainly found at full resolution, with its white margin: the
        longer side of its upright bounding box, 32 to 2048 pixels. A larger one is searched at half
        the resolution, and so on.
    """

    name: ClassVar[str] = "codes"
    part: ClassVar[Any] = TileFindings[Code]
    begins_stage: ClassVar[bool] = True
    # Their places are compared with each other.
    most_in_image: ClassVar[int | None] = 10_000
    # The test images contain no codes; see `probe`.
    samples: ClassVar[Samples] = ()
    libraries: ClassVar[tuple[str, ...]] = ("opencv", "zxing")
    exactness: ClassVar[str] = (
        "searched in windows of twice its size, not in the whole image at once; only between "
        "devices that find alike in a test image and have the same OpenCV and ZXing"
    )

    kinds: str = ",".join(KINDS)
    dictionary: str = "4x4_50"
    size: int = 256
    #: What the coarser looks found, the finest first. Only the gateway has it.
    _looks: tuple[tuple[_Found, ...], ...] = field(
        init=False, default=(), repr=False, compare=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = self.kinds.split(",")
        known = set(kinds) <= set(KINDS) and len(kinds) == len(set(kinds))
        self._require(known, "kinds", f"expected some of {','.join(KINDS)}, each once")
        names = dictionaries()
        self._require(self.dictionary in names, "dictionary", suggestion(self.dictionary, names))
        self._require(32 <= self.size <= 2048, "size", "expected 32 to 2048 pixels")

    @classmethod
    def probe(cls) -> bytes:
        """Return what is found in windows with a code of each kind."""
        return msgspec.msgpack.encode([cls().detect(window) for window in sample_windows()])

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",), channels=(1, 3))
        if "qr" in self._kinds and not hasattr(cv2.QRCodeDetector, "detectAndDecodeBytesMulti"):
            others = ",".join(kind for kind in KINDS if kind != "qr")
            raise OperatorError(
                f"codes: QR codes need OpenCV 4.12 or newer, this is {cv2.__version__}; "
                f"update it, or write kinds={others}"
            )
        return spec

    def window_layout(self) -> tuple[int, int]:
        return 2 * self.size, self.size

    def prepare(self, image: Image, original: Image) -> Self:
        """Return the operator with the findings of the coarser looks."""
        del original
        prepared = replace(self)
        # init=False keeps it from devices, which need it not, and dataclass fields are frozen.
        object.__setattr__(prepared, "_looks", tuple(self._coarser_looks(image)))
        return prepared

    def detect(self, pixels: Image) -> Sequence[Code]:
        codes = search(_gray(pixels), self._kinds, self.dictionary)
        return sorted(codes, key=lambda code: (-_box_area(code.corners), *_order(code)))

    def merge(self, found: Sequence[tuple[Rect, Code]], size: tuple[int, int]) -> Facts:
        codes = _separate(_to_image(code, window, size) for window, code in found)
        # From the finest look to the coarsest: each adds the codes that are too large before it.
        for look in self._looks:
            codes = _joined(codes, look)
        codes = _without_misread_bars(codes)
        listed = sorted((Code(one.kind, one.text, _corners(one)) for one in codes), key=_order)
        return {"codes": [_fact(code) for code in listed]}

    def draw(self, picture: Image, facts: Facts) -> Image:
        """Draw a frame around each code, with its text above it."""
        for code in facts["codes"]:
            corners = np.array(code["corners"])
            frame(picture, corners, f"{code['kind']} {code['text']}", _COLOURS[code["kind"]])
        return picture

    @property
    def _kinds(self) -> list[Kind]:
        return cast("list[Kind]", self.kinds.split(","))

    def _coarser_looks(self, image: Image) -> Iterator[tuple[_Found, ...]]:
        """Yield the long bars in the image, and what is found at half its size and so on."""
        gray, factor, side = _gray(image), 1, 2 * self.size
        bars = [kind for kind in self._kinds if kind in BARS]
        if bars and max(gray.shape) > side:
            yield tuple(_separate(_look(gray, 1, _BARS, lambda window: search_bars(window, bars))))
        while max(gray.shape) > side:
            gray, factor, side = _halved(gray), 2 * factor, _COARSE * self.size
            yield tuple(_separate(_look(gray, factor, side, self._search_quickly)))

    def _search_quickly(self, window: Image) -> Iterable[Code]:
        return search(window, self._kinds, self.dictionary, quick=True)


_COLOURS: dict[str, Colour] = {
    "qr": (0, 160, 0),
    "bar": (200, 80, 0),
    "aruco": (0, 0, 220),
    "code128": (160, 0, 160),
    "datamatrix": (0, 110, 220),
    "pdf417": (130, 130, 0),
}


def _gray(pixels: Image) -> Image:
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)


def _halved(gray: Image) -> Image:
    """Return the means of squares of two pixels a side; a last odd row or column is left out."""
    height, width = (max(1, extent // 2) for extent in gray.shape)
    even = gray[: 2 * height, : 2 * width]
    return cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)


def _look(
    gray: Image, factor: int, side: int, search: Callable[[Image], Iterable[Code]]
) -> Iterator[_Found]:
    """Yield the codes of an image that is smaller than the original by `factor`.

    It is searched in windows of `side`, every half of it.
    """
    size = gray.shape[0], gray.shape[1]
    grid = WindowGrid(size, side, side // 2)
    for index in range(len(grid)):
        window = grid.window(index)
        for code in search(np.ascontiguousarray(gray[window.slices])):
            one = _to_image(code, window, size)
            # A pixel of the look is `factor` pixels wide, and a position its middle.
            yield one._replace(corners=tuple((at + 50) * factor - 50 for at in one.corners))


class _Near:
    """Finds the codes that overlap another one, among those whose upright boxes do.

    The boxes are compared in one array: a device may send thousands of codes, all different.
    """

    def __init__(self, codes: Sequence[_Found] = ()) -> None:
        self.codes: list[_Found] = []
        self._boxes = np.zeros((64, 4), np.int64)
        for one in codes:
            self.add(one)

    def add(self, one: _Found) -> None:
        count = len(self.codes)
        if count == len(self._boxes):
            self._boxes = np.concatenate([self._boxes, np.zeros_like(self._boxes)])
        self._boxes[count] = _box(one)
        self.codes.append(one)

    def overlapping(self, one: _Found) -> list[_Found]:
        """Return the codes that overlap it, in order.

        Beyond _MOST_NEAR boxes at one place, no photograph has so many codes there, and every box
        counts as its code.
        """
        left, top, right, bottom = _box(one)
        boxes = self._boxes[: len(self.codes)]
        apart = (boxes[:, 0] >= right) | (boxes[:, 2] <= left)
        apart |= (boxes[:, 1] >= bottom) | (boxes[:, 3] <= top)
        near = [self.codes[at] for at in np.flatnonzero(~apart)[: _MOST_NEAR + 1]]
        if len(near) > _MOST_NEAR:
            return near
        return [other for other in near if _overlap(one.corners, other.corners)]


def _box(one: _Found) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the upright box around a code."""
    across, down = one.corners[::2], one.corners[1::2]
    return min(across), min(down), max(across), max(down)


def _separate(found: Iterable[_Found]) -> list[_Found]:
    """Return the best of the codes of a kind that overlap: another text is misread."""
    kept: list[_Found] = []
    for _, same in groupby(sorted(found), key=lambda one: one.kind):
        separate = _Near()
        for one in same:
            if not separate.overlapping(one):
                separate.add(one)
        kept += separate.codes
    return kept


def _without_misread_bars(found: Sequence[_Found]) -> list[_Found]:
    """Return the codes without bar codes of goods that are Code 128: OpenCV misreads some of these.

    The check of Code 128 is the stronger one.
    """
    stronger = _Near([one for one in found if one.kind == "code128"])
    return [one for one in found if one.kind != "bar" or not stronger.overlapping(one)]


def _joined(fine: Sequence[_Found], coarse: Sequence[_Found]) -> list[_Found]:
    """Return the codes of two looks.

    Of a code in both, the finer position is kept, unless it covers a part of the coarser one only:
    bars can be read in each of two windows, and some codes without a third of them.
    """
    near = {kind: _Near([one for one in fine if one.kind == kind]) for kind in KINDS}
    kept = dict.fromkeys(fine)
    for one in coarse:
        pieces = near[one.kind].overlapping(one)
        is_same = len(pieces) == 1 and _covers(pieces[0], one)
        if not is_same and all(piece.text == one.text for piece in pieces):
            for piece in pieces:
                kept.pop(piece, None)
            kept[one] = None
    return list(kept)


def _covers(fine: _Found, coarse: _Found) -> bool:
    """Return whether a position is that of the whole code: nearly as long as the coarser one."""
    return 4 * _length(fine.corners) >= 3 * _length(coarse.corners)


# Quadrilaterals, in hundredths of a pixel: integers, so the order of the work does not matter.


def _order(code: Code) -> tuple[int, int, str, str, Corners]:
    """Return the sort key for reading order: from the top, then from the left."""
    return min(code.corners[1::2]), min(code.corners[::2]), code.kind, code.text, code.corners


def _length(corners: Sequence[int]) -> int:
    """Return the longer side of the upright box around a quadrilateral."""
    across, down = corners[::2], corners[1::2]
    return max(max(across) - min(across), max(down) - min(down))


def _box_area(corners: Corners) -> int:
    """Return the area of the upright box around a quadrilateral."""
    across, down = corners[::2], corners[1::2]
    return (max(across) - min(across)) * (max(down) - min(down))


def _distance_to_cut(code: Code, window: Rect, size: tuple[int, int]) -> int:
    """Return 4 times the distance of the code's centre from the nearest cut side of its window."""
    x, y = sum(code.corners[::2]), sum(code.corners[1::2])
    cuts = (
        (y, window.top > 0),
        (400 * window.height - y, window.bottom < size[0]),
        (x, window.left > 0),
        (400 * window.width - x, window.right < size[1]),
    )
    return min((distance for distance, cut in cuts if cut), default=400 * max(size))


def _to_image(code: Code, window: Rect, size: tuple[int, int]) -> _Found:
    """Return a code of a window in an image of `size`."""
    offset = (100 * window.left, 100 * window.top) * 4
    corners = tuple(place + by for place, by in zip(code.corners, offset, strict=True))
    return _Found(code.kind, -_distance_to_cut(code, window, size), code.text, corners)


def _corners(one: _Found) -> Corners:
    return cast("Corners", one.corners)


def _overlap(one: Sequence[int], other: Sequence[int]) -> bool:
    """Return whether two convex quadrilaterals overlap: no side of either separates them."""
    return not any(_separates(edges, one, other) for edges in (one, other))


def _separates(edges: Sequence[int], one: Sequence[int], other: Sequence[int]) -> bool:
    for corner in range(0, 8, 2):
        following = (corner + 2) % 8
        dx, dy = edges[following] - edges[corner], edges[following + 1] - edges[corner + 1]
        if dx == dy == 0:
            continue
        first, second = ([dx * q[i + 1] - dy * q[i] for i in range(0, 8, 2)] for q in (one, other))
        if max(first) <= min(second) or max(second) <= min(first):
            return True
    return False


def _fact(code: Code) -> dict[str, Any]:
    places = [place / 100 for place in code.corners]
    return {
        "kind": code.kind,
        "text": code.text,
        "corners": [places[i : i + 2] for i in range(0, 8, 2)],
    }
