"""Reads HEIC files with pillow-heif, an extra: its decoder is large, and under patents."""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np

from fogmqtt.images.formats.exif import without_orientation
from fogmqtt.images.formats.page import FormatError, Page
from fogmqtt.images.formats.xmp import read_packet
from fogmqtt.images.metadata import Metadata
from fogmqtt.images.spec import Image


def pages(data: bytes) -> list[Page]:
    """Return the primary image. Further images of a HEIC file are bursts and previews."""
    file = _open(data)
    width, height = file.size
    notes = []
    if "A" in file.mode:
        notes.append("alpha channel dropped")
    if (bits := int(file.info.get("bit_depth") or 8)) > 8:
        notes.append(f"{bits} bits per channel reduced to 8")
    if len(file) > 1:
        notes.append(f"the primary of {len(file)} images")
    # The container turns the image, and libheif does that; EXIF must not do it again.
    exif = without_orientation(file.info.get("exif") or b"")
    xmp, xmp_notes = read_packet(file.info.get("xmp"))
    notes += xmp_notes
    metadata = Metadata(icc=file.info.get("icc_profile") or b"", exif=exif, xmp=xmp)
    return [Page((height, width), notes=tuple(notes), metadata=metadata)]


def check(_data: bytes, _page: Page) -> list[str]:
    """Do nothing: libheif tells by itself that data are missing."""
    return []


def decode(data: bytes, _page: Page) -> Image:
    """Decode the primary image: BGR."""
    rgb = np.asarray(_open(data).to_pillow().convert("RGB"))
    return np.ascontiguousarray(rgb[..., ::-1])


def _open(data: bytes) -> Any:
    try:
        library = importlib.import_module("pillow_heif")
    except ImportError:
        raise FormatError(
            "HEIC is not read; export it as JPEG, or install the extra: pip install 'fogmqtt[heif]'"
        ) from None
    try:
        return library.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
    except RuntimeError as problem:  # libheif's, about the file
        raise FormatError(f"{problem}; it is damaged or of a rare kind") from None
