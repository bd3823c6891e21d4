"""Reads WebP files with OpenCV, and animated ones with Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as Pillow

from fogmqtt.images.cv import cv2
from fogmqtt.images.formats import frames
from fogmqtt.images.formats.exif import orientation_of, without_orientation
from fogmqtt.images.formats.page import FormatError, Page
from fogmqtt.images.formats.xmp import read_packet
from fogmqtt.images.metadata import Metadata
from fogmqtt.images.spec import Image


def pages(data: bytes) -> list[Page]:
    """Return the image, or all frames of an animation."""
    length = 8 + int.from_bytes(data[4:8], "little")
    if length > len(data):
        raise FormatError(f"it is truncated: it has {len(data):,} of {length:,} bytes")
    with Pillow.open(io.BytesIO(data), formats=("WEBP",)) as file:
        count = getattr(file, "n_frames", 1)
        exif, icc = file.info.get("exif", b""), file.info.get("icc_profile") or b""
        xmp, xmp_notes = read_packet(file.info.get("xmp"))
        page = Page(
            size=(file.height, file.width),
            notes=(*(("alpha channel dropped",) if "A" in file.mode else ()), *xmp_notes),
            orientation=orientation_of(exif),
            metadata=Metadata(icc=icc, exif=without_orientation(exif), xmp=xmp),
        )
    return [
        Page(
            page.size,
            notes=page.notes,
            orientation=page.orientation,
            metadata=page.metadata,
            detail=(index, count),
        )
        for index in range(count)
    ]


def check(_data: bytes, _page: Page) -> list[str]:
    """Do nothing: libwebp tells by itself that data are missing."""
    return []


def decode(data: bytes, page: Page) -> Image:
    """Decode one page: BGR, and not turned yet."""
    index, count = page.detail
    if count > 1:
        return frames.decode_frame(data, "WEBP", index)
    kind = cv2.IMREAD_COLOR_BGR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), kind)
    if image is None:
        raise FormatError("libwebp cannot decode it; it is damaged")
    return image
