"""The image that all systems under measurement process, and the right results for it."""

from __future__ import annotations

from functools import cache

import numpy as np

from fogmqtt.cli.demo import PHOTO
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image

MP = 1_000_000
#: Rows and columns that cv2.Canny reads beyond a pixel, before it follows edges.
HALO = {"invert": 0, "canny": 2}


@cache
def photo(megapixels: int) -> Image:
    """Return the demo's photograph in gray, enlarged, 3:2."""
    width = round((megapixels * MP * 1.5) ** 0.5)
    gray = cv2.imread(str(PHOTO), cv2.IMREAD_GRAYSCALE)
    return cv2.resize(gray, (width, megapixels * MP // width), interpolation=cv2.INTER_CUBIC)


def whole(image: Image, pipeline: str) -> Image:
    """Return what plain cv2 makes of the image with the defaults of our operators."""
    if pipeline == "invert":
        return cv2.bitwise_not(image)
    if pipeline == "canny":
        return cv2.Canny(image, 50, 150)
    raise ValueError(f"no benchmark calls {pipeline!r}; choose one of {', '.join(HALO)}")


@cache
def expected(megapixels: int, pipeline: str) -> Image:
    """Return the right result for the photograph."""
    return whole(photo(megapixels), pipeline)


def wrong_pixels(result: Image, megapixels: int, pipeline: str) -> int:
    """Return how many pixels of a result differ from one machine's."""
    right = expected(megapixels, pipeline)
    return int(np.count_nonzero(result.reshape(right.shape) != right))
