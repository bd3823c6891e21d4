"""A local operator: a pixel of the result depends on the pixels near it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator

SLOPE = np.array([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]], np.float32)


@dataclass(frozen=True)
class Emboss(Operator):
    """The image as a relief, lit from the upper left; uint8, gray or colour. Exact."""

    name: ClassVar[str] = "emboss"

    @property
    def halo(self) -> int:
        return 1

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",))
        return spec

    def process(self, image: Image) -> Image:
        return cv2.filter2D(image, -1, SLOPE, delta=128)
