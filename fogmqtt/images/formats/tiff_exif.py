"""EXIF data in TIFF files: tags of a page, and directories to which two of them lead."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from fogmqtt.images.formats.tag_directory import (
    ASCII,
    BYTE,
    EXIF_TAG,
    LONG,
    POSITION_TAG,
    Directory,
    DirectoryError,
    Value,
    read_directory,
    read_exif,
    write_directory,
    write_exif,
)

if TYPE_CHECKING:
    import tifffile

_DESCRIPTION: Final = 270
#: What a page says about its picture: description, maker, model, software, date, artist, computer,
#: rights, and Windows' title, comment, author, keywords and subject.
_WORDS: Final = (_DESCRIPTION, 271, 272, 305, 306, 315, 316, 33432, *range(40091, 40096))
#: How programs begin descriptions that tell the layout of their file. It is not that of a result.
_LAYOUTS: Final = (b"ImageJ=", b"{", b"<", b"SCANIMAGE", b"Aperio")
_LINKS: Final = (EXIF_TAG, POSITION_TAG)
#: The bytes of a tag in the list of a page's tags.
_ENTRY_BYTES: Final = 12

#: A tag as tifffile takes it: number, type, count, value, and whether only the first page has it.
ExtraTag = tuple[int, int, int, bytes, bool]


def exif_of(data: bytes, page: tifffile.TiffPage) -> tuple[bytes, tuple[str, ...]]:
    """Return the EXIF data of a page, without an orientation, and notes about what is dropped."""
    if not any(code in page.tags for code in (*_WORDS, *_LINKS)):
        return b"", ()
    try:
        found = read_directory(data, page.offset)
    except DirectoryError:
        return b"", ("EXIF data dropped: they are damaged",)
    kept = {code: value for code, value in found.items() if code in (*_WORDS, *_LINKS)}
    notes: tuple[str, ...] = ()
    if isinstance(text := kept.get(_DESCRIPTION), Value) and text.data.startswith(_LAYOUTS):
        del kept[_DESCRIPTION]
        notes = ("description dropped: it tells the layout of the file",)
    return write_exif(kept) if kept else b"", notes


def can_hold(exif: bytes) -> bool:
    """Whether a TIFF can hold these EXIF data: its own directories must be made of them."""
    try:
        return bool(read_exif(exif))
    except DirectoryError:
        return False


def extra_tags(exif: bytes) -> list[ExtraTag]:
    """Return the texts of EXIF data as tags of a page; `write_links` adds the others."""
    return [
        (code, value.kind, value.number, value.data, False)
        for code, value in _of_page(exif).items()
        if isinstance(value, Value)
    ]


def write_links(stream: io.BytesIO, exifs: Sequence[bytes]) -> None:
    """Add the directories of EXIF data to the pages of a TIFF: tifffile does not write those.

    The file is little-endian and below 4 GiB. Pages with such data get a new list of their tags.
    """
    pointer = 4
    for exif in exifs:
        linked = {code: value for code, value in _of_page(exif).items() if isinstance(value, dict)}
        page = _number(stream, pointer, 4)
        if linked:
            page = _append(stream, _with_links(stream, page, linked))
            _put(stream, pointer, page)
        pointer = page + 2 + _ENTRY_BYTES * _number(stream, page, 2)


def _with_links(stream: io.BytesIO, page: int, linked: dict[int, Directory]) -> bytes:
    """Append directories; return the list of a page's tags with those that lead to them."""
    count = _number(stream, page, 2)
    tags = [stream.read(_ENTRY_BYTES) for _ in range(count)]
    following = stream.read(4)
    for code, directory in linked.items():
        at = _append(stream, write_directory(directory, _even_end(stream)))
        tags.append(struct.pack("<HHII", code, LONG, 1, at))
    tags.sort(key=lambda tag: int.from_bytes(tag[:2], "little"))
    return struct.pack("<H", len(tags)) + b"".join(tags) + following


def _number(stream: io.BytesIO, at: int, size: int) -> int:
    stream.seek(at)
    return int.from_bytes(stream.read(size), "little")


def _put(stream: io.BytesIO, at: int, number: int) -> None:
    stream.seek(at)
    stream.write(number.to_bytes(4, "little"))


def _even_end(stream: io.BytesIO) -> int:
    end = stream.seek(0, io.SEEK_END)
    return end + end % 2


def _append(stream: io.BytesIO, data: bytes) -> int:
    """Write behind the end, from an even byte on, as the format asks; returns its position."""
    at = _even_end(stream)
    stream.write(bytes(at - stream.tell()) + data)
    return at


def _of_page(exif: bytes) -> Directory:
    """Return what of EXIF data a page of a TIFF holds: texts, and directories."""
    directory = read_exif(exif) if exif else {}
    return {
        code: value
        for code, value in directory.items()
        if (code in _LINKS if isinstance(value, dict) else _is_text(code, value))
    }


def _is_text(code: int, value: Value) -> bool:
    return code in _WORDS and value.kind in (ASCII, BYTE) and bool(value.data.strip(b"\0 "))
