"""What is said of a frame to the process that writes videos; nothing here loads FFmpeg."""

from __future__ import annotations

import msgspec


class FrameHeader(msgspec.Struct, frozen=True):
    """A frame whose pixels follow, 8 bits each."""

    path: str
    height: int
    width: int
    channels: int
    #: When it was captured, in milliseconds since 1970.
    time_ms: int

    @property
    def nbytes(self) -> int:
        return self.height * self.width * self.channels
