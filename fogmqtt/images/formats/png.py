"""Reads PNG files with OpenCV, very wide ones and the frames of animations with Pillow."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image as Pillow

from fogmqtt.images.cv import cv2
from fogmqtt.images.formats import frames
from fogmqtt.images.formats.exif import orientation_of, without_orientation
from fogmqtt.images.formats.page import FormatError, Page
from fogmqtt.images.formats.xmp import png_packet, read_packet
from fogmqtt.images.metadata import Metadata
from fogmqtt.images.spec import Image

_START: Final = 8
#: libpng refuses longer sides.
_LONGEST_SIDE: Final = 1_000_000
_GRAY_TYPES: Final = frozenset((0, 4))
_ALPHA_TYPES: Final = frozenset((4, 6))
_KNOWN_TYPES: Final = frozenset((0, 2, 3, 4, 6))
_INCH_PER_METRE: Final = 0.0254
#: Where ImageMagick puts IPTC records.
_IPTC_KEYWORD: Final = b"Raw profile type iptc\0"
#: The longest ICC profile that is kept.
_MAX_ICC: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class _Detail:
    #: None for the image of the file itself; else the frame of the animation, as Pillow counts.
    frame: int | None
    is_animated: bool
    is_wide: bool


@dataclass(slots=True)
class _Chunks:
    """What the chunks before and behind the pixels say."""

    size: tuple[int, int] = (0, 0)
    depth: int = 0
    colour: int = 0
    has_pixels: bool = False
    has_transparency: bool = False
    #: The number of frames, 0 for no animation; whether the image itself is one of them.
    frames: int = 0
    image_is_frame: bool = False
    icc: bytes = b""
    exif: bytes = b""
    dpi: tuple[float, float] | None = None
    xmp: bytes = b""
    has_iptc_text: bool = False


def pages(data: bytes) -> list[Page]:
    """Return the image, and the further frames of an animation."""
    chunks = _read_chunks(data)
    if chunks.colour not in _KNOWN_TYPES or chunks.depth not in (1, 2, 4, 8, 16):
        raise FormatError(
            f"it is of colour type {chunks.colour} with {chunks.depth} bits, which no PNG has"
        )
    if not chunks.has_pixels:
        raise FormatError("it has no pixel data (no IDAT chunk); it is truncated or damaged")
    is_wide = max(chunks.size) > _LONGEST_SIDE
    if is_wide and chunks.depth == 16 and chunks.colour != 0:
        raise FormatError(
            f"it is {chunks.size[1]} pixels wide and {chunks.size[0]} high, and a PNG with 16 bits "
            f"per channel is read up to {_LONGEST_SIDE} (libpng); save it as TIFF"
        )
    xmp, xmp_notes = read_packet(chunks.xmp)
    image = Page(
        size=chunks.size,
        channels=1 if chunks.colour in _GRAY_TYPES else 3,
        dtype="uint16" if chunks.depth == 16 else "uint8",
        orientation=orientation_of(chunks.exif),
        notes=(*_notes(chunks), *xmp_notes),
        metadata=Metadata(chunks.icc, without_orientation(chunks.exif), chunks.dpi, xmp),
        detail=_Detail(None, bool(chunks.frames), is_wide),
    )
    return [image, *_further_frames(chunks)]


def check(data: bytes, _page: Page) -> list[str]:
    """Check all chunks with their checksums, which is far cheaper than a second decoding."""
    with Pillow.open(io.BytesIO(data), formats=("PNG",)) as file:
        file.verify()
    return []


def decode(data: bytes, page: Page) -> Image:
    """Decode one page: gray, or BGR, and not turned yet."""
    detail: _Detail = page.detail
    if detail.frame is not None:
        return frames.decode_frame(data, "PNG", detail.frame)
    if detail.is_animated:
        data = _without_animation(data)
    if detail.is_wide:
        return _decode_wide(data, page)
    kind = cv2.IMREAD_GRAYSCALE if page.channels == 1 else cv2.IMREAD_COLOR_BGR
    kind |= cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), kind)
    if image is None:
        raise FormatError("libpng cannot decode it; it is truncated or damaged")
    return image


def _further_frames(chunks: _Chunks) -> Iterator[Page]:
    """Yield the frames of an animation beside the image itself."""
    # Pillow counts an image that is no frame as frame 0.
    total = chunks.frames + (not chunks.image_is_frame)
    for frame in range(1, total if chunks.frames else 0):
        detail = _Detail(frame, is_animated=True, is_wide=False)
        yield Page(size=chunks.size, notes=("alpha channel dropped",), detail=detail)


def _notes(chunks: _Chunks) -> Iterator[str]:
    if chunks.colour in _ALPHA_TYPES:
        yield "alpha channel dropped"
    elif chunks.has_transparency:
        yield "transparency dropped (tRNS)"
    if chunks.has_iptc_text:
        yield "IPTC data dropped: a png file holds them as text only"


def _decode_wide(data: bytes, page: Page) -> Image:
    with Pillow.open(io.BytesIO(data), formats=("PNG",)) as file:
        if page.dtype == "uint16":
            return np.asarray(file).astype(np.uint16)
        if page.channels == 1:
            return np.asarray(file.convert("L"))
        return np.ascontiguousarray(np.asarray(file.convert("RGB"))[..., ::-1])


def _walk(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, the start and the end of each chunk's content.

    Raises FormatError if a chunk is longer than the file: OpenCV takes 10 s to find that out.
    """
    at, name = _START, b""
    while name != b"IEND":
        if at + 12 > len(data):
            raise FormatError("it is truncated: its last chunk (IEND) is missing")
        length, name = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            raise FormatError(
                f"it is truncated: a chunk of {length:,} bytes begins at {at:,} of {len(data):,}"
            )
        yield name, at + 8, at + 8 + length
        at += 12 + length


