"""The main program of a decoder process, which reads image files with native decoders.

The files come from strangers. The process gets a file and memory for its pixels, both as
descriptors, so that neither crosses a socket. A decoder that crashes, hangs or uses too much memory
ends this process only, and the job of its file fails.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from pathlib import Path

import msgspec

from fogmqtt.errors import ImageError
from fogmqtt.images import reader
from fogmqtt.images.cv import one_thread
from fogmqtt.images.spec import Image
from fogmqtt.workers.channel import WorkerChannel
from fogmqtt.workers.decoder_messages import (
    PAGE_STEP,
    Decoded,
    DecodedPage,
    DecodeRefused,
    DecodeReply,
    DecodeRequest,
    HeaderRead,
)
from fogmqtt.workers.memory_limit import data_bytes, limit_data, release_free_memory
from fogmqtt.workers.process import WorkerFailed, connect_to_parent, describe_failure

#: Bytes that a decoder may use beside its file and its pixels.
_HEADROOM_BYTES = 128 << 20
#: A process that keeps more than this number of bytes from earlier files is replaced.
_REPLACE_ABOVE_BYTES = 64 << 20


class DecodeServer:
    """Decodes one file after the other. The memory limit depends on the size of the file."""

    def __init__(self, channel: WorkerChannel) -> None:
        self._channel = channel
        self._replies = msgspec.msgpack.Encoder()
        self._requests = msgspec.msgpack.Decoder(DecodeRequest)
        #: 0 if it is not known; then there is no limit.
        self._idle_bytes = data_bytes()
        #: What the process had when the present file arrived.
        self._base_bytes = self._idle_bytes

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
        # No file runs under a limit that an earlier one has used up.
        self._base_bytes = max(data_bytes(), self._idle_bytes) if self._idle_bytes else 0
        reply: Decoded | DecodeRefused | WorkerFailed
        try:
            reply = self._decode(file, pixels, request)
        except ImageError as problem:
            self._remove_limit()
            reply = DecodeRefused(str(problem), needs_replacement=False)
        except Exception as problem:  # noqa: BLE001  # a decoder may raise anything
            self._remove_limit()
            reply = describe_failure(problem)
        # Nothing of this file is left for the next one.
        if self._keeps_too_much():
            reply = msgspec.structs.replace(reply, needs_replacement=True)
        self._reply(reply)

    def _decode(self, file: int, pixels: int, request: DecodeRequest) -> Decoded:
        self._limit(2 * os.fstat(file).st_size)
        try:
            with open(file, "rb", closefd=False) as opened:
                data = opened.read()
            header = reader.inspect(
                data, request.name, max_pixels=request.max_pixels, pages=request.pages
            )
        except MemoryError:
            self._remove_limit()
            raise ImageError(
                f"{request.name}: its header takes over {self._allowance(2 * len(data))} MB to "
                "read; save it again with another program"
            ) from None
        work_bytes = max(page.work_bytes for _, page in header.pages)
        self._reply(HeaderRead(header.pixels, header.nbytes, work_bytes))
        if self._channel.receive_message() is None:
            sys.exit()  # the parent is gone
        allowed = 3 * len(data) + work_bytes
        self._limit(allowed)
        try:
            return self._decode_pages(data, header, pixels, request.name)
        except MemoryError:
            self._remove_limit()
            height, width = header.pages[0][1].size
            raise ImageError(
                f"{request.name}: {header.format} of {width}x{height} pixels "
                f"takes over {self._allowance(allowed)} MB to decode; "
                "save it again with another program"
            ) from None

    def _decode_pages(self, data: bytes, header: reader.Header, pixels: int, name: str) -> Decoded:
        decoded, offset = [], 0
        for index in range(len(header.pages)):
            loaded = reader.decode(data, header, name, index)
            shape, dtype = loaded.image.shape, loaded.image.dtype.name
            decoded.append(DecodedPage(offset, shape, dtype, loaded.notes, loaded.metadata))
            _write(pixels, loaded.image, offset)
            # Pages begin where any dtype may begin.
            offset += -(-loaded.image.nbytes // PAGE_STEP) * PAGE_STEP
        self._remove_limit()
        return Decoded(header.format, tuple(decoded))

    def _reply(self, reply: DecodeReply) -> None:
        self._channel.send_message(self._replies.encode(reply))

    def _limit(self, size: int) -> None:
        if self._idle_bytes:
            limit_data(self._base_bytes + _HEADROOM_BYTES + size)

    def _remove_limit(self) -> None:
        if self._idle_bytes:
            limit_data(None)

    def _allowance(self, size: int) -> int:
        """Return the limit for a size in MB, for users."""
        return (size + _HEADROOM_BYTES) >> 20

    def _keeps_too_much(self) -> bool:
        """Free what is no longer used, and return whether too much is left of earlier reader."""
        gc.collect()  # a refused image may be part of a cycle of references
        if not self._idle_bytes:
            return False
        if data_bytes() - self._idle_bytes > _REPLACE_ABOVE_BYTES:
            release_free_memory()
        return data_bytes() - self._idle_bytes > _REPLACE_ABOVE_BYTES


def main() -> None:
    """Run the decoder. The arguments come from `ChildProcess`."""
    channel, _ = connect_to_parent()
    one_thread()
    # Native decoders write endless warnings about damaged files to descriptor 2. They go to
    # /dev/null; Python's own stderr stays.
    warnings.simplefilter("ignore")
    logging.disable()  # tifffile logs what is odd about a file
    sys.stderr = os.fdopen(os.dup(2), "w")
    with Path(os.devnull).open("wb") as devnull:
        os.dup2(devnull.fileno(), 2)
    gc.collect()
    gc.freeze()  # the collection after each file passes over all that is loaded now
    DecodeServer(channel).serve()


def _write(descriptor: int, image: Image, offset: int) -> None:
    """Write the pixels to the memory file. Raises OSError if no memory is left."""
    data = image.data.cast("B") if image.flags.c_contiguous else memoryview(image.tobytes())
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset + done)
