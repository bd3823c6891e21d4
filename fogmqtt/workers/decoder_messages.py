"""The messages between a decoder process and its parent. Imports no decoder."""

from __future__ import annotations

import msgspec

from fogmqtt.workers.process import WorkerFailed

#: The message that lets a decoder begin: there is memory for the image.
PROCEED = b"proceed"


class DecodeRequest(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A request to decode a file. The descriptors of the file and of the memory accompany it."""

    #: The name of the file in error messages.
    name: str
    max_pixels: int


class HeaderRead(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The header is valid. Decoding begins when the parent sends PROCEED.

    `pixel_bytes` is the maximum number of bytes of a decoded pixel.
    """

    pixels: int
    pixel_bytes: int


class Decoded(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The pixels are in the memory of the request."""

    shape: tuple[int, ...]
    dtype: str
    notes: tuple[str, ...]
    format: str
    #: The process kept too much memory of earlier files and should be replaced.
    needs_replacement: bool


class DecodeRefused(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The file cannot be used. The reason names the file."""

    reason: str


DecodeReply = HeaderRead | Decoded | DecodeRefused | WorkerFailed
