"""The messages between a decoder process and its parent. Imports no decoder."""

from __future__ import annotations

import msgspec

from fogmqtt.images.metadata import Metadata, Pages
from fogmqtt.workers.process import WorkerFailed

#: Pages begin at multiples of this number of bytes.
PAGE_STEP = 64

#: The message that lets a decoder begin: there is memory for the image.
PROCEED = b"proceed"


class DecodeRequest(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A request to decode a file. The descriptors of the file and of the memory accompany it."""

    #: The name of the file in error messages.
    name: str
    max_pixels: int
    #: Which pages to decode: "first", "all", or a number from 1 on.
    pages: Pages = "first"


class HeaderRead(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The header is valid. Decoding begins when the parent sends PROCEED.

    `pixels` and `image_bytes` are those of all pages that will be decoded. `work_bytes` is what the
    process may need beside them.
    """

    pixels: int
    image_bytes: int
    work_bytes: int


class DecodedPage(msgspec.Struct, frozen=True, array_like=True):
    """A page, whose pixels are in the memory of the request at an offset."""

    offset: int
    shape: tuple[int, ...]
    dtype: str
    notes: tuple[str, ...]
    metadata: Metadata


class Decoded(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The pixels are in the memory of the request."""

    format: str
    pages: tuple[DecodedPage, ...]
    #: The process keeps memory of this file and should be replaced.
    needs_replacement: bool = False


class DecodeRefused(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The file cannot be used. The reason names the file."""

    reason: str
    #: The process keeps memory of this file and should be replaced.
    needs_replacement: bool


DecodeReply = HeaderRead | Decoded | DecodeRefused | WorkerFailed
