"""Draws an image that shows which device processed which tile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image

#: BGR colours that colour-blind people can also distinguish (Okabe and Ito, 2008).
COLOURS = (
    (0, 159, 230),
    (233, 180, 86),
    (115, 158, 0),
    (167, 121, 204),
    (66, 228, 240),
    (178, 114, 0),
    (0, 94, 213),
)
_TINT = 0.42
_BAR = 40
_FONT = cv2.FONT_HERSHEY_SIMPLEX

#: A device and the top, left, height and width of a core that it processed.
Piece = tuple[str, int, int, int, int]


def mosaic(original: Image, result: Image, pieces: Sequence[Piece]) -> Image:
    """Tint each tile of a photo by its device, draw the result in white, and add a legend.

    `original` is (height, width) or (height, width, 3) uint8. The pixels of `result` over 127 are
    drawn if it is (height, width) uint8; any other result is left out. Returns a (height + legend,
    width, 3) uint8 image.
    """
    canvas = original if original.ndim == 3 else cv2.cvtColor(original, cv2.COLOR_GRAY2BGR)
    canvas = (canvas.astype(np.uint16) * 3 // 4).astype(np.uint8)
    devices = sorted({piece[0] for piece in pieces})
    for device, top, left, height, width in pieces:
        part = canvas[top : top + height, left : left + width]
        tint = np.empty_like(part)
        tint[:] = _colour(devices, device)
        part[:] = cv2.addWeighted(part, 1 - _TINT, tint, _TINT, 0)
    if result.shape == canvas.shape[:2] and result.dtype == np.uint8:
        canvas[result > 127] = (255, 255, 255)
    for _, top, left, height, width in pieces:
        cv2.rectangle(canvas, (left, top), (left + width - 1, top + height - 1), (32, 32, 32), 1)
    return np.vstack([canvas, _legend(canvas.shape[1], devices, pieces)])


def _colour(devices: list[str], device: str) -> tuple[int, int, int]:
    return COLOURS[devices.index(device) % len(COLOURS)]


def _legend(width: int, devices: list[str], pieces: Sequence[Piece]) -> Image:
    rows = [_bar(width)]
    left = 12
    for device in devices:
        count = sum(piece[0] == device for piece in pieces)
        text = f"{device}: {count} tile{'s' if count != 1 else ''}"
        needed = 34 + int(cv2.getTextSize(text, _FONT, 0.5, 1)[0][0])
        if left + needed > width and left > 12:
            rows.append(_bar(width))
            left = 12
        colour = _colour(devices, device)
        cv2.rectangle(rows[-1], (left, 12), (left + 16, 28), colour, cv2.FILLED)
        cv2.putText(rows[-1], text, (left + 24, 25), _FONT, 0.5, (235, 235, 235), 1, cv2.LINE_AA)
        left += needed + 16
    return np.vstack(rows)


def _bar(width: int) -> Image:
    return np.full((_BAR, width, 3), 32, np.uint8)
