"""Image files decoded in processes of their own, so that the gateway outlives native decoders.

A file goes there and its pixels come back as descriptors: nothing is copied on the way, and the
gateway maps the memory that the process wrote.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import msgspec
import numpy as np

from fogmqtt.errors import FogError, ImageError
from fogmqtt.images.files import MAX_PIXELS, LoadedImage
from fogmqtt.images.spec import Spec
from fogmqtt.workers.channel import open_memory
from fogmqtt.workers.child import ChildProcess
from fogmqtt.workers.decoder_process import (
    PROCEED,
    Decoded,
    DecodeRefused,
    DecodeReply,
    DecodeRequest,
    HeaderRead,
)
from fogmqtt.workers.process import WorkerFailed

log = logging.getLogger(__name__)

#: Seconds that a process may take to open a file, its own start included, and to decode it,
#: beside what its size takes.
PATIENCE_S: Final = 30.0
#: Seconds of a byte that is read and of a pixel that is decoded, on a slow board.
_BYTE_S, _PIXEL_S = 1e-7, 2e-6

_PROGRAM: Final = "fogmqtt.workers.decoder_process"
_DTYPES = ("uint8", "uint16")
_WAY_OUT = "save it again with another program"


@dataclass(frozen=True, slots=True)
class _Order:
    """A file to be read, the memory for its pixels, and the file's name in messages."""

    file: int
    pixels: int
    name: str
    max_pixels: int
    #: Called with the bytes of the decoded image before they are there; may wait.
    reserve: Callable[[int], None]

    @property
    def size(self) -> int:
        return os.fstat(self.file).st_size


def _reserve_nothing(image_bytes: int) -> None:
    """Let every image in, whatever its size."""


class _Late(Exception):
    """The process did not answer within so many seconds."""


