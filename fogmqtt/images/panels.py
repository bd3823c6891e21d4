"""Elements of images that show facts: darkened photos, colours by number, text panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.frames import Colour
from fogmqtt.images.spec import Image

_Corner = tuple[int, int]
Corners = tuple[_Corner, _Corner, _Corner, _Corner]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE = (240, 240, 240)
#: The step between two hues, as a part of the colour circle. Neighbours in a list differ much.
_HUE_STEP = 0.618034


def darkened(picture: Image, share: float = 0.4) -> Image:
    """Return a uint8 copy with `share` of the brightness, as a background for drawings."""
    return cv2.convertScaleAbs(picture, alpha=share)


def hue(index: int) -> Colour:
    """Return a bright colour for a number. The colours of neighbouring numbers differ much."""
    hsv = np.array([[[int(index * _HUE_STEP % 1 * 180), 170, 255]]], np.uint8)
    blue, green, red = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return blue, green, red


def box_corners(fact: Mapping[str, Any]) -> Corners:
    """Return the corner pixels (x, y) of a box, clockwise from the upper left.

    `fact` has the keys left, top, width and height, in pixels.
    """
    left, top = fact["left"], fact["top"]
    right, bottom = left + fact["width"] - 1, top + fact["height"] - 1
    return (left, top), (right, top), (right, bottom), (left, bottom)


def pen(picture: Image) -> int:
    """Return a line width in pixels that is visible on an image of this size."""
    longest: int = max(picture.shape[:2])
    return max(1, round(longest / 900))


def write(picture: Image, lines: Sequence[str]) -> None:
    """Write lines of text on a dark panel in the upper left, at most half as large as the image."""
    height, width = picture.shape[:2]
    longest = max(lines, key=len)
    (across, down), base = cv2.getTextSize(longest, _FONT, 1.0, 1)
    step = (down + base) * 1.3
    scale = min(width / 2 / across, height / 2 / (step * (len(lines) + 1)), 4.0)
    thick = max(1, round(2 * scale)) if scale > 0.6 else 1
    panel = round(step * scale * (len(lines) + 0.6)), round((across + down) * scale)
    shade(picture, 0, 0, *panel)
    for number, line in enumerate(lines, 1):
        origin = round(down * scale / 2), round(step * scale * number)
        cv2.putText(picture, line, origin, _FONT, scale, _WHITE, thick, cv2.LINE_AA)


def shade(picture: Image, top: int, left: int, height: int, width: int) -> None:
    """Darken the part of a rectangle that lies within the image."""
    part = picture[top : top + height, left : left + width]
    part[...] = (part // 4).astype(np.uint8)