def _read_chunks(data: bytes) -> _Chunks:
    chunks = _Chunks()
    for index, (name, start, end) in enumerate(_walk(data)):
        body = memoryview(data)[start:end]
        if index == 0:
            if name != b"IHDR" or len(body) < 13:
                raise FormatError("the header is damaged: it does not begin with IHDR")
            width, height, chunks.depth, chunks.colour = struct.unpack_from(">IIBB", body)
            chunks.size = height, width
        elif name == b"IDAT":
            chunks.has_pixels = True
        elif name == b"tRNS":
            chunks.has_transparency = True
        elif name == b"acTL" and not chunks.has_pixels and len(body) >= 4:
            chunks.frames = int.from_bytes(body[:4], "big")
        elif name == b"fcTL" and not chunks.has_pixels:
            chunks.image_is_frame = True
        elif name == b"pHYs" and len(body) >= 9 and body[8] == 1:
            x, y = struct.unpack_from(">II", body)
            chunks.dpi = (x * _INCH_PER_METRE, y * _INCH_PER_METRE)
        elif name == b"eXIf":
            chunks.exif = bytes(body)
        elif name == b"iTXt" and not chunks.xmp:
            chunks.xmp = png_packet(body)
        elif name in (b"tEXt", b"zTXt") and bytes(body[: len(_IPTC_KEYWORD)]) == _IPTC_KEYWORD:
            chunks.has_iptc_text = True
        elif name == b"iCCP":
            chunks.icc = _read_icc(bytes(body))
    return chunks


def _read_icc(body: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(body[body.index(b"\0") + 2 :], _MAX_ICC)
    except (ValueError, zlib.error):
        return b""


def _without_animation(data: bytes) -> bytes:
    """Return the data as decoders see them that know no animations."""
    kept = bytearray(data[:_START])
    for name, start, end in _walk(data):
        if name not in (b"acTL", b"fcTL", b"fdAT"):
            kept += data[start - 8 : end + 4]
    return bytes(kept)
