"""What pictures of facts are made of: darkened photographs, colours by number, panels of text."""

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
#: Of a full turn: neighbours in a list get hues far from each other.
_GOLDEN = 0.618034


def darkened(picture: Image, share: float = 0.4) -> Image:
    """A copy with `share` of the light, uint8: what is drawn on it stands out."""
    return cv2.convertScaleAbs(picture, alpha=share)


def hue(index: int) -> Colour:
    """A bright colour for each number; numbers that follow each other differ much."""
    turn = np.array([[[int(index * _GOLDEN % 1 * 180), 170, 255]]], np.uint8)
    blue, green, red = cv2.cvtColor(turn, cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return blue, green, red


def box_corners(fact: Mapping[str, Any]) -> Corners:
    """The corner pixels of what says left, top, width and height: clockwise from the upper left."""
    left, top = fact["left"], fact["top"]
    right, bottom = left + fact["width"] - 1, top + fact["height"] - 1
    return (left, top), (right, top), (right, bottom), (left, bottom)


def pen(picture: Image) -> int:
    """The width of a line that can be seen on a picture of this size, pixels."""
    longest: int = max(picture.shape[:2])
    return max(1, round(longest / 900))


def write(picture: Image, lines: Sequence[str]) -> None:
    """Lines of text on a dark panel in the upper left, as large as half of the picture."""
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
    """Darken a rectangle of the picture; what lies beyond its border is left out."""
    part = picture[top : top + height, left : left + width]
    part[...] = (part // 4).astype(np.uint8)
