"""The main program of a decoder process, which reads image files with native decoders.

The files come from strangers. The process gets a file and memory for its pixels, both as
descriptors, so that neither crosses a socket. A decoder that crashes, hangs or uses too much memory
ends this process only, and the job of its file fails.
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
from fogmqtt.workers.decoder_messages import (
    Decoded,
    DecodeRefused,
    DecodeReply,
    DecodeRequest,
    HeaderRead,
)
from fogmqtt.workers.memory_limit import data_bytes, limit_data
from fogmqtt.workers.process import connect_to_parent, describe_failure

#: Bytes that a decoder may use beside its file and its pixels.
_HEADROOM_BYTES = 128 << 20
#: Bytes of a pixel in all its forms: Pillow's 4, the coefficients of a progressive JPEG with 6, and
#: 16-bit BGR as it is read, as it is turned, and as the only strip of a TIFF, with 6 each.
_PIXEL_BYTES = 28
#: A process that keeps more than this number of bytes from earlier files is replaced.
_REPLACE_ABOVE_BYTES = 64 << 20


class DecodeServer:
    """Decodes one file after the other. The memory limit depends on the size of the file."""

    def __init__(self, channel: WorkerChannel) -> None:
        self._channel = channel
        self._replies = msgspec.msgpack.Encoder()
        self._requests = msgspec.msgpack.Decoder(DecodeRequest)
        self._idle_bytes = data_bytes() if sys.platform == "linux" else 0

    def serve(self) -> None:
        """Answer requests until the parent is gone."""
        while (received := self._channel.receive_message(descriptor_count=2)) is not None:
            request, (file, pixels) = received
            try:
                self._answer(file, pixels, self._requests.decode(request))
            finally:
                os.close(file)
                os.close(pixels)

    def _answer(self, file: int, pixels: int, request: DecodeRequest) -> None:
        needs_replacement = self._kept_bytes() > _REPLACE_ABOVE_BYTES
        try:
            loaded = self._decode(file, request)
            self._remove_limit()
            _write(pixels, loaded.image)
        except ImageError as problem:
            self._remove_limit()
            self._reply(DecodeRefused(str(problem)))
        except Exception as problem:  # noqa: BLE001  # a decoder may raise anything
            self._remove_limit()
            self._reply(describe_failure(problem))
        else:  # the reply does not wait until the memory of the image is released
            shape, dtype = loaded.image.shape, loaded.image.dtype.name
            self._reply(Decoded(shape, dtype, loaded.notes, loaded.format, needs_replacement))

    def _decode(self, file: int, request: DecodeRequest) -> files.LoadedImage:
        self._limit(2 * os.fstat(file).st_size)
        with open(file, "rb", closefd=False) as opened:
            data = opened.read()
        header = files.inspect(data, request.name, max_pixels=request.max_pixels)
        self._reply(HeaderRead(header.pixels, header.pixel_bytes))
        if self._channel.receive_message() is None:
            sys.exit()  # the parent is gone
        allowed = 2 * len(data) + _PIXEL_BYTES * header.pixels
        self._limit(allowed)
        try:
            return files.decode(data, header, request.name)
        except MemoryError:
            self._remove_limit()
            raise ImageError(
                f"{request.name}: {header.format} of {header.size[1]}x{header.size[0]} pixels "
                f"takes over {(allowed + _HEADROOM_BYTES) >> 20} MB to decode; "
                "save it again with another program"
            ) from None

    def _reply(self, reply: DecodeReply) -> None:
        self._channel.send_message(self._replies.encode(reply))

    def _limit(self, size: int) -> None:
        if self._idle_bytes:
            limit_data(self._idle_bytes + _REPLACE_ABOVE_BYTES + _HEADROOM_BYTES + size)

    def _remove_limit(self) -> None:
        if self._idle_bytes:
            limit_data(None)

    def _kept_bytes(self) -> int:
        return data_bytes() - self._idle_bytes if self._idle_bytes else 0


def main() -> None:
    """Run the decoder. The arguments come from `ChildProcess`."""
    channel, _ = connect_to_parent()
    one_thread()
    files.load_pillow()  # before the memory of a file is limited
    # Native decoders write endless warnings about damaged files to descriptor 2. They go to
    # /dev/null; Python's own stderr stays.
    warnings.simplefilter("ignore")
    sys.stderr = os.fdopen(os.dup(2), "w")
    with Path(os.devnull).open("wb") as devnull:
        os.dup2(devnull.fileno(), 2)
    DecodeServer(channel).serve()


def _write(descriptor: int, image: Image) -> None:
    """Write the pixels to the memory file. Raises OSError if no memory is left."""
    data = image.data.cast("B") if image.flags.c_contiguous else memoryview(image.tobytes())
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], done)
