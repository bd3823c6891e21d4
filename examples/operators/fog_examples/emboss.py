"""A local operator: a result pixel depends on the pixels around it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator

SLOPE = np.array([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]], np.float32)


@dataclass(frozen=True)
class Emboss(Operator):
    """The image as a relief that is lit from the upper left.

    Takes uint8 of any channel count. Halo 1; the border reflects. Exact.
    """

    name: ClassVar[str] = "emboss"

    @property
    def halo(self) -> int:
        return 1

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",))
        return spec

    def process(self, image: Image) -> Image:
        return cv2.filter2D(image, -1, SLOPE, delta=128)
