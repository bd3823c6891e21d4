"""Canny edges, exact in tiles.

Hysteresis follows an edge over any distance, so no halo is wide enough. A device decides the pixels
that its tile alone can decide, and gives each pixel one of three states: 0 is no edge, 255 is an
edge, and 128 is *open*: a candidate that is connected to a seam but to no strong pixel of this
tile, so that another tile may make it an edge. The gateway then follows edges across the seams.

Two facts of OpenCV's code make this possible: `Canny(low, low)` returns exactly the map of
candidates, and the outermost pixels of a halo hold candidates that the whole image does not have,
so a device must crop to its core before hysteresis.
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

#: The derivatives along x and along y.
Derivatives = tuple[Image, Image]

#: An open pixel that is known to be connected to a seam.
_TOUCHES_SEAM = 129


@dataclass(frozen=True)
class Canny(Operator):
    """Edges by `cv2.Canny`: 255 on edges, 0 elsewhere (Canny, 1986).

    Takes uint8 of 1 or 3 channels; the result has 1 channel. In a colour image, the channel with
    the largest gradient counts at each pixel, as in OpenCV; the result differs from that of the
    gray image. The border is repeated, as in OpenCV. Exact, the same on all devices.

    Parameters
    ----------
    low, high : float
        Thresholds of the gradient magnitude, -1e9 to 1e9, in either order. An edge starts above the
        higher one and continues above the lower one.
    aperture : int
        Side of the Sobel kernels in pixels: 3, 5 or 7. Halo aperture // 2 + 1.
    l2 : bool
        Whether the magnitude is the Euclidean norm instead of |dx| + |dy|.
    """

    name: ClassVar[str] = "canny"
    samples: ClassVar[Samples] = ({}, {"aperture": 5, "l2": True}, {"aperture": 7})
    ends_stage: ClassVar[bool] = True
    result_codec: ClassVar[str] = "bitplanes"

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
        """Return the states of the core's pixels: 0 no edge, 128 open, 255 edge; uint8."""
        return _three_states(*self._candidates_and_edges(image, core), seams)

    def merger(self, output: Spec) -> Merger:
        return SeamMerger(output)

    def _candidates_and_edges(self, image: Image, core: Rect) -> tuple[Image, Image]:
        """Return the core's candidates, and the pixels that are edges within the core."""
        low, high = sorted((self.low, self.high))
        if self.aperture == 7:  # as cv2.Canny does, to stay within 16 bits
            low, high = low / 16, high / 16
        dx, dy = self._derivatives(image) if image.ndim == 2 else self._steepest_channel(image)
        candidates = cv2.Canny(dx, dy, low, low, L2gradient=self.l2)[core.slices]
        # With the derivatives of all other pixels set to 0, non-maximum suppression keeps exactly
        # the candidates, so that the second call does nothing but hysteresis.
        dx = cv2.copyTo(dx[core.slices], candidates)
        dy = cv2.copyTo(dy[core.slices], candidates)
        return candidates, cv2.Canny(dx, dy, low, high, L2gradient=self.l2)

    def _steepest_channel(self, image: Image) -> Derivatives:
        """Return the derivatives of the channel with the largest magnitude, at each pixel."""
        first, *others = cv2.split(image)
        dx, dy = self._derivatives(first)
        largest = self._magnitude(dx, dy)
        for channel in others:
            x, y = self._derivatives(channel)
            magnitude = self._magnitude(x, y)
            steeper = (magnitude > largest).view(np.uint8)
            dx, dy = cv2.copyTo(x, steeper, dx), cv2.copyTo(y, steeper, dy)
            np.maximum(largest, magnitude, out=largest)
        return dx, dy

    def _magnitude(self, dx: Image, dy: Image) -> Image:
        """Return the magnitude as an integer, as OpenCV compares channels.

        |dx| + |dy| fits in 16 bits for every aperture.
        """
        if not self.l2:
            return cv2.add(np.abs(dx), np.abs(dy))
        x, y = (cv2.multiply(derivative, derivative, dtype=cv2.CV_32S) for derivative in (dx, dy))
        return cv2.add(x, y)

    def _derivatives(self, image: Image) -> Derivatives:
        """Return the derivatives along x and y, int16, as cv2.Canny computes them."""
        border = cv2.BORDER_REPLICATE
        if self.aperture == 3:  # takes half the time of two Sobel filters
            dx, dy = cv2.spatialGradient(image, ksize=3, borderType=border)
            return dx, dy
        scale = 1 / 16 if self.aperture == 7 else 1
        size = self.aperture
        dx = cv2.Sobel(image, cv2.CV_16S, 1, 0, ksize=size, scale=scale, borderType=border)
        dy = cv2.Sobel(image, cv2.CV_16S, 0, 1, ksize=size, scale=scale, borderType=border)
        return dx, dy


def _three_states(candidates: Image, edges: Image, seams: Seams) -> Image:
    """Return the three states of the core's pixels.

    Only a candidate that is connected to a seam is open: no other tile can make the others an edge.
    """
    height, width = candidates.shape
    framed: Image = np.zeros((height + 2, width + 2), np.uint8)
    states = framed[1:-1, 1:-1]
    np.bitwise_and(candidates, np.uint8(OPEN), out=states)
    states |= edges
    for y, x in _lines_beyond_seams(seams, height, width):
        # One flood fill from the whole side costs the same for one open pixel and for hundreds.
        framed[y, x] = OPEN
        cv2.floodFill(framed, None, (x.start, y.start), _TOUCHES_SEAM, flags=8)
    # Modulo 256 this turns `_TOUCHES_SEAM` into OPEN, and OPEN into 0.
    result: Image = np.multiply(states, np.uint8(OPEN))
    result |= edges
    return result


def _lines_beyond_seams(seams: Seams, height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield the lines just beyond the seams, in an image with a frame of one pixel."""
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
    """Pastes the three-state cores, then follows edges across the seams.

    An edge may cross any number of tiles, so this merger keeps the whole image in memory.
    """

    def __init__(self, output: Spec) -> None:
        image = ArrayImage.zeros(output)
        super().__init__(output, image)
        self._array = image.array
        #: First rows and columns of cores. Such a line may cross tiles that were not cut there.
        self._tops: set[int] = set()
        self._lefts: set[int] = set()

    def paste(self, tile: Tile, pixels: Image, /) -> None:
        super().paste(tile, pixels)
        self._tops.add(tile.core.top)
        self._lefts.add(tile.core.left)

    def resolve(self) -> None:
        """Turn each open pixel that is connected to an edge of another tile into an edge."""
        flood(self._array, list(self._seeds()), OPEN, EDGE)

    def finish(self) -> Image:
        self.resolve()
        return cv2.threshold(self._array, OPEN, EDGE, cv2.THRESH_BINARY, dst=self._array)[1]

    def _seeds(self) -> Iterator[Seed]:
        """Yield the open pixels that touch an edge across a seam.

        Diagonal neighbours at the corners of four tiles are included.
        """
        image = self._array
        for row in sorted(self._tops - {0}):
            for one, other in ((row - 1, row), (row, row - 1)):
                for at in touching(image[one], image[other], OPEN, EDGE):
                    yield one, int(at)
        for column in sorted(self._lefts - {0}):
            before, after = image[:, column - 1].copy(), image[:, column].copy()
            for at in touching(before, after, OPEN, EDGE):
                yield int(at), column - 1
            for at in touching(after, before, OPEN, EDGE):
                yield int(at), column
