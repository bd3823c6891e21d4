"""Straight lines, by Hough's transform."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.frames import Colour
from fogmqtt.images.panels import darkened, pen
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Facts
from fogmqtt.operators.api.measuring import Measuring

_COLOUR: Colour = (60, 220, 255)
#: More endless lines hide the picture.
_DRAWN_ENDLESS = 50


@dataclass(frozen=True)
class Lines(Measuring):
    """Straight lines in an edge image: `cv2.HoughLinesP`, or without ends `cv2.HoughLines`.

    Takes uint8 of 1 channel; what is not 0 votes, so write `gray | canny | lines`. Runs whole, on
    the gateway: the devices do what stands before it. Exact; the segments come from a search in
    random order, and OpenCV begins it the same way each time.

    The facts, of segments the longest first::

        {"count": 1, "left_out": 0,
         "lines": [{"x1": 10, "y1": 4, "x2": 200, "y2": 9, "length": 190.07}]}

    and of endless lines those with the most votes first::

        {"count": 1, "left_out": 0, "lines": [{"rho": 120.5, "theta": 45.0, "votes": 310}]}

    Pixels of the whole image; `rho` is the line's distance from the middle of the upper left
    pixel, `theta` the degrees of its normal to a ten-thousandth, 0 for an upright
    line, 90 for a level one.

    Parameters
    ----------
    votes : int
        The least number of pixels on a line, 1 to 1000000.
    length : float
        The least length of a segment, 0 to 100000 pixels.
    gap : float
        The largest gap within a segment, 0 to 10000 pixels.
    rho : float
        How fine distances are told apart, 0.5 to 100 pixels.
    theta : float
        How fine angles are, 0.25 to 90 degrees.
    ends : bool
        Segments; if false endless lines, for which length and gap do not count.
    most : int
        How many are listed, 1 to 100000.
    """

    name: ClassVar[str] = "lines"
    tiled: ClassVar[bool] = False

    votes: int = 80
    length: float = 50.0
    gap: float = 5.0
    rho: float = 1.0
    theta: float = 1.0
    ends: bool = True
    most: int = 1000

    def __post_init__(self) -> None:
        self._require(1 <= self.votes <= 1_000_000, "votes", "expected 1 to 1000000")
        self._require(0 <= self.length <= 100_000, "length", "expected 0 to 100000 pixels")
        self._require(0 <= self.gap <= 10_000, "gap", "expected 0 to 10000 pixels")
        self._require(0.5 <= self.rho <= 100, "rho", "expected 0.5 to 100 pixels")
        self._require(0.25 <= self.theta <= 90, "theta", "expected 0.25 to 90 degrees")
        self._require(1 <= self.most <= 100_000, "most", "expected 1 to 100000")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",), channels=(1,))
        return spec

    def measure_whole(self, image: Image) -> Facts:
        lines = self._segments(image) if self.ends else self._endless(image)
        count = len(lines)
        return {"count": count, "left_out": max(0, count - self.most), "lines": lines[: self.most]}

    def _segments(self, image: Image) -> list[dict[str, Any]]:
        found = cv2.HoughLinesP(
            image,
            self.rho,
            math.radians(self.theta),
            self.votes,
            minLineLength=self.length,
            maxLineGap=self.gap,
        )
        ends = [] if found is None else found.reshape(-1, 4).tolist()
        lines = [
            {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "length": math.dist((x1, y1), (x2, y2))}
            for x1, y1, x2, y2 in ends
        ]
        return sorted(lines, key=lambda line: -line["length"])

    def _endless(self, image: Image) -> list[dict[str, Any]]:
        found = cv2.HoughLinesWithAccumulator(image, self.rho, math.radians(self.theta), self.votes)
        rows = [] if found is None else found.reshape(-1, 3).tolist()
        return [
            {"rho": rho, "theta": round(math.degrees(theta), 4), "votes": int(votes)}
            for rho, theta, votes in rows
        ]

    def draw(self, picture: Image, facts: Facts) -> Image:
        """The segments, or the first of the endless lines, on the darkened picture."""
        canvas = darkened(picture)
        lines = facts["lines"] if self.ends else facts["lines"][:_DRAWN_ENDLESS]
        for one in lines:
            begin, end = _ends(one, canvas)
            cv2.line(canvas, begin, end, _COLOUR, pen(canvas), cv2.LINE_AA)
        return canvas


def _ends(line: dict[str, Any], picture: Image) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where a line is drawn from and to; an endless one from beyond the picture to beyond it."""
    if "x1" in line:
        return (line["x1"], line["y1"]), (line["x2"], line["y2"])
    normal = np.array(
        [math.cos(math.radians(line["theta"])), math.sin(math.radians(line["theta"]))]
    )
    far = math.hypot(*picture.shape[:2]) * np.array([-normal[1], normal[0]])
    begin, end = np.rint(normal * line["rho"] - far), np.rint(normal * line["rho"] + far)
    return (int(begin[0]), int(begin[1])), (int(end[0]), int(end[1]))
