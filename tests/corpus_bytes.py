"""Writes image files byte by byte, for variants that no library here writes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def pack_bits(values: Array, bits: int) -> bytes:
    """Rows of (height, width, …) values of `bits` bits, each padded to whole bytes."""
    rows = values.reshape(len(values), -1).astype(np.uint32)
    single = rows[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.uint32) & 1
    return np.packbits(single.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def packed_tiff(values: Array, bits: int, codec: int = 1) -> bytes:
    """A gray TIFF of one strip with any number of bits."""
    pixels = pack_bits(values, bits)
    tags = (
        (256, values.shape[1]),
        (257, values.shape[0]),
        (258, bits),
        (259, codec),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, values.shape[0]),
        (279, len(pixels)),
    )
    body = pixels + bytes(len(pixels) % 2)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(header: bytes, raw: bytes | None, chunks: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """A PNG of a header's content and rows with their filter bytes."""
    pixels = b"" if raw is None else chunk(b"IDAT", zlib.compress(raw, 1))
    extra = b"".join(chunk(*each) for each in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + pixels + chunk(b"IEND", b"")


def png_of(
    values: Array, kind: int, bits: int, chunks: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """A PNG of a colour type, with unfiltered rows."""
    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return png(header, _rows(values, bits), chunks)


def _rows(values: Array, bits: int) -> bytes:
    packed = pack_bits(values, bits)
    size = len(packed) // len(values)
    return b"".join(b"\0" + packed[row * size : (row + 1) * size] for row in range(len(values)))


def apng(image: Array, frames: Sequence[Array], *, own_image: bool) -> bytes:
    """An animated PNG; with `own_image`, the image itself is no frame."""
    height, width = image.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    count = len(frames) + (not own_image)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    out += chunk(b"acTL", struct.pack(">II", count, 0))
    number = 0
    control = struct.pack(">IIIIHHBB", width, height, 0, 0, 1, 10, 0, 0)
    if not own_image:
        out += chunk(b"fcTL", struct.pack(">I", number) + control)
        number += 1
    out += chunk(b"IDAT", zlib.compress(_rows(image, 8)))
    for frame in frames:
        out += chunk(b"fcTL", struct.pack(">I", number) + control)
        out += chunk(b"fdAT", struct.pack(">I", number + 1) + zlib.compress(_rows(frame, 8)))
        number += 2
    return out + chunk(b"IEND", b"")


def bmp(
    values: Array,
    bits: int,
    *,
    masks: Sequence[int] = (),
    palette: Array | None = None,
    header: int = 40,
    codec: int | None = None,
    top_down: bool = False,
    pixels: bytes | None = None,
) -> bytes:
    """A BMP of words, of (height, width, channels) bytes, or of palette indices."""
    height, width = values.shape[:2]
    if pixels is None:
        if bits < 8:
            packed = np.frombuffer(pack_bits(values, bits), np.uint8).reshape(height, -1)
        else:
            packed = np.ascontiguousarray(values).view(np.uint8).reshape(height, -1)
        padded = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 4)))
        pixels = (padded if top_down else padded[::-1]).tobytes()
    kind = codec if codec is not None else (3 if masks else 0)
    colours = 0 if palette is None else len(palette)
    info = struct.pack(
        "<IiiHHIIiiII",
        header,
        width,
        -height if top_down else height,
        1,
        bits,
        kind,
        len(pixels),
        2835,
        2835,
        colours,
        0,
    )
    info += struct.pack(f"<{len(masks)}I", *masks)
    info = info.ljust(max(header, len(info)), b"\0")
    if palette is not None:
        info += np.pad(palette, ((0, 0), (0, 1))).astype(np.uint8).tobytes()
    offset = 14 + len(info)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + info + pixels


def rle8_bmp(indices: Array, palette: Array) -> bytes:
    """A BMP with run lengths, where literal runs are padded to two bytes."""
    out = b""
    for row in indices[::-1]:
        middle = len(row) // 2
        for start in range(0, middle, 5):  # literals of 5, or what is left of the half
            part = row[start : min(start + 5, middle)]
            if len(part) >= 3:
                out += bytes([0, len(part)]) + part.tobytes() + bytes(len(part) % 2)
            else:
                out += b"".join(bytes([1, value]) for value in part)
        at = middle
        while at < len(row):
            run = 1
            while at + run < len(row) and row[at + run] == row[at] and run < 255:
                run += 1
            out += bytes([run, row[at]])
            at += run
        out += b"\0\0"
    return bmp(indices, 8, palette=palette, codec=1, pixels=out + b"\0\1")


def jpeg2000_of(image: Array) -> bytes:
    """A lossless JPEG 2000 file."""
    options = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    return cv2.imencode(".jp2", image, options)[1].tobytes()


def heif_header(brand: bytes) -> bytes:
    """The begin of a file of the ISO family."""
    return struct.pack(">I", 20) + b"ftyp" + brand + bytes(4) + brand + bytes(40)
