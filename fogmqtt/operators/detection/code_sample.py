"""Test images with a code of each kind, the same on every machine, by which devices are compared.

The codes are written down and not encoded, since another release may encode otherwise, and all
arithmetic is that of integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from fogmqtt.images.spec import Image

# Each row of squares or bars is a number, whose highest bit is the leftmost one; 1 is black.

_QR: Final = (
    *(0x1FC17F, 0x104F41, 0x17505D, 0x17575D, 0x174E5D, 0x104A41, 0x1FD57F, 0x000800, 0x03660C),
    *(0x1D1698, 0x005CA3, 0x0931D5, 0x1EFA19, 0x0018BE, 0x1FDED8, 0x104B1E, 0x17558B, 0x175820),
    *(0x174FD7, 0x104C6F, 0x1FCB38),
)
_DATA_MATRIX: Final = (
    *(0x2AAA, 0x28B9, 0x39D4, 0x2301, 0x2522, 0x3CDF, 0x3A9A),
    *(0x32B3, 0x2EA4, 0x3D9F, 0x2C24, 0x2A23, 0x32D6, 0x3FFF),
)
_PDF417: Final = (
    0x7FAA3EAF9A8C082EE7ABC3FA29,
    0x7FAA3EA3121F6C8E17A903FA29,
    0x7FAA3ABF17890C7C96A3E3FA29,
    0x7FAA35E7D1660B9C4579E3FA29,
    0x7FAA35C217DBCE5C67AE73FA29,
    0x7FAA3D7A10B3ECF237AF0BFA29,
    0x7FAA3A77D8EC8886369DE3FA29,
)
_EAN_13: Final = (0x51A9D7BD12CD50A142E90B35,)
_CODE_128: Final = (0xD2118A3B6889B939AEF7348DD8EB,)
#: The marker 7 of the dictionary 4x4_50.
_ARUCO: Final = (0x3F, 0x27, 0x37, 0x21, 0x3B, 0x3F)

_SIDE: Final = 512
_WHITE, _BLACK = 225, 30
#: Rows, columns, height and width of a row's squares, and the position of the first; pixels.
_SHEET: Final = (
    (_QR, 21, 5, 5, 90, 90),
    (_DATA_MATRIX, 14, 6, 6, 95, 260),
    (_ARUCO, 6, 13, 13, 97, 400),
    (_PDF417, 103, 7, 3, 225, 100),
    (_EAN_13, 95, 55, 2, 300, 85),
    (_CODE_128, 112, 55, 2, 385, 110),
)
#: Sine and cosine of the angles by which the sheet is turned, in 4096ths: 0, 4, 17, 32 and 95
#: degrees.
_TURNS: Final = ((0, 4096), (286, 4086), (1198, 3917), (2171, 3474), (4080, -357))


def sample_windows() -> Iterator[Image]:
    """Yield gray windows with all codes, turned by several angles, a little blurred, with grain."""
    sheet = np.full((_SIDE, _SIDE), _WHITE, np.int64)
    for rows, columns, height, width, top, left in _SHEET:
        code = np.kron(_squares(rows, columns), np.ones((height, width), np.int64))
        sheet[top : top + code.shape[0], left : left + code.shape[1]] -= code * (_WHITE - _BLACK)
    for sine, cosine in _TURNS:
        yield (_blurred(_turned(sheet, sine, cosine)) + _grain()).astype(np.uint8)


def _squares(rows: Sequence[int], columns: int) -> Image:
    return np.array([[row >> (columns - 1 - at) & 1 for at in range(columns)] for row in rows])


def _turned(sheet: Image, sine: int, cosine: int) -> Image:
    row, column = np.indices(sheet.shape, np.int64) - _SIDE // 2
    from_row = ((row * cosine - column * sine) >> 12) + _SIDE // 2
    from_column = ((row * sine + column * cosine) >> 12) + _SIDE // 2
    inside = (from_row >= 0) & (from_row < _SIDE) & (from_column >= 0) & (from_column < _SIDE)
    return np.where(inside, sheet[from_row % _SIDE, from_column % _SIDE], _WHITE)


def _blurred(image: Image) -> Image:
    shifted = (np.roll(image, at, axis) for axis in (0, 1) for at in (-1, 1))
    return (4 * image + sum(shifted)) // 8


def _grain() -> Image:
    """Return integers from 0 to 7 without a pattern."""
    index = np.arange(_SIDE * _SIDE, dtype=np.int64)
    return (((index * 0x45D9F3B) ^ (index >> 3) * 0x119DE1F3) >> 13 & 7).reshape(_SIDE, _SIDE)
