"""Draws frames with labels on images."""

from __future__ import annotations

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image

#: Blue, green, red.
Colour = tuple[int, int, int]

_MAX_LABEL_CHARS = 40
_WHITE: Colour = (255, 255, 255)
_BLACK: Colour = (0, 0, 0)


def frame(picture: Image, corners: Image, label: str, colour: Colour) -> None:
    """Draw a polygon and a label at its upper left on `picture`, (height, width, 3) uint8.

    `corners` is an (n, 2) array with the x and y of each corner in pixels. A label is cut after 40
    characters.
    """
    scale = max(0.4, min(picture.shape[:2]) / 1500)
    thick = max(1, round(2 * scale))
    points = np.rint(corners).astype(np.int32)
    cv2.polylines(picture, [points.reshape(-1, 1, 2)], True, colour, thick, cv2.LINE_AA)
    text = "".join(letter for letter in label if letter.isprintable())[:_MAX_LABEL_CHARS]
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    left = int(max(0, min(points[:, 0].min(), picture.shape[1] - width)))
    bottom = int(max(height + base, points[:, 1].min() - thick))
    cv2.rectangle(picture, (left, bottom - height - base), (left + width, bottom), colour, -1)
    origin = left, bottom - base // 2 - 1
    font, text_colour = cv2.FONT_HERSHEY_SIMPLEX, _text_colour(colour)
    cv2.putText(picture, text, origin, font, scale, text_colour, thick, cv2.LINE_AA)


def _text_colour(background: Colour) -> Colour:
    """Return black for a light background and white for a dark one."""
    blue, green, red = background
    return _BLACK if 299 * red + 587 * green + 114 * blue > 128_000 else _WHITE
