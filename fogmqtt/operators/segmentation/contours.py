"""Contours of the shapes in a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.panels import box_corners, darkened, hue, pen
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Facts
from fogmqtt.operators.api.measuring import Measuring, with_note

_MODES = {"external": cv2.RETR_EXTERNAL, "list": cv2.RETR_LIST, "tree": cv2.RETR_TREE}
_METHODS = {
    "all": cv2.CHAIN_APPROX_NONE,
    "simple": cv2.CHAIN_APPROX_SIMPLE,
    "tc89": cv2.CHAIN_APPROX_TC89_L1,
}


@dataclass(frozen=True)
class Contours(Measuring):
    """Contours of the non-zero shapes by `cv2.findContours` (Suzuki and Abe, 1985).

    Takes uint8 of 1 channel, for example `gray | canny | close | contours`. Runs on the whole
    image, on the gateway; devices run the operators before it. Exact.

    The facts::

        {"count": 1, "smaller": 0, "left_out": 0,
         "contours": [{"number": 1, "parent": 0, "area": 120.5, "perimeter": 48.2, "left": 17,
                       "top": 4, "width": 15, "height": 10, "points": [[17, 4], [17, 5]]}]}

    Positions and lengths are pixels of the whole image. `count` contours have at least `min_area`,
    and `smaller` have less. Contours are numbered from 1 in OpenCV's order. `parent` is the number
    of the next contour around it; 0 is none, and `parent` is always 0 unless `mode=tree`.
    `left_out` contours, those with the smallest areas, are not listed, and `note` then says so. The
    area is that of the polygon through the pixels of the border: an outline of one pixel's width
    has almost none.

    Parameters
    ----------
    mode : {"external", "list", "tree"}
        external finds the outermost contours only, list finds all including holes, tree also finds
        which contour lies in which.
    method : {"simple", "all", "tc89"}
        Points of a contour: the ends of straight lines, every pixel, or the dominant points of Teh
        and Chin, 1989.
    epsilon : float
        Simplification: no pixel of the contour is farther than this from its polygon, 0 to 1000
        pixels; 0 is none.
    min_area : float
        The least area that counts, 0 to 1e9 square pixels.
    most : int
        The most contours that are listed, 1 to 100000.
    points : bool
        Whether the points are listed.
    """

    name: ClassVar[str] = "contours"
    tiled: ClassVar[bool] = False

    mode: str = "external"
    method: str = "simple"
    epsilon: float = 0.0
    min_area: float = 0.0
    most: int = 1000
    points: bool = True

    def __post_init__(self) -> None:
        self._require(self.mode in _MODES, "mode", f"expected {', '.join(_MODES)}")
        self._require(self.method in _METHODS, "method", f"expected {', '.join(_METHODS)}")
        self._require(0 <= self.epsilon <= 1000, "epsilon", "expected 0 to 1000 pixels")
        self._require(0 <= self.min_area <= 1e9, "min_area", "expected 0 to 1e9 square pixels")
        self._require(1 <= self.most <= 100_000, "most", "expected 1 to 100000")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",), channels=(1,))
        return spec

    def measure_whole(self, image: Image) -> Facts:
        found, tree = cv2.findContours(image, _MODES[self.mode], _METHODS[self.method])
        contours = [self._simplified(contour) for contour in found]
        parents = tree[0, :, 3].tolist() if self.mode == "tree" and found else [-1] * len(found)
        areas = np.array([cv2.contourArea(contour) for contour in contours])
        large = np.flatnonzero(areas >= self.min_area)
        listed = np.sort(large[np.argsort(-areas[large], kind="stable")[: self.most]])
        facts = {
            "count": len(large),
            "smaller": len(contours) - len(large),
            "left_out": len(large) - len(listed),
            "contours": [
                self._fact(index, contours[index], parents[index], areas[index].item())
                for index in listed.tolist()
            ],
        }
        return with_note(facts, f"most={self.most} lists the largest; raise it, or min_area")

    def _simplified(self, contour: Image) -> Image:
        return cv2.approxPolyDP(contour, self.epsilon, closed=True) if self.epsilon else contour

    def _fact(self, index: int, contour: Image, parent: int, area: float) -> dict[str, Any]:
        left, top, width, height = cv2.boundingRect(contour)
        fact = {
            "number": index + 1,
            "parent": parent + 1,
            "area": area,
            "perimeter": cv2.arcLength(contour, closed=True),
            "left": left,
            "top": top,
            "width": width,
            "height": height,
        }
        return {**fact, "points": contour.reshape(-1, 2).tolist()} if self.points else fact

    def draw(self, picture: Image, facts: Facts) -> Image:
        """Draw each contour in its own colour on the darkened image; without points, its box."""
        canvas = darkened(picture)
        for one in facts["contours"]:
            outline = np.array(one.get("points") or box_corners(one), np.int32).reshape(-1, 1, 2)
            cv2.polylines(canvas, [outline], True, hue(one["number"]), pen(canvas), cv2.LINE_AA)
        return canvas
