"""Reads GIF and AVIF files with Pillow, frame by frame."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from PIL import Image as Pillow

from fogmqtt.images.formats import frames
from fogmqtt.images.formats.exif import orientation_of, without_orientation
from fogmqtt.images.formats.page import FormatError, Page
from fogmqtt.images.formats.xmp import read_packet
from fogmqtt.images.metadata import Metadata
from fogmqtt.images.spec import Image

#: The box of an AVIF file with the depth of its pixels, and the bits of that depth.
_CONFIGURATION: Final = b"av1C"
_HIGH_DEPTH, _TWELVE_BITS = 0x40, 0x20


class AnimatedReader:
    """A reader of one of these formats."""

    def __init__(self, form: str) -> None:
        self._form = form

    def pages(self, data: bytes) -> list[Page]:
        """Return all frames."""
        with _libavif_errors(), Pillow.open(io.BytesIO(data), formats=(self._form,)) as file:
            count = getattr(file, "n_frames", 1)
            notes = []
            if "A" in file.getbands() or "transparency" in file.info:
                notes.append("alpha channel dropped")
            if self._form == "AVIF" and (bits := _avif_bits(data)) > 8:
                notes.append(f"{bits} bits per channel reduced to 8")
            # Pillow tells the turn of an AVIF's container there, and does not do it.
            orientation = orientation_of(file.info.get("exif", b""))
            exif = without_orientation(file.info.get("exif", b""))
            xmp, xmp_notes = read_packet(file.info.get("xmp"))
            notes += xmp_notes
            metadata = Metadata(icc=file.info.get("icc_profile") or b"", exif=exif, xmp=xmp)
            size = file.height, file.width
        return [
            Page(
                size,
                orientation=orientation,
                notes=tuple(notes),
                metadata=metadata,
                detail=index,
                stored_bytes=4,
            )
            for index in range(count)
        ]

    def check(self, _data: bytes, _page: Page) -> list[str]:
        """Do nothing: the decoder tells by itself that data are missing."""
        return []

    def decode(self, data: bytes, page: Page) -> Image:
        """Decode one frame: BGR."""
        with _libavif_errors():
            return frames.decode_frame(data, self._form, page.detail)


@contextmanager
def _libavif_errors() -> Iterator[None]:
    """Pillow raises RuntimeError for what libavif refuses, which is no error of a program here."""
    try:
        yield
    except RuntimeError as problem:
        raise FormatError(f"{problem}; it is truncated, damaged or of a rare kind") from None


def _avif_bits(data: bytes) -> int:
    at = data.find(_CONFIGURATION)
    if at < 0 or at + 7 > len(data):
        return 8
    flags = data[at + 6]
    if not flags & _HIGH_DEPTH:
        return 8
    return 12 if flags & _TWELVE_BITS else 10
