"""The angles in which most edges of a gray window lie, and the window turned by an angle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image

#: Edges with a smaller sum of Sobel's derivatives are grain.
_LEAST_EDGE = 200
#: With fewer pixels on edges a window has no angle.
_LEAST_PIXELS = 500
#: The histogram has bins of half a degree, and so many of them make a peak.
_BINS, _PEAK = 180, 5
#: A peak has at least so much of all edges: twice its share if they were even, and more.
_LEAST_SHARE = 0.1
#: Peaks that are nearer to each other are one.
_APART = 8


def edge_angles(gray: Image, most: int) -> list[float]:
    """Return up to `most` angles of edges in degrees, -45 to 45, the most frequent first.

    Edges at right angles to each other count as one angle. Angles are multiples of half a degree,
    so that rounding in the last bit changes nothing.
    """
    across, down = cv2.Sobel(gray, cv2.CV_16S, 1, 0), cv2.Sobel(gray, cv2.CV_16S, 0, 1)
    is_edge = np.abs(across.astype(np.int32)) + np.abs(down) > _LEAST_EDGE
    if np.count_nonzero(is_edge) < _LEAST_PIXELS:
        return []
    degrees = np.degrees(np.arctan2(down[is_edge], across[is_edge], dtype=np.float64)) % 90
    counts, _ = np.histogram(degrees, bins=_BINS, range=(0, 90))
    half = _PEAK // 2
    around = np.concatenate((counts[-half:], counts, counts[:half]))
    peaks = np.convolve(around, np.ones(_PEAK, np.int64), "valid")
    found: list[float] = []
    while len(found) < most and peaks.max() >= _LEAST_SHARE * counts.sum():
        bins = int(peaks.argmax()) + np.arange(-_APART, _APART + 1)
        found.append(_angle(counts, bins[_APART - half : _APART + half + 1]))
        peaks[bins % _BINS] = 0
    return found


def _angle(counts: npt.NDArray[np.int64], bins: npt.NDArray[np.int64]) -> float:
    """Return the weighted middle of some bins in degrees."""
    weights = counts[bins % _BINS]
    middle = float(((bins + 0.5) * weights).sum() / weights.sum())
    return (round(middle) / 2 + 45) % 90 - 45


def level(gray: Image, degrees: float) -> tuple[Image, Image]:
    """Return the window turned so that edges of an angle are level, and the way back.

    The way back is a (2, 3) matrix: it leads from places (x, y, 1) in the turned window to those in
    the window itself.
    """
    height, width = gray.shape
    radians = np.radians(degrees)
    cosine, sine = float(np.cos(radians)), float(np.sin(radians))
    axes = np.array([[cosine, -sine], [sine, cosine]])
    size = (
        int(np.ceil(width * cosine + height * abs(sine))),
        int(np.ceil(width * abs(sine) + height * cosine)),
    )
    middle = np.array([width - 1, height - 1]) / 2 - axes @ (np.array(size) - 1) / 2
    back = np.column_stack((axes, middle))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(gray, back, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), back
