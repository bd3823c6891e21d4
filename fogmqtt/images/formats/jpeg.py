"""Reads JPEG files with OpenCV, after `jpeg_check` has found all pixels there."""

from __future__ import annotations

from typing import Final

import numpy as np

from fogmqtt.images.cv import cv2
from fogmqtt.images.formats import jpeg_check
from fogmqtt.images.formats.exif import orientation_of, without_orientation
from fogmqtt.images.formats.page import FormatError, Page
from fogmqtt.images.formats.xmp import read_packet
from fogmqtt.images.metadata import Metadata
from fogmqtt.images.spec import Image

_COMPONENTS: Final = {1: 1, 3: 3, 4: 3}


def pages(data: bytes) -> list[Page]:
    """Return the one image of the file. Previews and depth maps behind it are no pages."""
    stream = jpeg_check.parse(data)
    if stream.components not in _COMPONENTS:
        raise FormatError(f"it has {stream.components} channels; save it as gray, RGB or CMYK")
    notes = []
    if stream.components == 4:
        notes.append("CMYK converted to BGR")
    if stream.is_mpo:
        notes.append("the further images of this multi-picture file left out")
    xmp, xmp_notes = read_packet(stream.xmp, is_whole=not stream.has_more_xmp)
    notes += xmp_notes
    metadata = Metadata(
        icc=stream.icc,
        exif=without_orientation(stream.exif),
        dpi=stream.dpi,
        xmp=xmp,
        iptc=stream.iptc,
    )
    return [
        Page(
            size=stream.size,
            channels=_COMPONENTS[stream.components],
            orientation=orientation_of(stream.exif),
            notes=tuple(notes),
            metadata=metadata,
            detail=stream,
        )
    ]


def check(data: bytes, page: Page) -> list[str]:
    """Check that all pixels are there, by a decoding at an eighth of the size."""
    return jpeg_check.check_stream(data, page.detail)


def decode(data: bytes, page: Page) -> Image:
    """Decode the image: gray, or BGR, and not turned yet."""
    stream: jpeg_check.JpegStream = page.detail
    kind = cv2.IMREAD_GRAYSCALE if page.channels == 1 else cv2.IMREAD_COLOR_BGR
    buffer = np.frombuffer(jpeg_check.with_end(data, stream), np.uint8)
    image = cv2.imdecode(buffer, kind | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise FormatError("libjpeg cannot decode it; it is damaged")
    return image
