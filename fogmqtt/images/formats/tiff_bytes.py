"""Turns the strips and tiles of a TIFF page into samples, as they are stored.

Strips of a page are decompressed by one call of libtiff: a small TIFF file is put behind the data
that points to the same strips and calls their bytes gray pixels. So libtiff gives plain bytes for
every kind of sample.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import tifffile
from PIL import Image as Pillow

from fogmqtt.images.formats.page import FormatError
from fogmqtt.images.spec import Image

#: none, LZW, deflate, PackBits, old deflate, LZMA, Zstandard.
CODECS: Final = frozenset((1, 5, 8, 32773, 32946, 34925, 50000))
_PREDICTOR_NONE, _PREDICTOR_HORIZONTAL, _PREDICTOR_FLOAT = 1, 2, 3
_SHORT, _LONG = 3, 4
#: Rows whose bits are unpacked at a time.
_BLOCK_ROWS: Final = 256


def read_samples(data: bytes, page: tifffile.TiffPage) -> Image:
    """Return all samples of a page as (height, width, samples), in the machine's byte order.

    Raises FormatError if strips or tiles are missing, and OSError if libtiff cannot read them.
    """
    height, width, count = page.imagelength, page.imagewidth, page.samplesperpixel
    is_planar = int(page.planarconfig) == 2 and count > 1
    plane_samples = 1 if is_planar else count
    planes = count if is_planar else 1
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    per_plane = _segments_per_plane(page)
    if len(segments) < per_plane * planes:
        raise FormatError(f"{per_plane * planes - len(segments)} strips or tiles are missing")
    samples: Image | None = None
    for plane in range(planes):
        part = segments[plane * per_plane : (plane + 1) * per_plane]
        values = _read_plane(data, page, part, plane_samples)
        if not is_planar:
            return values
        if samples is None:
            samples = np.empty((height, width, count), values.dtype)
        samples[..., plane] = values[..., 0]
    assert samples is not None  # noqa: S101  # there is at least one plane
    return samples


def _segments_per_plane(page: tifffile.TiffPage) -> int:
    height, width = page.imagelength, page.imagewidth
    if page.is_tiled:
        if page.tilelength < 1 or page.tilewidth < 1:
            raise FormatError("its tiles are empty; it is damaged")
        return -(-height // page.tilelength) * -(-width // page.tilewidth)
    return -(-height // _strip_rows(page))


def _strip_rows(page: tifffile.TiffPage) -> int:
    rows = page.rowsperstrip
    return min(rows, page.imagelength) if rows and rows > 0 else page.imagelength


def _read_plane(
    data: bytes, page: tifffile.TiffPage, segments: Sequence[tuple[int, int]], samples: int
) -> Image:
    """Return (height, width, samples) of one plane."""
    height, width = page.imagelength, page.imagewidth
    if not page.is_tiled:
        return _read_rows(data, page, segments, (height, width, samples), _strip_rows(page))
    down, across = -(-height // page.tilelength), -(-width // page.tilewidth)
    shape = (down * across * page.tilelength, page.tilewidth, samples)
    stored = _read_rows(data, page, segments, shape, page.tilelength)
    tiles = stored.reshape(down, across, page.tilelength, page.tilewidth, samples)
    whole = tiles.swapaxes(1, 2).reshape(down * page.tilelength, across * page.tilewidth, samples)
    return whole[:height, :width]


def _read_rows(
    data: bytes,
    page: tifffile.TiffPage,
    segments: Sequence[tuple[int, int]],
    shape: tuple[int, int, int],
    rows_per_segment: int,
) -> Image:
    """Return the samples of rows of pixels, each packed to whole bytes, without a predictor."""
    height, width, samples = shape
    bits = int(page.bitspersample)
    row_bytes = -(-width * samples * bits // 8)
    predictor = int(page.predictor)
    if predictor not in (_PREDICTOR_NONE, _PREDICTOR_HORIZONTAL, _PREDICTOR_FLOAT):
        raise FormatError(f"its predictor {predictor} is not known; save it without a predictor")
    if predictor != _PREDICTOR_NONE and bits not in (8, 16, 32, 64):
        raise FormatError(f"it has a predictor with {bits} bits; save it without a predictor")
    rows = _decompress(data, page, segments, (height, row_bytes), rows_per_segment)
    order = page.parent.byteorder
    if predictor == _PREDICTOR_FLOAT:
        return _undo_float_predictor(rows, shape, bits)
    if bits % 8:
        return _unpack(rows, shape, bits)
    kind = "f" if int(page.sampleformat) == 3 else "u"
    values = rows.view(np.dtype(f"{order}{kind}{bits // 8}")).reshape(shape)
    if predictor == _PREDICTOR_HORIZONTAL:
        whole = values.view(np.dtype(f"{order}u{bits // 8}")).astype(f"u{bits // 8}")
        np.cumsum(whole, axis=1, dtype=whole.dtype, out=whole)
        values = whole.view(np.dtype(f"{kind}{bits // 8}"))
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _undo_float_predictor(rows: Image, shape: tuple[int, int, int], bits: int) -> Image:
    """Undo byte-wise differences of numbers whose bytes were sorted, the highest first."""
    height, width, samples = shape
    size = bits // 8
    # The bytes of equal rank differ from those `samples` before.
    ranked = rows.reshape(height, width * size, samples)
    ranked = np.cumsum(ranked, axis=1, dtype=np.uint8)
    numbers = ranked.reshape(height, size, width * samples).swapaxes(1, 2)
    return np.ascontiguousarray(numbers).view(f">f{size}").reshape(shape).astype(f"f{size}")


def _unpack(rows: Image, shape: tuple[int, int, int], bits: int) -> Image:
    """Return values of `bits` bits, which are packed from the highest bit on."""
    height, width, samples = shape
    dtype = np.uint8 if bits < 8 else np.uint16
    values = np.empty((height, width * samples), dtype)
    for top in range(0, height, _BLOCK_ROWS):
        block = rows[top : top + _BLOCK_ROWS]
        single = np.unpackbits(block, axis=1, count=width * samples * bits)
        single = single.reshape(len(block), width * samples, bits)
        total = np.zeros(single.shape[:2], dtype)
        for bit in range(bits):
            total = (total << 1) | single[..., bit]
        values[top : top + _BLOCK_ROWS] = total
    return values.reshape(shape)


def _decompress(
    data: bytes,
    page: tifffile.TiffPage,
    segments: Sequence[tuple[int, int]],
    shape: tuple[int, int],
    rows_per_segment: int,
) -> Image:
    """Return the bytes of the segments as (rows, bytes of a row)."""
    _check_segments(data, page, segments, shape, rows_per_segment)
    tags = {
        256: (_LONG, [shape[1]]),
        257: (_LONG, [shape[0]]),
        258: (_SHORT, [8]),
        259: (_SHORT, [int(page.compression)]),
        262: (_SHORT, [1]),
        266: (_SHORT, [int(page.fillorder)]),
        273: (_LONG, [start for start, _ in segments]),
        277: (_SHORT, [1]),
        278: (_LONG, [rows_per_segment]),
        279: (_LONG, [size for _, size in segments]),
    }
    with Pillow.open(io.BytesIO(_with_directory(data, tags)), formats=("TIFF",)) as image:
        return np.asarray(image)


def _check_segments(
    data: bytes,
    page: tifffile.TiffPage,
    segments: Sequence[tuple[int, int]],
    shape: tuple[int, int],
    rows_per_segment: int,
) -> None:
    """Refuse segments beyond the file, and empty ones, which libtiff would leave as they are."""
    is_plain = int(page.compression) == 1
    for index, (start, size) in enumerate(segments):
        rows = min(rows_per_segment, shape[0] - index * rows_per_segment)
        needed = rows * shape[1] if is_plain else 1
        if size < needed or start + size > len(data):
            raise FormatError(
                f"the data of strip or tile {index + 1} of {len(segments)} are missing; "
                "it is truncated or damaged"
            )


def _with_directory(data: bytes, tags: dict[int, tuple[int, list[int]]]) -> bytes:
    """Return the data with another directory behind them, which becomes the only one."""
    body = bytearray(data)
    body += bytes(-len(body) % 2)
    entries = bytearray(struct.pack("<H", len(tags)))
    for tag, (kind, values) in tags.items():
        packed = struct.pack(f"<{len(values)}{'H' if kind == _SHORT else 'I'}", *values)
        if len(packed) > 4:
            place = struct.pack("<I", len(body))
            body += packed
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, kind, len(values)) + place
    start = len(body)
    body[:8] = b"II*\0" + struct.pack("<I", start)
    body += entries + bytes(4)
    return bytes(body)
