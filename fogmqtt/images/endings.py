"""Whether an image file has reached its end, as far as its own bytes tell.

A copy that pauses, or that another machine makes on a network file system, looks quiet before
it is complete. PNG, JPEG, BMP, WebP and TIFF say themselves whether bytes are missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_EOI = b"\xff\xd9"
_START_OF_SCAN = 0xDA
#: Bytes that are read at a time while the end of a JPEG is searched for.
_BLOCK = 1 << 20


class Ending(Enum):
    """What the bytes of a file say about its end."""

    WHOLE = "whole"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class _Bytes:
    """A file with its size and first bytes."""

    file: BinaryIO
    size: int
    begin: bytes

    def at(self, offset: int, count: int) -> bytes:
        self.file.seek(offset)
        return self.file.read(count)

    def number(self, start: int, stop: int, *, is_big_endian: bool = False) -> int:
        return int.from_bytes(self.begin[start:stop], "big" if is_big_endian else "little")


def ending(file: BinaryIO) -> Ending:
    """Whether an image file is complete; UNKNOWN where its format does not tell. Raises OSError.

    WHOLE does not mean that the image can be decoded: only the ends are read.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    data = _Bytes(file, size, file.read(16))
    for mark, check in _CHECKS:
        if data.begin.startswith(mark):
            return check(data)
    return Ending.UNKNOWN


def _png(data: _Bytes) -> Ending:
    if b"IEND" in data.at(max(len(_PNG), data.size - 12), 12):
        return Ending.WHOLE
    # Something may follow IEND, so the chunks are walked.
    offset = len(_PNG)
    while len(head := data.at(offset, 8)) == 8:
        if not head[4:].isalpha():
            return Ending.UNKNOWN
        offset += 12 + int.from_bytes(head[:4], "big")
        if head[4:] == b"IEND":
            return _reaches(data, offset)
    return Ending.MISSING


def _jpeg(data: _Bytes) -> Ending:
    # The end mark counts behind the start of the scan only: a thumbnail has one of its own.
    offset = 2
    while len(head := data.at(offset, 4)) == 4:
        if head[0] != 0xFF:
            return Ending.UNKNOWN
        if head[1] == _START_OF_SCAN:
            return _jpeg_scan(data, offset)
        # 0xFF may be repeated before a marker.
        offset += 1 if head[1] == 0xFF else 2 + int.from_bytes(head[2:], "big")
    return Ending.MISSING


def _jpeg_scan(data: _Bytes, offset: int) -> Ending:
    if _EOI in data.at(max(offset, data.size - 32), 32):
        return Ending.WHOLE
    # Phones put films and depth maps behind the end mark.
    data.file.seek(offset)
    last = b""
    while block := data.file.read(_BLOCK):
        if _EOI in last + block:
            return Ending.WHOLE
        last = block[-1:]
    return Ending.MISSING


def _bmp(data: _Bytes) -> Ending:
    length = data.number(2, 6)
    # Less than the smallest header: some programs write 0.
    return Ending.UNKNOWN if length < 26 else _reaches(data, length)


def _riff(data: _Bytes) -> Ending:
    return _reaches(data, 8 + data.number(4, 8))


def _tiff(data: _Bytes) -> Ending:
    # libtiff writes the directory last, and its place into the header after that.
    is_big_endian = data.begin.startswith(b"MM")
    is_big_tiff = 43 in data.begin[2:4]
    place = data.number(*((8, 16) if is_big_tiff else (4, 8)), is_big_endian=is_big_endian)
    return Ending.UNKNOWN if 0 < place < data.size else Ending.MISSING


def _reaches(data: _Bytes, length: int) -> Ending:
    return Ending.WHOLE if data.size >= length else Ending.MISSING


_CHECKS: tuple[tuple[bytes, Callable[[_Bytes], Ending]], ...] = (
    (_PNG, _png),
    (_JPEG, _jpeg),
    (b"BM", _bmp),
    (b"RIFF", _riff),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),
    (b"MM\0+", _tiff),
)
