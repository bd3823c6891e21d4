"""Histograms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.errors import OperatorError, WireError
from fogmqtt.images.cv import cv2
from fogmqtt.images.frames import Colour
from fogmqtt.images.panels import pen, shade
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Facts
from fogmqtt.operators.api.measuring import Measuring, Part, Parts
from fogmqtt.operators.support.packing import Packed, pack, unpack
from fogmqtt.operators.support.value_counts import count_values

#: More bins of three channels would not fit into the smallest message.
_MOST_BINS = 1024
#: The colours of the curves for blue, green and red, and for gray.
_CURVES: tuple[Colour, ...] = ((255, 120, 60), (70, 220, 70), (70, 70, 255))
_GRAY_CURVE: tuple[Colour, ...] = ((230, 230, 230),)


class Counts(Part, frozen=True):
    """The number of pixels of the core in each bin: all bins of one channel, then of the next."""

    counts: Packed


@dataclass(frozen=True)
class Histogram(Measuring):
    """Histogram of each channel by `cv2.calcHist`, counted in integers.

    Takes uint8 or uint16 of any channel count. Halo 0. Exact, the same on all devices, also for
    bins with more than 2 ** 24 pixels, which float32 cannot count.

    The facts::

        {"bins": 256, "values": 1, "channels": [[…], […], […]]}

    `values` is the number of values in a bin: bin i counts the `values` values from i * values on.
    Channels are in the image's order: blue, green, red for a colour image.

    Parameters
    ----------
    bins : int
        Number of bins: a power of two, 1 to 1024, and at most 256 for uint8.
    """

    name: ClassVar[str] = "histogram"
    part: ClassVar[type[Part]] = Counts
    #: A count takes one byte, and more bytes only if it counts many pixels.
    part_pixel_bytes: ClassVar[float] = 0.03

    bins: int = 256

    def __post_init__(self) -> None:
        valid = 1 <= self.bins <= _MOST_BINS and self.bins.bit_count() == 1
        self._require(valid, "bins", f"expected a power of two from 1 to {_MOST_BINS}")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16"))
        if self.bins > _values(spec):
            raise OperatorError(f"{self} on {spec}: the dtype has only {_values(spec)} values")
        return spec

    def measure(self, image: Image, core: Rect, seams: Seams) -> Counts:
        del seams
        return Counts(pack(self._count(image[core.slices]).ravel()))

    def gather(self, parts: Parts, image: Spec) -> Facts:
        """Raises WireError for a part that does not count each pixel once in each channel."""
        total: Image = np.zeros((image.channels, self.bins), np.int64)
        for tile, part in parts:
            counts = unpack(part.counts)
            if counts.shape != (total.size,) or counts.max() > tile.core.pixels:
                raise WireError(f"{self.name}: tile {tile.index} does not have {self.bins} counts")
            counts = counts.reshape(total.shape)
            if (counts.sum(axis=1) != tile.core.pixels).any():
                raise WireError(f"{self.name}: tile {tile.index} does not count each pixel once")
            total += counts
        return self._facts(total, image)

    def measure_whole(self, image: Image) -> Facts:
        return self._facts(self._count(image), Spec.of(image))

    def _count(self, image: Image) -> Image:
        """Return the counts by channel and bin, (channels, bins) int64."""
        channels = range(Spec.of(image).channels)
        counts = np.stack([count_values(image, channel) for channel in channels])
        binned: Image = counts.reshape(len(channels), self.bins, -1).sum(axis=2)
        return binned

    def _facts(self, counts: Image, image: Spec) -> Facts:
        values = _values(image) // self.bins
        return {"bins": self.bins, "values": values, "channels": counts.tolist()}

    def draw(self, picture: Image, facts: Facts) -> Image:
        """Draw a chart over the lower half, with one curve for each channel."""
        height, width = picture.shape[0] // 2, picture.shape[1]
        shade(picture, picture.shape[0] - height, 0, height, width)
        channels = facts["channels"]
        most = max(max(counts) for counts in channels)
        colours = _CURVES if len(channels) == len(_CURVES) else _GRAY_CURVE * len(channels)
        for counts, colour in zip(channels, colours, strict=True):
            _curve(picture[-height:], counts, most, colour)
        return picture


def _values(spec: Spec) -> int:
    return int(np.iinfo(spec.dtype).max) + 1


def _curve(chart: Image, counts: list[int], most: int, colour: Colour) -> None:
    """Draw the outline of the counts, and a translucent area below it."""
    height, width = chart.shape[:2]
    across = np.linspace(0, width - 1, len(counts) + 1).round()
    heights = (height - 1) * (1 - 0.95 * np.array(counts) / most)
    outline = np.stack([np.repeat(across, 2)[1:-1], np.repeat(heights.round(), 2)], axis=1)
    below = np.vstack([[0, height - 1], outline, [width - 1, height - 1]]).astype(np.int32)
    wash = chart.copy()
    cv2.fillPoly(wash, [below], colour)
    chart[...] = cv2.addWeighted(chart, 0.7, wash, 0.3, 0)
    cv2.polylines(chart, [outline.astype(np.int32)], False, colour, pen(chart), cv2.LINE_AA)
