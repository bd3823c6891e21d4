"""Canny with thresholds that the image chooses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Merger, Operator, learned, require_prepared
from fogmqtt.operators.colour.levels import histogram
from fogmqtt.operators.edges.canny import Canny


@dataclass(frozen=True)
class AutoCanny(Operator):
    """Canny with thresholds from the median m of all values: (1 - sigma) * m to (1 + sigma) * m.

    Takes uint8 of 1 or 3 channels, gives one: 255 on edges, 0 elsewhere. The thresholds are cut
    to whole numbers from 0 to 255; m is `np.median` of the whole image, all channels together.
    Halo aperture // 2 + 1; the border is OpenCV's own. Exact, the same on all devices.

    Parameters
    ----------
    sigma : float
        Half the width of the band, as a part of the median, 0 to 1.
    aperture : int
        Size of the Sobel kernels: 3, 5 or 7.
    l2 : bool
        The magnitude is the Euclidean norm instead of |dx| + |dy|.
    """

    name: ClassVar[str] = "autocanny"
    begins_stage: ClassVar[bool] = True
    ends_stage: ClassVar[bool] = Canny.ends_stage
    result_codec: ClassVar[str] = Canny.result_codec

    sigma: float = 0.33
    aperture: int = 3
    l2: bool = False
    #: Of all values of the whole image.
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
        counts = np.stack([histogram(image, one) for one in channels]).sum(axis=0)
        return replace(self, median=_median(counts))

    def process(self, image: Image) -> Image:
        """Raises OperatorError unless `prepare` was called."""
        return self._canny().process(image)

    def process_tile(self, image: Image, core: Rect, seams: Seams) -> Image:
        """As Canny's. Raises OperatorError unless `prepare` was called."""
        return self._canny().process_tile(image, core, seams)

    def merger(self, output: Spec) -> Merger:
        return Canny().merger(output)

    def _canny(self) -> Canny:
        median = require_prepared(self, self.median)
        low = max(0, int((1 - self.sigma) * median))
        high = min(255, int((1 + self.sigma) * median))
        return Canny(low=low, high=high, aperture=self.aperture, l2=self.l2)


def _median(counts: Image) -> float:
    """As np.median: of an even number of values, the mean of the two in the middle."""
    total = int(counts.sum())
    middle = np.searchsorted(counts.cumsum(), [(total - 1) // 2, total // 2], side="right")
    return float(middle.mean())
