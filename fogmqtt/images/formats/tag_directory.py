"""Directories of tags, of which EXIF data and the pages of a TIFF consist, read and written.

Values keep their types. They are held as little-endian bytes, whatever the order of their file.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

#: The directories to which tags lead: EXIF's own tags, the position, and interoperability.
EXIF_TAG, POSITION_TAG = 34665, 34853
_INTEROPERABILITY_TAG: Final = 40965
_LINKS: Final = frozenset((EXIF_TAG, POSITION_TAG, _INTEROPERABILITY_TAG))
BYTE, ASCII, LONG = 1, 2, 4
#: The bytes of a value of each type, and those of its numbers, whose order is that of the file.
_TYPES: Final = dict.fromkeys((1, 2, 6, 7, 129), (1, 1)) | {
    **dict.fromkeys((3, 8), (2, 2)),
    **dict.fromkeys((4, 9, 11, 13), (4, 4)),
    **dict.fromkeys((5, 10), (8, 4)),
    **dict.fromkeys((12, 16, 17, 18), (8, 8)),
}
#: More than any program writes; each directory, and all values of one together.
_MOST_TAGS, _MOST_BYTES = 1000, 1 << 24


class Value(NamedTuple):
    """The value of a tag: the number of its type, how many there are, and their bytes."""

    kind: int
    number: int
    data: bytes


#: The values of a directory by the numbers of their tags; a link is the directory it leads to.
Directory = dict[int, "Value | Directory"]


class DirectoryError(ValueError):
    """A directory that is damaged."""


def read_exif(exif: bytes) -> Directory:
    """Return what EXIF data without a prefix say. Raises DirectoryError."""
    order = _order(exif)
    if len(exif) < 8:
        raise DirectoryError("it is too short")
    return read_directory(exif, struct.unpack_from(f"{order}I", exif, 4)[0])


def write_exif(directory: Directory) -> bytes:
    """Return EXIF data, without a prefix."""
    return b"II*\0\x08\0\0\0" + write_directory(directory, 8)


def read_directory(data: bytes, at: int) -> Directory:
    """Return a directory of EXIF data or of a TIFF, from its offset. Raises DirectoryError."""
    order = _order(data)
    is_big = data[2:4] in (b"+\0", b"\0+")
    return _read(data, at, order, is_big=is_big, may_lead=_LINKS)


def write_directory(directory: Directory, offset: int) -> bytes:
    """Return a directory with its values and those it leads to, to lie at an offset below 4 GiB."""
    at = offset + 2 + 12 * len(directory) + 4
    entries, behind = struct.pack("<H", len(directory)), b""
    for tag, value in sorted(directory.items()):
        if isinstance(value, dict):
            kind, count, data = LONG, 1, (at + len(behind)).to_bytes(4, "little")
            behind += write_directory(value, at + len(behind))
        elif len(value.data) > 4:
            kind, count, data = value.kind, value.number, (at + len(behind)).to_bytes(4, "little")
            behind += value.data
        else:
            kind, count, data = value
        behind += bytes(len(behind) % 2)  # values begin at even bytes
        entries += struct.pack("<HHI4s", tag, kind, count, data)
    return entries + bytes(4) + behind


def _order(data: bytes) -> str:
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise DirectoryError("it has no byte order")
    return order


def _read(data: bytes, at: int, order: str, *, is_big: bool, may_lead: frozenset[int]) -> Directory:
    entry_bytes, field_bytes = (20, 8) if is_big else (12, 4)
    (count,) = _unpack(f"{order}Q" if is_big else f"{order}H", data, at)
    if count > _MOST_TAGS:
        raise DirectoryError(f"it has {count} tags")
    first = at + (8 if is_big else 2)
    found: Directory = {}
    total = 0
    for entry in range(count):
        start = first + entry * entry_bytes
        tag, kind, number = _unpack(f"{order}HHQ" if is_big else f"{order}HHI", data, start)
        if kind not in _TYPES:
            continue  # the specification asks readers to skip what they do not know
        field = data[start + entry_bytes - field_bytes : start + entry_bytes]
        value = Value(kind, number, _value(data, order, kind, number, field))
        total += len(value.data)
        if total > _MOST_BYTES:
            raise DirectoryError("its values are too long")
        if tag not in may_lead:
            found[tag] = value
            continue
        where = int.from_bytes(value.data, "little")
        found[tag] = _read(data, where, order, is_big=is_big, may_lead=may_lead - {tag})
    return found


def _value(data: bytes, order: str, kind: int, number: int, field: bytes) -> bytes:
    size, number_bytes = _TYPES[kind]
    length = size * number
    raw = field[:length]
    if length > len(field):
        at = int.from_bytes(field, "little" if order == "<" else "big")
        raw = data[at : at + length]
    if len(raw) < length:
        raise DirectoryError("a value is beyond the end")
    if order == "<" or number_bytes == 1:
        return bytes(raw)
    return b"".join(
        raw[start : start + number_bytes][::-1] for start in range(0, length, number_bytes)
    )


def _unpack(form: str, data: bytes, at: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(form, data, at)
    except struct.error:
        raise DirectoryError("a tag is beyond the end") from None
