"""Reads JPEG 2000 files: 8 bits with Pillow, 16 bits with OpenCV."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image as Pillow

from fogmqtt.images.cv import cv2
from fogmqtt.images.formats.exif import without_orientation
from fogmqtt.images.formats.page import FormatError, Page
from fogmqtt.images.formats.xmp import read_packet
from fogmqtt.images.metadata import Metadata
from fogmqtt.images.spec import Image

#: The markers at the begin of a code stream: its start, and the sizes.
_START: Final = b"\xff\x4f\xff\x51"
#: The numbers of boxes with metadata.
_XMP: Final = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_IPTC: Final = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
_EXIF: Final = b"JpgTiffExif->JP2"
_FIELDS: Final = struct.Struct(">HHIIIIIIIIH")


@dataclass(frozen=True, slots=True)
class _Detail:
    components: int
    bits: int


def pages(data: bytes) -> list[Page]:
    """Return the one image of the file."""
    at = data.find(_START)
    if at < 0 or len(data) < at + 4 + _FIELDS.size + 3:
        raise FormatError("it has no code stream; it is truncated or damaged")
    _, _, right, bottom, left, top, *_, count = _FIELDS.unpack_from(data, at + 4)
    size = bottom - top, right - left
    kinds = data[at + 4 + _FIELDS.size :][: 3 * count]
    bits = _bits(kinds, count)
    with Pillow.open(io.BytesIO(data), formats=("JPEG2000",)) as file:
        bands, info = file.getbands(), file.info
        container_size = file.height, file.width
    if container_size != size:
        raise FormatError("its container and its code stream announce different sizes")
    if file.mode == "YCbCr":
        raise FormatError("its colours are YCC; save it as RGB")
    boxes = _uuid_boxes(data)
    xmp, notes = read_packet(boxes.get(_XMP))
    if "A" in bands:
        notes = ("alpha channel dropped", *notes)
    metadata = Metadata(
        info.get("icc_profile") or b"",
        without_orientation(boxes.get(_EXIF, b"")),
        info.get("dpi"),
        xmp,
        boxes.get(_IPTC, b""),
    )
    return [
        Page(
            size=size,
            channels=1 if count <= 2 else 3,
            dtype="uint8" if bits == 8 else "uint16",
            notes=notes,
            metadata=metadata,
            stored_bytes=4 * count,  # OpenJPEG computes with 32 bits
            detail=_Detail(count, bits),
        )
    ]


def _uuid_boxes(data: bytes) -> dict[bytes, bytes]:
    """Return the contents of the boxes that have a number of their own; none in a code stream.

    Of several boxes with one number, the first counts. Boxes that are not whole are left out.
    """
    found: dict[bytes, bytes] = {}
    at = 0
    while at + 8 <= len(data):
        size, begin = int.from_bytes(data[at : at + 4], "big"), at + 8
        if size == 1:  # its length is a number of 64 bits
            size, begin = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        if size < begin - at or at + size > len(data):
            break  # the last box, which ends with the file, or a damaged one
        if data[at + 4 : at + 8] == b"uuid":
            number = data[begin : begin + 16]
            found.setdefault(number, data[begin + 16 : at + size])
        at += size
    return found


def check(data: bytes, _page: Page) -> list[str]:
    """Check that the end marker is there: OpenJPEG gives what it has of a cut file."""
    if b"\xff\xd9" not in data[-64:] and b"\xff\xd9" not in data:
        raise FormatError("it is truncated: its end marker is missing")
    return []


def decode(data: bytes, page: Page) -> Image:
    """Decode the image: gray or BGR."""
    detail: _Detail = page.detail
    if detail.bits == 16:
        kind = cv2.IMREAD_GRAYSCALE if page.channels == 1 else cv2.IMREAD_COLOR_BGR
        image = cv2.imdecode(np.frombuffer(data, np.uint8), kind | cv2.IMREAD_ANYDEPTH)
        if image is None:
            raise FormatError("OpenJPEG cannot decode it; it is damaged, or of a rare kind")
        return image
    with Pillow.open(io.BytesIO(data), formats=("JPEG2000",)) as file:
        file.load()
        if page.channels == 1:
            return np.asarray(file.getchannel(0))
        return np.ascontiguousarray(np.asarray(file)[..., 2::-1])


def _bits(kinds: bytes, count: int) -> int:
    """Return the depth of all components. Raises FormatError for one that is not read."""
    if not 1 <= count <= 4:
        raise FormatError(f"it has {count} channels; save it as gray or RGB")
    depths = {kinds[3 * index] for index in range(count)}
    steps = {kinds[3 * index + 1 : 3 * index + 3] for index in range(count)}
    depth = depths.pop()
    if depths or depth & 0x80 or depth + 1 not in (8, 16):
        raise FormatError(
            f"it holds {'signed ' if depth & 0x80 else ''}{(depth & 0x7F) + 1}-bit values"
            f"{' and others' if depths else ''}; save it with 8 or 16 bits per channel"
        )
    if steps != {b"\1\1"}:
        raise FormatError("its colours have fewer pixels than its brightness; save it as RGB")
    return int(depth + 1)
