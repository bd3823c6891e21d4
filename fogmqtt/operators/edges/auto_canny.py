"""Canny edges with thresholds from the image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Merger, Operator, learned, require_prepared
from fogmqtt.operators.edges.canny import Canny
from fogmqtt.operators.support.value_counts import count_values


@dataclass(frozen=True)
class AutoCanny(Operator):
    """Canny with the thresholds (1 - sigma) * m and (1 + sigma) * m, where m is the image's median.

    Takes uint8 of 1 or 3 channels; the result has 1 channel: 255 on edges, 0 elsewhere. m is
    `np.median` of all values of the whole image, all channels together. The thresholds are limited
    to 0 to 255 and rounded down. The border is repeated, as in OpenCV. Exact, the same on all
    devices.

    Parameters
    ----------
    sigma : float
        Half the distance of the thresholds as a fraction of the median, 0 to 1.
    aperture : int
        Side of the Sobel kernels in pixels: 3, 5 or 7. Halo aperture // 2 + 1.
    l2 : bool
        Whether the magnitude is the Euclidean norm instead of |dx| + |dy|.
    """

    name: ClassVar[str] = "autocanny"
    begins_stage: ClassVar[bool] = True
    ends_stage: ClassVar[bool] = Canny.ends_stage
    result_codec: ClassVar[str] = Canny.result_codec

    sigma: float = 0.33
    aperture: int = 3
    l2: bool = False
    #: The median of all values of the whole image.
    median: float | None = learned()

    def __post_init__(self) -> None:
        self._require(0 <= self.sigma <= 1, "sigma", "expected 0 to 1")
        self._require(self.aperture in (3, 5, 7), "aperture", "expected 3, 5 or 7")

    @property
    def halo(self) -> int:
        return self.aperture // 2 + 1

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",), channels=(1, 3))
        return replace(spec, channels=1)

    def prepare(self, image: Image, original: Image) -> Self:
        del original
        channels = range(Spec.of(image).channels)
        counts = np.stack([count_values(image, one) for one in channels]).sum(axis=0)
        return replace(self, median=_median(counts))

    def process(self, image: Image) -> Image:
        """Return Canny of a whole image. Raises OperatorError unless `prepare` was called."""
        return self._canny().process(image)

    def process_tile(self, image: Image, core: Rect, seams: Seams) -> Image:
        """Return the states as Canny does. Raises OperatorError unless `prepare` was called."""
        return self._canny().process_tile(image, core, seams)

    def merger(self, output: Spec) -> Merger:
        return Canny().merger(output)

    def _canny(self) -> Canny:
        median = require_prepared(self, self.median)
        low = max(0, int((1 - self.sigma) * median))
        high = min(255, int((1 + self.sigma) * median))
        return Canny(low=low, high=high, aperture=self.aperture, l2=self.l2)


def _median(counts: Image) -> float:
    """Return the median of a histogram: the mean of the two middle values for an even number."""
    total = int(counts.sum())
    middle = np.searchsorted(counts.cumsum(), [(total - 1) // 2, total // 2], side="right")
    return float(middle.mean())
