"""Operators on colours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.base import Operator


@dataclass(frozen=True)
class Gray(Operator):
    """Brightness: `cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)`; a gray image passes unchanged.

    Takes uint8 or uint16 of 1 or 3 channels, gives one channel of the same dtype. Halo 0.
    """

    name: ClassVar[str] = "gray"
    narrows: ClassVar[bool] = True

    def output(self, spec: Spec) -> Spec:
        self._take(spec, dtypes=("uint8", "uint16"), channels=(1, 3))
        return replace(spec, channels=1)

    def process(self, image: Image) -> Image:
        return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
