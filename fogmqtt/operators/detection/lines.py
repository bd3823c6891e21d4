"""Straight lines by the Hough transform."""

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
from fogmqtt.operators.api.measuring import Measuring, with_note

_COLOUR: Colour = (60, 220, 255)
#: Infinite lines in a drawing: more of them would hide the image.
_MOST_DRAWN = 50


@dataclass(frozen=True)
class Lines(Measuring):
    """Straight lines in an edge image by `cv2.HoughLinesP`; infinite lines by `cv2.HoughLines`.

    Takes uint8 of 1 channel; pixels other than 0 are edges: `gray | canny | lines`. Runs on the
    whole image, on the gateway; devices run the operators before it. Exact: segments are searched
    in a random order that OpenCV starts alike each time.

    The facts, with the longest segments first::

        {"count": 1, "left_out": 0,
         "lines": [{"x1": 10, "y1": 4, "x2": 200, "y2": 9, "length": 190.07}]}

    and for `ends=false`, with the lines of the most votes first::

        {"count": 1, "left_out": 0, "lines": [{"rho": 120.5, "theta": 45.0, "votes": 310}]}

    Positions and lengths are pixels of the whole image. `rho` is the distance of the line from the
    centre of the top left pixel. `theta` is the direction of its normal in degrees, to a
    ten-thousandth: 0 for a vertical line, 90 for a horizontal one. `left_out` lines, the last ones,
    are not listed, and `note` then says so.

    Parameters
    ----------
    votes : int
        The least number of pixels on a line, 1 to 1000000.
    length : float
        The least length of a segment, 0 to 100000 pixels.
    gap : float
        The largest gap within a segment, 0 to 10000 pixels.
    rho : float
        Resolution of distances, 0.5 to 100 pixels.
    theta : float
        Resolution of angles, 0.25 to 90 degrees.
    ends : bool
        Whether to find segments; if false, infinite lines, for which length and gap do not matter.
    most : int
        The most lines that are listed, 1 to 100000.
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
        lines = self._segments(image) if self.ends else self._infinite_lines(image)
        count = len(lines)
        left_out = max(0, count - self.most)
        facts = {"count": count, "left_out": left_out, "lines": lines[: self.most]}
        return with_note(facts, f"most={self.most} lists the first; raise it, or votes")

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

    def _infinite_lines(self, image: Image) -> list[dict[str, Any]]:
        found = cv2.HoughLinesWithAccumulator(image, self.rho, math.radians(self.theta), self.votes)
        rows = [] if found is None else found.reshape(-1, 3).tolist()
        return [
            {"rho": rho, "theta": round(math.degrees(theta), 4), "votes": int(votes)}
            for rho, theta, votes in rows
        ]

    def draw(self, picture: Image, facts: Facts) -> Image:
        """Draw the segments, or the first of the infinite lines, on the darkened image."""
        canvas = darkened(picture)
        lines = facts["lines"] if self.ends else facts["lines"][:_MOST_DRAWN]
        for one in lines:
            begin, end = _ends(one, canvas)
            cv2.line(canvas, begin, end, _COLOUR, pen(canvas), cv2.LINE_AA)
        return canvas


def _ends(line: dict[str, Any], picture: Image) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the two ends of a line in a drawing; an infinite line ends outside the image."""
    if "x1" in line:
        return (line["x1"], line["y1"]), (line["x2"], line["y2"])
    normal = np.array(
        [math.cos(math.radians(line["theta"])), math.sin(math.radians(line["theta"]))]
    )
    offset = math.hypot(*picture.shape[:2]) * np.array([-normal[1], normal[0]])
    begin, end = np.rint(normal * line["rho"] - offset), np.rint(normal * line["rho"] + offset)
    return (int(begin[0]), int(begin[1])), (int(end[0]), int(end[1]))
