"""Decodes image files in child processes, so that a crash of a native decoder ends no gateway.

The file and the memory for its pixels are passed as descriptors. Nothing is copied: the gateway
maps the memory that the process wrote.

Importing this module loads neither numpy nor a decoder, so that a command can start the first
process before its own imports.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec

from fogmqtt.errors import FogError, ImageError
from fogmqtt.workers.channel import open_memory
from fogmqtt.workers.child import ChildProcess
from fogmqtt.workers.decoder_messages import (
    PROCEED,
    Decoded,
    DecodedPage,
    DecodeRefused,
    DecodeReply,
    DecodeRequest,
    HeaderRead,
)
from fogmqtt.workers.exit_status import ExitStatus
from fogmqtt.workers.process import WorkerFailed

if TYPE_CHECKING:
    from fogmqtt.images.files import LoadedImage
    from fogmqtt.images.metadata import Pages

log = logging.getLogger(__name__)

#: Seconds in which a process must open a file, its own start included, and seconds in which it must
#: decode it. The time that the file's size needs is added.
TIMEOUT_S: Final = 30.0
#: Seconds to read a byte, and seconds to decode a pixel, on a slow board.
_BYTE_S, _PIXEL_S = 1e-7, 2e-6

_PROGRAM: Final = "fogmqtt.workers.decoder_process"
_DTYPES = ("uint8", "uint16", "float32")
_ADVICE = "save it again with another program"


#: Takes the bytes of decoded images, and those that decoding needs beside them; may block.
Reserve = Callable[[int, int], None]


class _DecodeJob(msgspec.Struct, frozen=True):
    """One file to decode."""

    #: The descriptors of the file and of the memory for its pixels.
    file: int
    pixels: int
    #: The file's name in messages.
    name: str
    max_pixels: int
    pages: Pages
    reserve: Reserve

    @property
    def file_bytes(self) -> int:
        return os.fstat(self.file).st_size


def _reserve_nothing(image_bytes: int, work_bytes: int) -> None:
    """Accept an image of any size."""


class _DecoderTimeout(Exception):
    """The process did not reply in time. The text is that time."""


class Decoders:
    """Decoder processes: one for each thread that reads at a time, started when it is needed.

    The processes end with `close`, and with this process. A process may take `timeout_s` seconds to
    open a file, and again to decode it, plus the time that the file's size needs. `program` is the
    module whose `main` it runs. Any thread may call the methods.
    """

    def __init__(self, *, timeout_s: float = TIMEOUT_S, program: str = _PROGRAM) -> None:
        self._timeout_s = timeout_s
        self._code = f"from fogmqtt.workers.decoder_start import main; main({program!r})"
        self._reply_decoder: msgspec.msgpack.Decoder[DecodeReply] = msgspec.msgpack.Decoder(
            DecodeReply
        )
        self._lock = threading.Lock()
        # A process ends with the thread that started it, so a thread of our own starts all.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decoders")
        self._closed = False
        self._first: Future[ChildProcess] | None = None
        #: The process that finished last gets the next file: its caches are warm.
        self._idle: list[ChildProcess] = []
        self._busy: set[ChildProcess] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def read(
        self,
        file: int,
        name: str,
        *,
        max_pixels: int,
        pages: Pages = "first",
        reserve: Reserve = _reserve_nothing,
    ) -> tuple[LoadedImage, ...]:
        """Decode pages of the file of this descriptor, each as `images.reader.read` does.

        An image is a uint8, uint16 or float32 array of height x width or height x width x channels,
        in private memory. `reserve` is called before anything is decoded, and may block. Raises
        ImageError like `images.reader.read`, and if the process ended or was too slow.
        """
        try:
            pixels = open_memory()
        except OSError as problem:
            raise ImageError(f"{name}: no memory for its pixels: {problem.strerror}") from None
        try:
            return self._read(_DecodeJob(file, pixels, name, max_pixels, pages, reserve))
        finally:
            os.close(pixels)

    def warm(self) -> None:
        """Start the process for the first file."""
        self._first = self._starter.submit(ChildProcess, self._code)

    def close(self) -> None:
        """End all processes at once. Later calls of `read` raise ImageError."""
        with self._lock:
            self._closed = True
            first, self._first = self._first, None
            idle, self._idle = self._idle, []
            for process in self._busy:
                process.kill()
        if first is not None:
            with suppress(OSError):  # it could not be started
                idle.append(first.result())
        for process in idle:
            process.end()
        self._starter.shutdown()

    def _read(self, job: _DecodeJob) -> tuple[LoadedImage, ...]:
        process = self._acquire(job.name)
        try:
            reply = self._exchange(process, job)
        except _DecoderTimeout as timeout:
            raise self._timed_out(process, job, str(timeout)) from None
        except (EOFError, OSError):
            raise self._crashed(process, job) from None
        except FogError:
            self._end(process)
            raise
        except msgspec.MsgspecError as problem:
            self._end(process)
            raise ImageError(f"{job.name}: its decoder sent an invalid reply: {problem}") from None
        match reply:
            case Decoded():
                self._release(process, replace=reply.needs_replacement)
                return tuple(_map_page(page, reply.format, job) for page in reply.pages)
            case DecodeRefused(reason, needs_replacement):
                self._release(process, replace=needs_replacement)
                raise ImageError(reason)
            case WorkerFailed(reason, traceback):
                self._release(process, replace=True)
                log.error("%s: its decoder: %s\n%s", job.name, reason, traceback)
                raise ImageError(f"{job.name}: its decoder failed: {reason}; {_ADVICE}")
            case HeaderRead():
                self._end(process)
                raise ImageError(f"{job.name}: its decoder read the header twice")

    def _exchange(self, process: ChildProcess, job: _DecodeJob) -> DecodeReply:
        """Send a file to a process and return its last reply.

        Raises _DecoderTimeout, EOFError and OSError if the process ended, msgspec.MsgspecError
        for an invalid reply, and what `reserve` raises.
        """
        request = msgspec.msgpack.encode(DecodeRequest(job.name, job.max_pixels, job.pages))
        process.send_message(request, (job.file, job.pixels))
        reply = self._receive(process, job.file_bytes * _BYTE_S)
        if not isinstance(reply, HeaderRead):
            return reply
        pixels = min(reply.pixels, job.max_pixels)
        job.reserve(reply.image_bytes, reply.work_bytes)
        process.send_message(PROCEED)
        return self._receive(process, pixels * _PIXEL_S)

    def _receive(self, process: ChildProcess, size_s: float) -> DecodeReply:
        """Receive a reply within the time-out plus the time that the size needs."""
        within_s = self._timeout_s + size_s
        if not process.is_readable(within_s):
            raise _DecoderTimeout(f"{within_s:.3g} s")
        message = process.receive_message()
        if message is None:
            raise EOFError
        return self._reply_decoder.decode(message)

    def _acquire(self, name: str) -> ChildProcess:
        """Return an idle process, or a new one."""
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if not process.is_readable():
                    self._busy.add(process)
                    return process
                process.end()  # an idle process is readable only if it has ended
            first, self._first = self._first, None
        try:
            process = (first or self._starter.submit(ChildProcess, self._code)).result()
        except (OSError, RuntimeError) as problem:  # RuntimeError: `close` was called
            raise ImageError(f"{name}: cannot start a process to decode it: {problem}") from None
        with self._lock:
            self._busy.add(process)
            if self._closed:
                process.kill()
        return process

    def _release(self, process: ChildProcess, *, replace: bool) -> None:
        """Keep a process for the next file, or end it if it is to be replaced."""
        with self._lock:
            self._busy.discard(process)
            keep = not replace and not self._closed
            if keep:
                self._idle.append(process)
        if not keep:
            process.end()

    def _timed_out(self, process: ChildProcess, job: _DecodeJob, within: str) -> ImageError:
        traceback = self._end(process, dump_traceback=True).traceback
        log.warning("%s: its decoder hung\n%s", job.name, traceback)
        return ImageError(
            f"{job.name}: its decoder did not return within {within} and was ended; {_ADVICE}"
        )

    def _crashed(self, process: ChildProcess, job: _DecodeJob) -> ImageError:
        status = self._end(process)
        if self._closed:
            return ImageError(f"{job.name}: not decoded, since the gateway is stopping")
        log.warning("%s: its decoder %s\n%s", job.name, status, status.traceback)
        return ImageError(f"{job.name}: its decoder {status}; {_ADVICE}")

    def _end(self, process: ChildProcess, *, dump_traceback: bool = False) -> ExitStatus:
        with self._lock:
            self._busy.discard(process)
        return process.end(dump_traceback=dump_traceback)


def open_bytes(data: bytes | memoryview) -> int:
    """Return the descriptor of a file in memory with these bytes. The caller closes it.

    Raises OSError.
    """
    descriptor = open_memory()
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(descriptor, memoryview(data)[written:], written)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _map_page(page: DecodedPage, form: str, job: _DecodeJob) -> LoadedImage:
    """Map the memory that the process wrote. Raises ImageError if the reply does not fit it."""
    import numpy as np

    from fogmqtt.images.files import LoadedImage
    from fogmqtt.images.spec import Spec

    if page.dtype not in _DTYPES or min(page.shape) < 1 or not 2 <= len(page.shape) <= 3:
        raise ImageError(f"{job.name}: its decoder gave {page.dtype} of {page.shape}")
    size = math.prod(page.shape) * np.dtype(page.dtype).itemsize
    if page.offset < 0 or page.offset + size > os.fstat(job.pixels).st_size:
        raise ImageError(f"{job.name}: its decoder gave less than {size:,} bytes")
    # A mapping begins at a multiple of the system's page.
    start = page.offset - page.offset % mmap.ALLOCATIONGRANULARITY
    memory = mmap.mmap(
        job.pixels, page.offset - start + size, access=mmap.ACCESS_COPY, offset=start
    )
    count = math.prod(page.shape)
    image = np.frombuffer(memory, page.dtype, count, page.offset - start).reshape(page.shape)
    return LoadedImage(image, Spec.of(image), page.notes, form, page.metadata)
