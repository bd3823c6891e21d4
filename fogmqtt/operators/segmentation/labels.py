"""The label image of connected components."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fogmqtt.errors import OperatorError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator

#: The largest number in a label image.
_MOST = 0xFFFF


@dataclass(frozen=True)
class Labels(Operator):
    """Label image of a mask: each pixel is the number of its component, as `components` counts.

    Takes uint8 of 1 channel; values other than 0 are foreground: `gray | otsu | labels`. The result
    is uint16 of 1 channel: 0 for the background and for components that are too small, else the
    number that `components` gives for the same mask, connectivity and min_area. Runs on the whole
    image, on the gateway, by `cv2.connectedComponentsWithStats`. Exact. More than 65535 components
    are refused. Write it as .png or .tiff.

    Parameters
    ----------
    connectivity : int
        8, or 4 for neighbours that share a side only.
    min_area : int
        The least area that gets a number, 1 to 2147483647 pixels.
    """

    name: ClassVar[str] = "labels"
    tiled: ClassVar[bool] = False

    connectivity: int = 8
    min_area: int = 1

    def __post_init__(self) -> None:
        self._require(self.connectivity in (4, 8), "connectivity", "expected 4 or 8")
        self._require(1 <= self.min_area < 2**31, "min_area", "expected 1 to 2147483647 pixels")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",), channels=(1,))
        return replace(spec, dtype="uint16")

    def process(self, image: Image) -> Image:
        """Raises OperatorError if there are more components than uint16 can count."""
        labels, count = numbered(image, self.connectivity, self.min_area)
        if count > _MOST:
            raise OperatorError(
                f"{self}: {count} components, over {_MOST}; raise min_area, which is "
                f"{self.min_area}, or remove specks with 'open' before it"
            )
        return labels.astype(np.uint16)


def numbered(mask: Image, connectivity: int, min_area: int) -> tuple[Image, int]:
    """Return the number of each pixel's component in int32, and how many components there are.

    Components of less than `min_area` pixels count as background.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask, connectivity=connectivity, ltype=cv2.CV_32S
    )
    is_large = stats[:, cv2.CC_STAT_AREA] >= min_area
    is_large[0] = False  # the background
    numbers: Image = np.where(is_large, np.cumsum(is_large), 0).astype(np.int32)
    return numbers[labels], int(is_large.sum())
