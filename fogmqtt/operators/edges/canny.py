"""Canny edges, tile by tile and yet exact.

Hysteresis follows an edge as far as it runs, so no halo is wide enough. A device decides what
its tile can decide and answers in three states: 0 is no edge, 255 an edge, and 128 is *open*: a
candidate that hangs on no strong pixel in this tile, but touches a seam, so that another tile may
yet make it an edge. The gateway then floods edges across the seams.

A fact of OpenCV's code carries it: `Canny(low, low)` is exactly the map of candidates. And a
device must crop to its core before hysteresis, because the outermost pixels of a halo hold
candidates that the whole image does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fogmqtt.core.geometry import Rect, Seams, Tile
from fogmqtt.images.codec import EDGE, OPEN
from fogmqtt.images.cv import cv2
from fogmqtt.images.source import ArrayImage
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Merger, Operator, PasteMerger, Samples
from fogmqtt.operators.support.flood import Seed, flood, touching

#: Along x and along y.
Slopes = tuple[Image, Image]

#: An open pixel that is known to touch a seam.
_HELD = 129


@dataclass(frozen=True)
class Canny(Operator):
    """`cv2.Canny`: 255 on edges, 0 elsewhere, of one channel.

    Takes uint8 of 1 or 3 channels; in colour, the channel with the steepest slope decides at
    each pixel, as in OpenCV, which is not Canny of the gray image. Halo aperture // 2 + 1; the
    border is OpenCV's own.

    Parameters
    ----------
    low, high : float
        Gradient magnitudes, in either order: an edge begins over the higher and is followed
        down to the lower.
    aperture : int
        Size of the Sobel kernels: 3, 5 or 7.
    l2 : bool
        The magnitude is the Euclidean norm instead of |dx| + |dy|.
    """

    name: ClassVar[str] = "canny"
    samples: ClassVar[Samples] = ({}, {"aperture": 5, "l2": True}, {"aperture": 7})
    ends_stage: ClassVar[bool] = True
    result_codec: ClassVar[str] = "planes"

    low: float = 50.0
    high: float = 150.0
    aperture: int = 3
    l2: bool = False

    def __post_init__(self) -> None:
        self._require(self.aperture in (3, 5, 7), "aperture", "expected 3, 5 or 7")
        for bound in ("low", "high"):
            self._require(abs(getattr(self, bound)) <= 1e9, bound, "expected -1e9 to 1e9")

    @property
    def halo(self) -> int:
        return self.aperture // 2 + 1

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",), channels=(1, 3))
        return replace(spec, channels=1)

    def process(self, image: Image) -> Image:
        return cv2.Canny(image, self.low, self.high, apertureSize=self.aperture, L2gradient=self.l2)

    def process_tile(self, image: Image, core: Rect, seams: Seams) -> Image:
        """The three states of the core's pixels."""
        return _answer(*self._classes(image, core), seams)

    def merger(self, output: Spec) -> Merger:
        return SeamMerger(output)

    def _classes(self, image: Image, core: Rect) -> tuple[Image, Image]:
        """The core's candidates, and those that are edges within it."""
        low, high = sorted((self.low, self.high))
        if self.aperture == 7:  # as cv2.Canny does, to stay within 16 bits
            low, high = low / 16, high / 16
        dx, dy = self._slopes(image) if image.ndim == 2 else self._steepest(image)
        candidates = cv2.Canny(dx, dy, low, low, L2gradient=self.l2)[core.slices]
        # Without the slopes of all others, suppression passes exactly the candidates again:
        # this second call is the hysteresis, and nothing but.
        dx = cv2.copyTo(dx[core.slices], candidates)
        dy = cv2.copyTo(dy[core.slices], candidates)
        return candidates, cv2.Canny(dx, dy, low, high, L2gradient=self.l2)

    def _steepest(self, image: Image) -> Slopes:
        """At each pixel the slopes of the first channel where they are largest."""
        first, *others = cv2.split(image)
        dx, dy = self._slopes(first)
        largest = self._magnitude(dx, dy)
        for channel in others:
            x, y = self._slopes(channel)
            magnitude = self._magnitude(x, y)
            steeper = (magnitude > largest).view(np.uint8)
            dx, dy = cv2.copyTo(x, steeper, dx), cv2.copyTo(y, steeper, dy)
            np.maximum(largest, magnitude, out=largest)
        return dx, dy

    def _magnitude(self, dx: Image, dy: Image) -> Image:
        """In integers, as OpenCV compares channels; |dx| + |dy| fits 16 bits at any aperture."""
        if not self.l2:
            return cv2.add(np.abs(dx), np.abs(dy))
        x, y = (cv2.multiply(slope, slope, dtype=cv2.CV_32S) for slope in (dx, dy))
        return cv2.add(x, y)

    def _slopes(self, image: Image) -> Slopes:
        """Along x and y, int16, as cv2.Canny takes them of one channel."""
        border = cv2.BORDER_REPLICATE
        if self.aperture == 3:  # in half the time
            dx, dy = cv2.spatialGradient(image, ksize=3, borderType=border)
            return dx, dy
        scale = 1 / 16 if self.aperture == 7 else 1
        size = self.aperture
        dx = cv2.Sobel(image, cv2.CV_16S, 1, 0, ksize=size, scale=scale, borderType=border)
        dy = cv2.Sobel(image, cv2.CV_16S, 0, 1, ksize=size, scale=scale, borderType=border)
        return dx, dy


