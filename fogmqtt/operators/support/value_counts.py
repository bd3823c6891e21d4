"""Counting of values: the histogram that global operators need of the whole image."""

from __future__ import annotations

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image

#: The largest number up to which float32, the dtype of OpenCV's histograms, can count.
_MOST_COUNTABLE = 2**24


def count_values(image: Image, channel: int = 0) -> Image:
    """Return how often each value occurs in one channel of a uint8 or uint16 image; int64."""
    values = int(np.iinfo(image.dtype).max) + 1
    counts: Image = np.zeros(values, np.int64)
    rows = max(1, _MOST_COUNTABLE // image.shape[1])
    for top in range(0, len(image), rows):
        part = cv2.calcHist([image[top : top + rows]], [channel], None, [values], [0, values])
        counts += part.ravel().astype(np.int64)
    return counts
