"""What the readers of all formats share: a page of a file before and after it is decoded."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fogmqtt.errors import ImageError
from fogmqtt.images.metadata import Metadata
from fogmqtt.images.spec import Image


class FormatError(ImageError):
    """A file that cannot be read. The text names the reason and the way out, but not the file."""


@dataclass(frozen=True, slots=True)
class Page:
    """One image of a file, as its header announces it."""

    #: Height and width as they are stored, before the image is turned.
    size: tuple[int, int]
    #: 1 for gray, 3 for colour.
    channels: int = 3
    #: uint8, uint16 or float32.
    dtype: str = "uint8"
    #: The EXIF orientation, 1 to 8.
    orientation: int = 1
    #: Sentences for the user about what is dropped or converted.
    notes: tuple[str, ...] = ()
    metadata: Metadata = field(default_factory=Metadata)
    #: The bytes of a pixel as it is stored, if they are more than those of the decoded one.
    stored_bytes: int = 0
    #: What the reader itself needs to find and decode this page.
    detail: Any = None

    @property
    def pixels(self) -> int:
        """The number of pixels."""
        return self.size[0] * self.size[1]

    @property
    def nbytes(self) -> int:
        """The bytes of the decoded page."""
        return math.prod((self.pixels, self.channels, np.dtype(self.dtype).itemsize))

    @property
    def work_bytes(self) -> int:
        """The most bytes that decoding needs at a time.

        These are the image as it is stored, without compression, in up to four forms, and the
        decoded image, upright and not. A progressive JPEG has coefficients of 6 bytes per pixel.
        """
        decoded = self.nbytes // max(self.pixels, 1)
        return self.pixels * max(16, 4 * max(self.stored_bytes, decoded) + 2 * decoded)


class Reader(Protocol):
    """A module that reads one format.

    All functions may raise FormatError, and whatever a library raises for a damaged file.
    """

    def pages(self, data: bytes, /) -> list[Page]:
        """Return the pages of a file, in their order, without decoding their pixels."""

    def check(self, data: bytes, page: Page, /) -> list[str]:
        """Check what the decoder would not tell, beside it; returns further notes for the user."""

    def decode(self, data: bytes, page: Page, /) -> Image:
        """Decode a page: gray, or BGR, and not turned yet."""
