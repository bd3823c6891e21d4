"""Operators that compare a frame with the last ones before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Samples
from fogmqtt.operators.api.memory import WindowOperator


@dataclass(frozen=True)
class Diff(WindowOperator):
    """Absolute difference to the frame before, by `cv2.absdiff`; for streams.

    Takes uint8 or uint16 of any channel count and keeps both. The first frame gives zeros. Frames
    that the stream dropped do not count. Halo 0. Exact, the same on all devices. Memory: 1 frame.
    """

    name: ClassVar[str] = "diff"

    @property
    def window(self) -> int:
        return 1

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16"))
        return spec

    def process_window(self, frames: Sequence[Image]) -> Image:
        return np.zeros_like(frames[-1]) if len(frames) < 2 else cv2.absdiff(frames[-1], frames[-2])


@dataclass(frozen=True)
class MedianOf(WindowOperator):
    """Median of each value over the last frames; for streams. Removes what is seen for a moment.

    Takes uint8 or uint16 of any channel count and keeps both. In the beginning it is the median of
    the frames that there are; of an even number, the lower of the two in the middle. Halo 0. Exact,
    the same on all devices. Memory: frames - 1 frames.

    Parameters
    ----------
    frames : int
        Number of frames, this one included, odd, 3 to 15.
    """

    name: ClassVar[str] = "median_of"
    samples: ClassVar[Samples] = ({"frames": 3}, {})

    frames: int = 5

    def __post_init__(self) -> None:
        valid = self.frames % 2 == 1 and 3 <= self.frames <= 15
        self._require(valid, "frames", "expected an odd number from 3 to 15")

    @property
    def window(self) -> int:
        return self.frames - 1

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16"))
        return spec

    def process_window(self, frames: Sequence[Image]) -> Image:
        return _median(list(frames))


def _median(values: list[Image]) -> Image:
    """Return the lower median of each pixel: the largest are moved to the end, one after another.

    OpenCV's minimum and maximum of two images are many times faster than a sort along an axis.
    """
    middle = (len(values) - 1) // 2
    for end in range(len(values) - 1, middle, -1):
        for at in range(end):
            low, high = cv2.min(values[at], values[at + 1]), cv2.max(values[at], values[at + 1])
            values[at], values[at + 1] = low, high
    lowest = values[0]
    for one in values[1 : middle + 1]:
        lowest = cv2.max(lowest, one)
    return lowest.copy() if middle == 0 else lowest
