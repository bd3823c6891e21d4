"""What a file says about its image beside the pixels: ICC profile, resolution and EXIF data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

#: Which pages of a file to read: the first one, all, or the one with a number from 1 on.
Pages = Literal["first", "all"] | int

#: The prefix of EXIF data in JPEG files. Some programs write it into other formats, too.
EXIF_PREFIX: Final = b"Exif\0\0"
#: Where an ICC profile names the colour space of its pixels.
_COLOUR_SPACE = slice(16, 20)
_SPACES: Final = {1: b"GRAY", 3: b"RGB "}


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata of one image. Empty bytes and None stand for what a file does not have."""

    icc: bytes = b""
    #: EXIF data without the prefix and without an orientation: pixels are turned when read.
    exif: bytes = b""
    #: Pixels per inch in x and y.
    dpi: tuple[float, float] | None = None
    #: An XMP packet whose orientation is 1, and IPTC records.
    xmp: bytes = b""
    iptc: bytes = b""


def fits(icc: bytes, channels: int) -> bool:
    """Return whether an ICC profile describes images with this number of channels."""
    return icc[_COLOUR_SPACE] == _SPACES.get(channels)
