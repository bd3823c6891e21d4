"""The channel between a process and its child: data in shared memory, lengths over a socket.

A tile of a megabyte costs one memcpy and one wake-up in each direction. A socket would copy it
through its buffer piece by piece. The two sides take turns, so one piece of memory for each
direction is enough.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
from collections.abc import Sequence

#: The packet of `send`: the length of the data and the length of the header behind the data.
_LENGTHS = struct.Struct("=QQ")
#: The prefix of `send_message`: the length of the message.
_SIZE = struct.Struct("=I")
#: The size of shared memory is a multiple of this number of bytes.
_STEP = 1 << 20


def open_memory() -> int:
    """Create an unnamed file in memory and return its descriptor. Raises OSError."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fogmqtt-tile")
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class SharedMemory:
    """The content of a file of `open_memory`, mapped by two processes. It grows, never shrinks."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None

    def write(self, data: bytes | memoryview, header: bytes) -> None:
        """Write the data and the header behind them. The data start aligned for any dtype.

        Raises OSError if the machine has no memory left.
        """
        middle = memoryview(data).nbytes
        end = middle + len(header)
        if end > os.fstat(self._descriptor).st_size:
            # Memory that is not reserved would end the process that writes to it first.
            reserve(self._descriptor, -(-end // _STEP) * _STEP)
        mapped = self._mapped(end)
        mapped[:middle] = data
        mapped[middle:end] = header

    def read(self, size: int) -> memoryview:
        """Return a read-only view of the first bytes, valid until the other side writes again."""
        return memoryview(self._mapped(size)).toreadonly()[:size]

    def _mapped(self, size: int) -> mmap.mmap:
        if self._map is None or len(self._map) < size:
            # The old mapping lives until its last view is released.
            self._map = mmap.mmap(self._descriptor, os.fstat(self._descriptor).st_size)
        return self._map


class WorkerChannel:
    """One end of a channel. This end writes to `outgoing` and reads from `incoming`."""

    def __init__(
        self, endpoint: socket.socket, *, incoming: SharedMemory, outgoing: SharedMemory
    ) -> None:
        self._socket = endpoint
        self._incoming = incoming
        self._outgoing = outgoing

    def fileno(self) -> int:
        """Return the descriptor for poll: readable if something arrived or the peer is gone."""
        return self._socket.fileno()

    def send(self, header: bytes, data: bytes | memoryview = b"") -> None:
        """Send a header and data. Raises OSError if the peer is gone or no memory is left."""
        self._outgoing.write(data, header)
        self._socket.sendall(_LENGTHS.pack(memoryview(data).nbytes, len(header)))

    def receive(self) -> tuple[bytes, memoryview] | None:
        """Wait for a header and data; None if the peer is gone.

        The data are a view, valid until this end sends and the peer answers.
        """
        try:
            lengths = self._socket.recv(_LENGTHS.size, socket.MSG_WAITALL)
        except ConnectionResetError:
            return None
        if len(lengths) < _LENGTHS.size:
            return None
        middle, length = _LENGTHS.unpack(lengths)
        view = self._incoming.read(middle + length)
        return bytes(view[middle:]), view[:middle]

    def send_message(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a short message, and duplicates of these file descriptors. Either side may send.

        Raises OSError if the peer is gone.
        """
        data = _SIZE.pack(len(message)) + message
        sent = 0
        if descriptors:
            # In one piece: a peer that is stopped here must not leave half a message behind.
            sent = socket.send_fds(self._socket, [data], descriptors)
        self._socket.sendall(data[sent:])

    def receive_message(self, descriptor_count: int = 0) -> tuple[bytes, list[int]] | None:
        """Wait for a short message with its file descriptors; None if the peer is gone.

        The caller closes the descriptors. Raises OSError if this process cannot open them.
        """
        received = self._receive_message(descriptor_count)
        if received is not None and len(received[1]) < descriptor_count:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return received

    def receive_message_and_file(self) -> tuple[bytes, int | None] | None:
        """Wait for a short message, and a descriptor if one came along; None if the peer is gone.

        The caller closes the descriptor.
        """
        received = self._receive_message(1)
        if received is None:
            return None
        message, descriptors = received
        return message, descriptors[0] if descriptors else None

    def _receive_message(self, descriptor_count: int) -> tuple[bytes, list[int]] | None:
        try:
            size, descriptors, _, _ = socket.recv_fds(
                self._socket, _SIZE.size, descriptor_count, socket.MSG_WAITALL
            )
            if len(size) < _SIZE.size:
                return None
            message = self._socket.recv(_SIZE.unpack(size)[0], socket.MSG_WAITALL)
        except ConnectionResetError:
            return None
        return message, descriptors


def reserve(descriptor: int, size: int) -> None:
    """Give a file in memory its size. Raises OSError if the machine has no memory left."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)
