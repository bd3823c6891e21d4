"""Reads Radiance HDR files with OpenCV, as 32-bit floating point."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.formats.page import FormatError, Page
from fogmqtt.images.spec import Image

_SIZE: Final = re.compile(rb"\n\n([-+])([XY]) (\d+) ([-+])([XY]) (\d+)\n")
#: Longer headers are taken for damaged.
_MAX_HEADER: Final = 1 << 16


def pages(data: bytes) -> list[Page]:
    """Return the one image of the file."""
    head = data[:_MAX_HEADER]
    found = _SIZE.search(head)
    if found is None:
        raise FormatError("the header is damaged: no size follows it")
    if b"FORMAT=32-bit_rle_xyze" in head:
        raise FormatError("its colours are XYZ; save it as RGB")
    if (found[1], found[2], found[4], found[5]) != (b"-", b"Y", b"+", b"X"):
        raise FormatError("its rows do not run from the upper left; save it without a rotation")
    return [Page((int(found[3]), int(found[6])), dtype="float32", detail=found.end())]


def check(data: bytes, page: Page) -> list[str]:
    """Walk the run lengths: OpenCV does not tell that some are missing."""
    height, width = page.size
    at: int = page.detail
    if not 8 <= width < 32768 or data[at : at + 2] != b"\2\2":
        return []  # pixels of 4 bytes, or the old run lengths, which cannot be told apart
    for row in range(height):
        if data[at : at + 2] != b"\2\2" or at + 4 > len(data):
            raise FormatError(f"it is truncated: {height - row} of {height} rows are missing")
        at = _skip_row(data, at + 4, width)
    return []


def decode(data: bytes, _page: Page) -> Image:
    """Decode the image: BGR."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_BGR | cv2.IMREAD_ANYDEPTH)
    if image is None:
        raise FormatError("OpenCV cannot decode it; it is truncated or damaged")
    return image


def _skip_row(data: bytes, at: int, width: int) -> int:
    for _ in range(4):
        left = width
        while left > 0:
            if at >= len(data):
                raise FormatError("it is truncated: a row ends too early")
            count = data[at]
            run = count > 128
            left -= count - 128 if run else count
            at += 2 if run else 1 + count
            if not count:
                raise FormatError("a run of no pixels; it is damaged")
    if at > len(data):
        raise FormatError("it is truncated: a row ends too early")
    return at
