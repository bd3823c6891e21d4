"""A measuring operator: each tile gives a part, and the gateway combines the parts to facts."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Facts
from fogmqtt.operators.api.measuring import Measuring, Part, Parts


class Peak(Part, frozen=True):
    """The brightest pixel of a core; row and column are counted from the core's first pixel."""

    value: int
    row: int
    column: int


@dataclass(frozen=True)
class Brightest(Measuring):
    """Value and position of the brightest pixel; of equal ones, the first in reading order.

    Takes uint8 or uint16 of 1 channel. Halo 0. Exact.
    """

    name: ClassVar[str] = "brightest"
    part: ClassVar[type[Part]] = Peak

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16"), channels=(1,))
        return spec

    def measure(self, image: Image, core: Rect, seams: Seams) -> Peak:
        pixels = image[core.slices]
        row, column = np.unravel_index(np.argmax(pixels), pixels.shape)
        return Peak(int(pixels[row, column]), int(row), int(column))

    def gather(self, parts: Parts, image: Spec) -> Facts:
        peaks = [
            (-peak.value, tile.core.top + peak.row, tile.core.left + peak.column)
            for tile, peak in parts
        ]
        value, row, column = min(peaks)
        return {"value": -value, "row": row, "column": column}

    def measure_whole(self, image: Image) -> Facts:
        height, width = image.shape
        peak = self.measure(image, Rect(0, 0, height, width), Seams())
        return {"value": peak.value, "row": peak.row, "column": peak.column}

    def draw(self, picture: Image, facts: Facts) -> Image:
        return cv2.circle(picture, (facts["column"], facts["row"]), 12, (0, 0, 255), 2)
