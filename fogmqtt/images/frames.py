"""Frames with labels, drawn on pictures for people."""

from __future__ import annotations

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image

#: Blue, green, red.
Colour = tuple[int, int, int]

_LONGEST = 40
_WHITE: Colour = (255, 255, 255)
_BLACK: Colour = (0, 0, 0)


def frame(picture: Image, corners: Image, label: str, colour: Colour) -> None:
    """Draw a polygon on `picture`, (height, width, 3) uint8, and a label at its upper left.

    `corners` are x and y of each corner, (n, 2), pixels. A long label is cut.
    """
    scale = max(0.4, min(picture.shape[:2]) / 1500)
    thick = max(1, round(2 * scale))
    points = np.rint(corners).astype(np.int32)
    cv2.polylines(picture, [points.reshape(-1, 1, 2)], True, colour, thick, cv2.LINE_AA)
    text = "".join(letter for letter in label if letter.isprintable())[:_LONGEST]
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    left = int(max(0, min(points[:, 0].min(), picture.shape[1] - width)))
    bottom = int(max(height + base, points[:, 1].min() - thick))
    cv2.rectangle(picture, (left, bottom - height - base), (left + width, bottom), colour, -1)
    origin = left, bottom - base // 2 - 1
    ink = _ink(colour)
    cv2.putText(picture, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thick, cv2.LINE_AA)


def _ink(paper: Colour) -> Colour:
    """White, or black on what is light."""
    blue, green, red = paper
    return _BLACK if 299 * red + 587 * green + 114 * blue > 128_000 else _WHITE
