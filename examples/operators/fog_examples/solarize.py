"""A global operator: it needs a value of the whole image before the first tile is cut."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator, learned, require_prepared


@dataclass(frozen=True)
class Solarize(Operator):
    """Inverts values over the image's mean, like the Sabattier effect on film.

    Takes uint8 of any channel count. Halo 0. Exact: the mean is that of the whole image, over all
    channels.

    Parameters
    ----------
    above : float
        Values over above * mean are inverted; 0 to 10.
    """

    name: ClassVar[str] = "solarize"
    begins_stage: ClassVar[bool] = True

    above: float = 1.0
    #: The largest value that is not inverted.
    bound: int | None = learned()

    def __post_init__(self) -> None:
        self._require(0 <= self.above <= 10, "above", "expected 0 to 10")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",))
        return spec

    def prepare(self, image: Image, original: Image) -> Self:
        return replace(self, bound=int(image.mean() * self.above))

    def process(self, image: Image) -> Image:
        values = np.arange(256, dtype=np.uint8)
        bound = require_prepared(self, self.bound)
        return cv2.LUT(image, np.where(values > bound, 255 - values, values))
