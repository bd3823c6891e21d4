"""Whether an image file has reached its end, as far as its own bytes tell.

A copy that pauses, or that another machine makes on a network file system, looks quiet before
it is complete. PNG, JPEG, BMP, WebP, TIFF, GIF, AVIF, HEIC and JPEG 2000 say themselves whether
bytes are missing. A program that reserves the space of a file first, and fills it later or in
several places, leaves holes meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO, Literal

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_EOI = b"\xff\xd9"
_START_OF_SCAN = 0xDA
#: Bytes that are read at a time while the end of a JPEG is searched for.
_BLOCK = 1 << 20
#: More directories, entries and boxes than any file has that is read.
_MAX_DIRECTORIES, _MAX_ENTRIES, _MAX_BOXES = 10_000, 4_096, 10_000
#: The tags of a TIFF with the places and the sizes of strips and tiles.
_PIXEL_TAGS = frozenset((273, 279, 324, 325))
#: The bytes of a value of each type in a TIFF; of others, 1.
_TIFF_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


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
    return Ending.MISSING if _has_hole(data) else _ending(data)


def _ending(data: _Bytes) -> Ending:
    for mark, check in _CHECKS:
        if data.begin.startswith(mark):
            return check(data)
    if data.begin[4:8] == b"ftyp":
        return _boxes(data)
    return Ending.UNKNOWN


def _has_hole(data: _Bytes) -> bool:
    """Whether a part of the file was never written, as far as its file system tells."""
    try:
        number = data.file.fileno()
        place = os.lseek(number, 0, os.SEEK_CUR)
        hole = os.lseek(number, 0, os.SEEK_HOLE)
        os.lseek(number, place, os.SEEK_SET)
    except (OSError, AttributeError):  # not on this disk, or not on this system
        return False
    return hole < data.size


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
    # libtiff writes the directory last, and its place into the header after that. Other programs
    # write the directory first, so the places of the pixels count.
    form = _TiffForm("big" if data.begin.startswith(b"MM") else "little", 43 in data.begin[2:4])
    width = form.place_bytes
    place = int.from_bytes(data.begin[width : 2 * width], form.order)
    seen: set[int] = set()
    while place:
        if place in seen or len(seen) >= _MAX_DIRECTORIES:
            return Ending.UNKNOWN
        seen.add(place)
        directory = _read_directory(data, place, form)
        if directory is None:
            return Ending.UNKNOWN
        if directory.end > data.size:
            return Ending.MISSING
        place = directory.next
    return Ending.WHOLE if seen else Ending.MISSING


@dataclass(frozen=True, slots=True)
class _TiffForm:
    """The byte order of a TIFF, and whether it is a BigTIFF."""

    order: Literal["big", "little"]
    is_big: bool

    @property
    def place_bytes(self) -> int:
        """The bytes of a place in the file, and of the value in an entry."""
        return 8 if self.is_big else 4


@dataclass(frozen=True, slots=True)
class _Directory:
    """Where the last byte of a page is, and where the next directory is."""

    end: int
    next: int


def _read_directory(data: _Bytes, place: int, form: _TiffForm) -> _Directory | None:
    """Return a directory of a TIFF; None if it cannot be one."""
    wide, order = form.place_bytes, form.order
    count_bytes = 8 if form.is_big else 2
    count = int.from_bytes(data.at(place, count_bytes), order)
    entry_bytes = 4 + 2 * wide
    start = place + count_bytes
    if count > _MAX_ENTRIES:
        return None
    end = start + count * entry_bytes + wide
    if end > data.size:
        return _Directory(end, 0)
    body = data.at(start, count * entry_bytes + wide)
    ends, arrays = start + len(body), dict[int, list[int]]()
    for at in range(0, count * entry_bytes, entry_bytes):
        entry = body[at : at + entry_bytes]
        tag, kind = (int.from_bytes(entry[each : each + 2], order) for each in (0, 2))
        length = int.from_bytes(entry[4 : 4 + wide], order)
        size = _TIFF_SIZES.get(kind, 1)
        value = entry[4 + wide :]
        if size * length > wide:
            outside = int.from_bytes(value, order)
            ends = max(ends, outside + size * length)
            value = data.at(outside, size * length) if tag in _PIXEL_TAGS else b""
        if tag in _PIXEL_TAGS:
            cut = value[: size * length]
            arrays[tag] = [
                int.from_bytes(cut[each : each + size], order) for each in range(0, len(cut), size)
            ]
    for starts, sizes in ((273, 279), (324, 325)):
        pairs = zip(arrays.get(starts, ()), arrays.get(sizes, ()), strict=False)
        ends = max([ends, *(start + size for start, size in pairs)])
    return _Directory(ends, int.from_bytes(body[-wide:], order))


def _gif(data: _Bytes) -> Ending:
    # The last block ends with a zero, and the trailer is a semicolon. Some programs put zeros
    # behind it.
    end = data.at(max(0, data.size - 64), 64).rstrip(b"\0")
    return Ending.WHOLE if end.endswith(b"\0;") else Ending.MISSING


def _boxes(data: _Bytes) -> Ending:
    """The boxes of AVIF, HEIC and JPEG 2000, each with its length."""
    offset = 0
    for _ in range(_MAX_BOXES):
        head = data.at(offset, 16)
        if len(head) < 8:
            return Ending.WHOLE if offset == data.size else Ending.MISSING
        length = int.from_bytes(head[:4], "big")
        if length == 0:  # up to the end of the file, wherever that is
            return Ending.UNKNOWN
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:
            return Ending.UNKNOWN
        offset += length
        if offset > data.size:
            return Ending.MISSING
    return Ending.UNKNOWN


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
    (b"GIF8", _gif),
    (b"\0\0\0\x0cjP  ", _boxes),
)