def _answer(candidates: Image, edges: Image, seams: Seams) -> Image:
    """The three states; open is only what touches a seam, for no other tile can raise the rest."""
    height, width = candidates.shape
    framed: Image = np.zeros((height + 2, width + 2), np.uint8)
    states = framed[1:-1, 1:-1]
    np.bitwise_and(candidates, np.uint8(OPEN), out=states)
    states |= edges
    for y, x in _frame(seams, height, width):
        # One flood from the whole side: it costs the same for one open pixel and for hundreds.
        framed[y, x] = OPEN
        cv2.floodFill(framed, None, (x.start, y.start), _HELD, flags=8)
    table = np.zeros(256, np.uint8)
    table[_HELD], table[EDGE] = OPEN, EDGE
    return cv2.LUT(states, table)


def _frame(seams: Seams, height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """The lines beyond the seams, in an image with a frame of one pixel."""
    across, down = slice(1, width + 1), slice(1, height + 1)
    if seams.top:
        yield slice(0, 1), across
    if seams.bottom:
        yield slice(height + 1, height + 2), across
    if seams.left:
        yield down, slice(0, 1)
    if seams.right:
        yield down, slice(width + 1, width + 2)


class SeamMerger(PasteMerger):
    """Pastes three-state cores, then lets edges run on across the seams.

    An edge may run anywhere, so this merger keeps the whole image as an array in memory.
    """

    def __init__(self, output: Spec) -> None:
        image = ArrayImage.zeros(output)
        super().__init__(output, image)
        self._array = image.array
        #: Where cores begin; a line may run on through tiles that were not cut there.
        self._rows: set[int] = set()
        self._columns: set[int] = set()

    def paste(self, tile: Tile, pixels: Image, /) -> None:
        super().paste(tile, pixels)
        self._rows.add(tile.core.top)
        self._columns.add(tile.core.left)

    def resolve(self) -> None:
        """Make every open pixel an edge that hangs on one of another tile."""
        flood(self._array, list(self._seeds()), OPEN, EDGE)

    def finish(self) -> Image:
        self.resolve()
        return cv2.threshold(self._array, OPEN, EDGE, cv2.THRESH_BINARY, dst=self._array)[1]

    def _seeds(self) -> Iterator[Seed]:
        """Open pixels with an edge across a seam; diagonals cross the corners of four tiles."""
        image = self._array
        for row in sorted(self._rows - {0}):
            for one, other in ((row - 1, row), (row, row - 1)):
                for at in touching(image[one], image[other], OPEN, EDGE):
                    yield one, int(at)
        for column in sorted(self._columns - {0}):
            before, after = image[:, column - 1].copy(), image[:, column].copy()
            for at in touching(before, after, OPEN, EDGE):
                yield int(at), column - 1
            for at in touching(after, before, OPEN, EDGE):
                yield int(at), column
