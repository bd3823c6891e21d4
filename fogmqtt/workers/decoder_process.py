"""The process that reads image files: native decoders and the bytes of strangers meet here.

It is given a file and memory for its pixels, both as descriptors, so that neither crosses a socket.
A decoder that crashes, hangs or eats memory costs this process, and the file's job its picture.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import msgspec

from fogmqtt.errors import ImageError
from fogmqtt.images import files
from fogmqtt.images.cv import one_thread
from fogmqtt.images.spec import Image
from fogmqtt.workers.channel import WorkerChannel
from fogmqtt.workers.memory_limit import data_bytes, limit_data
from fogmqtt.workers.process import Broken, begin, broken

#: What a decoder may take beside its file and its pixels.
_ROOM = 128 << 20
#: Bytes of a pixel in all its forms: Pillow's 4, a progressive JPEG's coefficients of 6, and 16-bit
#: BGR read, turned, and as a TIFF's only strip, of 6 each.
_PIXEL_BYTES = 28
#: The message that lets a decoder begin: there is memory for the image.
PROCEED = b"proceed"
#: A process that keeps more than that of what it had is replaced.
_WORN = 64 << 20


class Ask(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The file and the memory for its pixels come with it."""

    name: str
    max_pixels: int


class Opened(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The header is in order. Decoding begins when `PROCEED` comes.

    `pixel_bytes` is the most that a pixel of the decoded image can have.
    """

    pixels: int
    pixel_bytes: int


class Decoded(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The pixels are where they were asked for."""

    shape: tuple[int, ...]
    dtype: str
    notes: tuple[str, ...]
    format: str
    #: It kept too much of what came before: this process should be replaced.
    worn: bool


class DecodeRefused(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The file is nothing that is read, for this reason, which names it."""

    reason: str


Said = Opened | Decoded | DecodeRefused | Broken


class Reader:
    """Reads one file after the other, each with the memory that its size needs."""

    def __init__(self, channel: WorkerChannel) -> None:
        self._channel = channel
        self._says = msgspec.msgpack.Encoder()
        self._asks = msgspec.msgpack.Decoder(Ask)
        self._idle_bytes = data_bytes() if sys.platform == "linux" else 0

    def serve(self) -> None:
        """Until whoever asks is gone."""
        while (heard := self._channel.hear(files=2)) is not None:
            asked, (file, pixels) = heard
            try:
                self._answer(file, pixels, self._asks.decode(asked))
            finally:
                os.close(file)
                os.close(pixels)

    def _answer(self, file: int, pixels: int, ask: Ask) -> None:
        worn = self._grown() > _WORN
        try:
            loaded = self._read(file, ask)
            self._lift()
            _put(pixels, loaded.image)
        except ImageError as problem:
            self._lift()
            self._say(DecodeRefused(str(problem)))
        except Exception as problem:  # noqa: BLE001  # a decoder may raise anything
            self._lift()
            self._say(broken(problem))
        else:  # before the pixels are given back, which takes a while, too
            shape, dtype = loaded.image.shape, loaded.image.dtype.name
            self._say(Decoded(shape, dtype, loaded.notes, loaded.format, worn))

    def _read(self, file: int, ask: Ask) -> files.Loaded:
        self._allow(2 * os.fstat(file).st_size)
        with open(file, "rb", closefd=False) as opened:
            data = opened.read()
        header = files.inspect(data, ask.name, max_pixels=ask.max_pixels)
        self._say(Opened(header.pixels, header.pixel_bytes))
        if self._channel.hear() is None:
            sys.exit()  # whoever asked is gone
        allowed = 2 * len(data) + _PIXEL_BYTES * header.pixels
        self._allow(allowed)
        try:
            return files.decode(data, header, ask.name)
        except MemoryError:
            self._lift()
            raise ImageError(
                f"{ask.name}: {header.format} of {header.size[1]}x{header.size[0]} pixels takes "
                f"over {(allowed + _ROOM) >> 20} MB to decode; save it again with another program"
            ) from None

    def _say(self, said: Said) -> None:
        self._channel.tell(self._says.encode(said))

    def _allow(self, size: int) -> None:
        if self._idle_bytes:
            limit_data(self._idle_bytes + _WORN + _ROOM + size)

    def _lift(self) -> None:
        if self._idle_bytes:
            limit_data(None)

    def _grown(self) -> int:
        return data_bytes() - self._idle_bytes if self._idle_bytes else 0


def main() -> None:
    """Run it; the arguments are what `Process` gives."""
    channel, _ = begin()
    one_thread()
    # What decoders say of strangers' files is endless; what this process says is not.
    warnings.simplefilter("ignore")
    sys.stderr = os.fdopen(os.dup(2), "w")
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    Reader(channel).serve()


def _put(descriptor: int, image: Image) -> None:
    """Raises OSError where there is no memory for it."""
    data = image.data.cast("B") if image.flags.c_contiguous else memoryview(image.tobytes())
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], done)
