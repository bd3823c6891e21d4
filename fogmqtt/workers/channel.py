"""How the pool and a worker process talk: bytes in shared memory, a socket that says how many.

A tile of a megabyte costs one memcpy each way and two wake-ups, not a walk through a socket's
buffer. One speaks while the other waits, so one piece of memory in each direction is enough.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
import tempfile
from collections.abc import Sequence

#: What a socket carries: lengths of the bytes and of the header behind them.
_LENGTHS = struct.Struct("=QQ")
#: Before what is told.
_SIZE = struct.Struct("=I")
#: Memory grows in such steps.
_STEP = 1 << 20


def open_memory() -> int:
    """A new file without a name; its descriptor."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fogmqtt-tile")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Memory:
    """A file of `open_memory` as memory that two processes see. Grows, never shrinks."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None

    def write(self, data: bytes | memoryview, header: bytes) -> None:
        """Put both, one after the other: data of any dtype begin where a dtype may begin.

        Raises OSError where the machine has no memory left.
        """
        middle = memoryview(data).nbytes
        end = middle + len(header)
        if end > os.fstat(self._descriptor).st_size:
            # Memory that is only promised would kill whoever touches it first.
            _grow(self._descriptor, -(-end // _STEP) * _STEP)
        mapped = self._mapped(end)
        mapped[:middle] = data
        mapped[middle:end] = header

    def read(self, size: int) -> memoryview:
        """A view of the first bytes, read-only, good until the other side writes again."""
        return memoryview(self._mapped(size)).toreadonly()[:size]

    def _mapped(self, size: int) -> mmap.mmap:
        if self._map is None or len(self._map) < size:
            # The old one is unmapped when its last view is gone.
            self._map = mmap.mmap(self._descriptor, os.fstat(self._descriptor).st_size)
        return self._map


class WorkerChannel:
    """One end. `outward` is the memory that this end writes."""

    def __init__(self, end: socket.socket, *, inward: Memory, outward: Memory) -> None:
        self._end = end
        self._inward = inward
        self._outward = outward

    def fileno(self) -> int:
        """For poll: readable where something arrived or the other end is gone."""
        return self._end.fileno()

    def send(self, header: bytes, data: bytes | memoryview = b"") -> None:
        """Raises OSError where the other end is gone, or no memory is left."""
        self._outward.write(data, header)
        self._end.sendall(_LENGTHS.pack(memoryview(data).nbytes, len(header)))

    def tell(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a few bytes, whoever waits for whom, and files that the other end gets, too.

        Raises OSError where it is gone.
        """
        size = _SIZE.pack(len(message))
        if descriptors:
            socket.send_fds(self._end, [size], descriptors)
            size = b""
        self._end.sendall(size + message)

    def hear(self, files: int = 0) -> tuple[bytes, list[int]] | None:
        """Wait for what was told and so many files, ours to close; None: the other end is gone.

        Raises OSError where there is no room for their descriptors.
        """
        try:
            told, descriptors, _, _ = socket.recv_fds(
                self._end, _SIZE.size, files, socket.MSG_WAITALL
            )
            if len(told) < _SIZE.size:
                return None
            message = self._end.recv(_SIZE.unpack(told)[0], socket.MSG_WAITALL)
        except ConnectionResetError:
            return None
        if len(descriptors) < files:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return message, descriptors

    def receive(self) -> tuple[bytes, memoryview] | None:
        """Wait for header and data, None where the other end is gone.

        The data are a view, good until this end sends and the other answers.
        """
        try:
            told = self._end.recv(_LENGTHS.size, socket.MSG_WAITALL)
        except ConnectionResetError:
            return None
        if len(told) < _LENGTHS.size:
            return None
        middle, length = _LENGTHS.unpack(told)
        view = self._inward.read(middle + length)
        return bytes(view[middle:]), view[:middle]


def _grow(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)