class Decoders:
    """As many processes as threads read at once; the first starts with the first file.

    Processes end with `close`, and with this process. `program` is the module
    whose `main` it runs. For any thread.
    """

    def __init__(self, *, patience_s: float = PATIENCE_S, program: str = _PROGRAM) -> None:
        self._patience_s = patience_s
        self._code = f"from {program} import main; main()"
        self._said: msgspec.msgpack.Decoder[DecodeReply] = msgspec.msgpack.Decoder(DecodeReply)
        self._lock = threading.Lock()
        # A process ends with the thread that started it, and callers' threads come and go.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decoders")
        self._closed = False
        #: The last to finish is the first to be given a file: it is warm.
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
        max_pixels: int = MAX_PIXELS,
        reserve: Callable[[int], None] = _reserve_nothing,
    ) -> LoadedImage:
        """The image in the file of this descriptor, as `images.files.read` reads it.

        Its memory is shared with no process any more; what is written to it stays here. Raises
        ImageError like `images.files.read`, and for a file that ended its process, or did not
        come out of it in time.
        """
        try:
            pixels = open_memory()
        except OSError as problem:
            raise ImageError(f"{name}: no memory for its pixels: {problem.strerror}") from None
        try:
            return self._read(_Order(file, pixels, name, max_pixels, reserve))
        finally:
            os.close(pixels)

    def close(self) -> None:
        """End the processes, whatever they do; nothing is read any more."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for process in self._busy:
                process.kill()
        for process in idle:
            process.end()
        self._starter.shutdown()

    def _read(self, order: _Order) -> LoadedImage:
        process = self._take(order.name)
        try:
            said = self._converse(process, order)
        except _Late as late:
            raise self._given_up(process, order, str(late)) from None
        except (EOFError, OSError):
            raise self._died(process, order) from None
        except FogError:
            self._end(process)
            raise
        except msgspec.MsgspecError as problem:
            self._end(process)
            raise ImageError(f"{order.name}: its decoder talks nonsense: {problem}") from None
        match said:
            case Decoded():
                self._give_back(process, worn=said.needs_replacement)
                return _loaded(said, order)
            case DecodeRefused(reason):
                self._give_back(process, worn=False)
                raise ImageError(reason)
            case WorkerFailed(reason, traceback):
                self._give_back(process, worn=True)
                log.error("%s: its decoder: %s\n%s", order.name, reason, traceback)
                raise ImageError(f"{order.name}: its decoder failed: {reason}; {_WAY_OUT}")
            case HeaderRead():
                self._end(process)
                raise ImageError(f"{order.name}: its decoder opened it twice")

    def _converse(self, process: ChildProcess, order: _Order) -> DecodeReply:
        """Raises _Late, and EOFError, OSError and others where the process is not what it was."""
        asked = msgspec.msgpack.encode(DecodeRequest(order.name, order.max_pixels))
        process.send_message(asked, (order.file, order.pixels))
        said = self._hear(process, order.size * _BYTE_S)
        if not isinstance(said, HeaderRead):
            return said
        pixels = min(said.pixels, order.max_pixels)
        order.reserve(pixels * said.pixel_bytes)
        process.send_message(PROCEED)
        return self._hear(process, pixels * _PIXEL_S)

    def _hear(self, process: ChildProcess, more_s: float) -> DecodeReply:
        within_s = self._patience_s + more_s
        if not process.is_readable(within_s):
            raise _Late(f"{within_s:.3g} s")
        heard = process.receive_message()
        if heard is None:
            raise EOFError
        return self._said.decode(heard)

    def _take(self, name: str) -> ChildProcess:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if not process.is_readable():
                    self._busy.add(process)
                    return process
                process.end()  # somebody ended it while it had nothing to say
        try:
            process = self._starter.submit(ChildProcess, self._code).result()
        except (OSError, RuntimeError) as problem:  # RuntimeError: `close` was called
            raise ImageError(f"{name}: no process to decode it in: {problem}") from None
        with self._lock:
            self._busy.add(process)
            if self._closed:
                process.kill()
        return process

    def _give_back(self, process: ChildProcess, *, worn: bool) -> None:
        with self._lock:
            self._busy.discard(process)
            keep = not worn and not self._closed
            if keep:
                self._idle.append(process)
        if not keep:
            process.end()

    def _given_up(self, process: ChildProcess, order: _Order, late: str) -> ImageError:
        traceback = self._end(process, asking_why=True)[1]
        log.warning("%s: its decoder hung\n%s", order.name, traceback)
        return ImageError(
            f"{order.name}: its decoder did not return within {late} and was ended; {_WAY_OUT}"
        )

    def _died(self, process: ChildProcess, order: _Order) -> ImageError:
        how, traceback = self._end(process)
        if self._closed:
            return ImageError(f"{order.name}: not decoded, since the gateway is stopping")
        log.warning("%s: its decoder %s\n%s", order.name, how, traceback)
        return ImageError(f"{order.name}: its decoder {how}; {_WAY_OUT}")

    def _end(self, process: ChildProcess, *, asking_why: bool = False) -> tuple[str, str]:
        with self._lock:
            self._busy.discard(process)
        ending = process.end(dump_traceback=asking_why)
        return str(ending), ending.traceback


def in_memory(data: bytes) -> int:
    """A file with these bytes, for `Decoders.read`; the caller closes it. Raises OSError."""
    descriptor = open_memory()
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(descriptor, memoryview(data)[done:], done)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _loaded(said: Decoded, order: _Order) -> LoadedImage:
    """Raises ImageError where the memory does not hold what was said."""
    if said.dtype not in _DTYPES or min(said.shape) < 1 or not 2 <= len(said.shape) <= 3:
        raise ImageError(f"{order.name}: its decoder gave {said.dtype} of {said.shape}")
    size = math.prod(said.shape) * np.dtype(said.dtype).itemsize
    if size > os.fstat(order.pixels).st_size:
        raise ImageError(f"{order.name}: its decoder gave less than {size:,} bytes")
    memory = mmap.mmap(order.pixels, size, access=mmap.ACCESS_COPY)
    image = np.frombuffer(memory, said.dtype).reshape(said.shape)
    return LoadedImage(image, Spec.of(image), said.notes, said.format)
