"""Reads BMP files with numpy, as their header says; run lengths with Pillow."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image as Pillow

from fogmqtt.images.formats.page import FormatError, Page
from fogmqtt.images.metadata import Metadata
from fogmqtt.images.spec import Image

_FILE_HEADER: Final = 14
#: The oldest header; its palette has 3 bytes per colour.
_CORE_HEADER: Final = 12
_HEADERS: Final = frozenset((12, 16, 40, 52, 56, 64, 108, 124))
_PLAIN, _RLE8, _RLE4, _FIELDS, _ALPHA_FIELDS = 0, 1, 2, 3, 6
_OTHER_CODECS: Final = {4: "JPEG", 5: "PNG", 11: "CMYK", 12: "CMYK RLE8", 13: "CMYK RLE4"}
#: Masks of red, green, blue and alpha where a header has none.
_DEFAULT_MASKS: Final = {
    16: (0x7C00, 0x03E0, 0x001F, 0),
    24: (0xFF0000, 0xFF00, 0xFF, 0),
    32: (0xFF0000, 0xFF00, 0xFF, 0),
}
_INCH_PER_METRE: Final = 0.0254


@dataclass(frozen=True, slots=True)
class _Header:
    height: int
    width: int
    is_top_down: bool
    bits: int
    codec: int
    #: Where the pixels begin.
    offset: int
    masks: tuple[int, ...]
    #: (colours, 3), BGR.
    palette: Image | None
    dpi: tuple[float, float] | None

    @property
    def row_bytes(self) -> int:
        """The bytes of a row, which is padded to 4 bytes."""
        return -(-self.width * self.bits // 32) * 4


def pages(data: bytes) -> list[Page]:
    """Return the one image of the file."""
    header = _read_header(data)
    is_gray = header.palette is not None and _is_gray(header.palette)
    notes = ("alpha channel dropped",) if header.masks[3:] and header.masks[3] else ()
    return [
        Page(
            size=(header.height, header.width),
            channels=1 if is_gray else 3,
            notes=notes,
            metadata=Metadata(dpi=header.dpi),
            detail=header,
        )
    ]


def check(data: bytes, page: Page) -> list[str]:
    """Check that all rows are there."""
    header: _Header = page.detail
    needed = header.offset + header.row_bytes * header.height
    if header.codec not in (_RLE8, _RLE4) and len(data) < needed:
        raise FormatError(f"it is truncated: it has {len(data):,} of {needed:,} bytes")
    return []


def decode(data: bytes, page: Page) -> Image:
    """Decode the image: gray if the palette is, else BGR."""
    header: _Header = page.detail
    check(data, page)
    if header.codec in (_RLE8, _RLE4):
        return _decode_runs(data, page)
    count = header.row_bytes * header.height
    rows = np.frombuffer(data, np.uint8, count, header.offset).reshape(header.height, -1)
    rows = rows if header.is_top_down else rows[::-1]
    if header.palette is not None:
        return _look_up(_indices(rows, header), header.palette, page.channels)
    return _split(rows, header)


def _read_header(data: bytes) -> _Header:
    if len(data) < _FILE_HEADER + _CORE_HEADER:
        raise FormatError(f"it is truncated: it has {len(data)} bytes")
    offset, size = struct.unpack_from("<II", data, 10)
    if size not in _HEADERS or len(data) < _FILE_HEADER + size:
        raise FormatError(f"the header is damaged: its length is given as {size}")
    if size == _CORE_HEADER:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        codec, colours, dpi = _PLAIN, 0, None
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
        codec, _, x, y, colours = struct.unpack_from("<IIIII", data.ljust(64, b"\0"), 30)
        codec, colours = (codec, colours) if size >= 40 else (_PLAIN, 0)
        dpi = (x * _INCH_PER_METRE, y * _INCH_PER_METRE) if size >= 40 and x and y else None
    if width < 1 or height == 0:
        raise FormatError(f"it has {width}x{abs(height)} pixels, so there are no pixels")
    _check_kind(bits, codec, size)
    masks = _masks(data, bits, codec, size)
    palette = _palette(data, bits, colours, size) if bits <= 8 else None
    return _Header(abs(height), width, height < 0, bits, codec, offset, masks, palette, dpi)


def _check_kind(bits: int, codec: int, size: int) -> None:
    is_os2 = size == 64 and codec in (_FIELDS, 4)
    if is_os2 or codec in _OTHER_CODECS:
        name = "Huffman or RLE24 of OS/2" if is_os2 else _OTHER_CODECS[codec]
        raise FormatError(f"its compression is {name}, which is not read in a BMP; save it as PNG")
    fits = {
        _PLAIN: (1, 2, 4, 8, 16, 24, 32),
        _RLE8: (8,),
        _RLE4: (4,),
        _FIELDS: (16, 32),
        _ALPHA_FIELDS: (16, 32),
    }
    if bits not in fits.get(codec, ()):
        raise FormatError(
            f"it has {bits} bits per pixel and compression {codec}, which no BMP has; "
            "save it as PNG"
        )


def _masks(data: bytes, bits: int, codec: int, size: int) -> tuple[int, ...]:
    if bits <= 8:
        return ()
    if codec == _PLAIN:
        return _DEFAULT_MASKS[bits]
    # Of a header of 40 bytes, the masks follow; longer ones contain them at the same place.
    count = 4 if codec == _ALPHA_FIELDS or size >= 56 else 3
    masks = struct.unpack_from(f"<{count}I", data, _FILE_HEADER + 40)
    for mask in masks[:3]:
        shifted = mask // (mask & -mask) if mask else 0
        if shifted & (shifted + 1) or not mask:
            raise FormatError(f"its colour mask {mask:08x} is not a row of bits; save it as PNG")
    return masks


def _palette(data: bytes, bits: int, colours: int, size: int) -> Image:
    step = 3 if size == _CORE_HEADER else 4
    start = _FILE_HEADER + size
    count = min(colours or 1 << bits, 1 << bits, (len(data) - start) // step)
    stored = np.frombuffer(data, np.uint8, count * step, start).reshape(count, step)
    # An index beyond the palette is black.
    palette = np.zeros((1 << bits, 3), np.uint8)
    palette[:count] = stored[:, :3]
    return palette


def _is_gray(palette: Image) -> bool:
    return bool((palette == palette[:, :1]).all())


def _look_up(indices: Image, palette: Image, channels: int) -> Image:
    table = np.ascontiguousarray(palette[:, 0]) if channels == 1 else palette
    return table[indices]


def _indices(rows: Image, header: _Header) -> Image:
    """Return the palette index of each pixel."""
    if header.bits == 8:
        return rows[:, : header.width]
    per_byte = 8 // header.bits
    shifts = np.arange(8 - header.bits, -1, -header.bits, dtype=np.uint8)
    single = rows[:, :, np.newaxis] >> shifts & ((1 << header.bits) - 1)
    return single.reshape(header.height, rows.shape[1] * per_byte)[:, : header.width]


def _split(rows: Image, header: _Header) -> Image:
    """Return BGR of pixels that hold their channels themselves."""
    if header.masks[:3] == _DEFAULT_MASKS[24][:3] and header.bits in (24, 32):
        size = header.bits // 8
        pixels = rows[:, : header.width * size].reshape(header.height, header.width, size)
        return np.ascontiguousarray(pixels[..., :3])
    words = np.ascontiguousarray(rows).view(f"<u{header.bits // 8}")[:, : header.width]
    image = np.empty((header.height, header.width, 3), np.uint8)
    for channel, mask in enumerate(header.masks[2::-1]):
        lowest = mask & -mask
        most = mask // lowest
        for row in range(header.height):  # row by row, since products need wider integers
            values = (words[row].astype(np.uint64) & mask) // lowest
            image[row, :, channel] = (values * 255 + most // 2) // most
    return image


def _decode_runs(data: bytes, page: Page) -> Image:
    with Pillow.open(io.BytesIO(data), formats=("BMP",)) as file:
        if page.channels == 1:
            return np.asarray(file.convert("L"))
        return np.ascontiguousarray(np.asarray(file.convert("RGB"))[..., ::-1])
