"""Reads and writes MQTT packets on a non-blocking socket without copying large ones.

It knows the first byte and the length of a packet and nothing of its content. It imports no MQTT
library. Large packets are tiles, results and images; all other packets are small.
"""

from __future__ import annotations

import ctypes
import mmap
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from fogmqtt.errors import FogError

#: The bytes of the buffer that small packets share. One call of the kernel fills it.
_BUFFER_BYTES: Final = 8192
#: A packet with a longer body is large: it gets memory of its own. Any other fits into the buffer
#: with its first byte and the four bytes of its length.
MAX_SMALL_BODY: Final = _BUFFER_BYTES - 5
#: A larger packet gets pages from the kernel, which provides them as bytes arrive: a length that
#: somebody only announces costs no memory. Smaller memory comes from the heap and is used again.
_MAX_HEAP_BYTES: Final = 1 << 20
#: The calls of the kernel for one turn, after which the owner may send and look at its clock.
_READS_PER_TURN: Final = 256
#: The packets and pieces that leave in one call of the kernel, at most. Linux takes 1024 pieces.
_PACKETS_PER_CALL: Final = 16
_PIECES_PER_CALL: Final = 512

#: Makes a bytearray of a size without filling it with zeros, which would take a third of the time
#: of receiving its bytes. Nobody gets it before all of them are there.
_unfilled: Final[Callable[[None, int], bytearray]] = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_char_p, ctypes.c_ssize_t
)(("PyByteArray_FromStringAndSize", ctypes.pythonapi))

#: What a non-blocking socket raises if it has no bytes or no room at this moment.
_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class StreamBroken(FogError):
    """The connection ended, or what arrived is no MQTT packet."""


class InvalidPacket(StreamBroken):
    """What arrived is no MQTT packet."""


class Stream(Protocol):
    """A non-blocking connection: a socket, or what encrypts or frames the bytes of one.

    Both methods raise BlockingIOError or an SSLWant error if they can do nothing at this moment.
    After such an error, `send` is called with the same bytes again.
    """

    def recv_into(self, buffer: memoryview, /) -> int:
        """Write the next bytes into the buffer and return their number; 0 at the end."""

    def send(self, data: memoryview, /) -> int:
        """Take some of the bytes, and return their number."""


class Packet(NamedTuple):
    """A packet that arrived: its first byte, and what follows its length.

    The body of a large packet is a read-only view.
    """

    first_byte: int
    body: bytes | memoryview


class PacketReader:
    """Takes the packets from the bytes of one connection."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        #: The bytes in the buffer that belong to no packet yet: from `_start` to `_end`.
        self._start = self._end = 0
        self._large: _LargePacket | None = None

    def read(self, stream: Stream) -> Iterator[Packet]:
        """Yield the packets that have arrived.

        Ends if the stream has no more bytes, or after some megabytes. No complete packet is left
        in the buffer then. Raises StreamBroken.
        """
        for _ in range(_READS_PER_TURN):
            count = _receive(stream, self._free())
            if count is None:
                return
            if self._large is None:
                self._end += count
            else:
                self._large.filled += count
            yield from self._complete_packets()

    def _free(self) -> memoryview:
        """Return the memory for the next bytes."""
        if self._large is not None:
            return self._large.free()
        if self._start:
            rest = bytes(self._buffer[self._start : self._end])
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        return self._buffer[self._end :]

    def _complete_packets(self) -> Iterator[Packet]:
        while (packet := self._next_packet()) is not None:
            yield packet

    def _next_packet(self) -> Packet | None:
        """Return the next complete packet, or None."""
        if self._large is None and (small := self._begin_packet()) is not None:
            return small
        if self._large is None or not self._large.is_complete:
            return None
        packet, self._large = self._large.packet(), None
        return packet

    def _begin_packet(self) -> Packet | None:
        """Return the small packet that the buffer holds, or begin the large one, or do nothing."""
        header = self._header()
        if header is None:
            return None
        first_byte, body_start, length = header
        body = self._buffer[body_start : min(body_start + length, self._end)]
        if length > MAX_SMALL_BODY:
            self._large = _LargePacket(first_byte, length, body)
        elif len(body) < length:
            return None
        self._start = body_start + len(body)
        return None if self._large is not None else Packet(first_byte, bytes(body))

    def _header(self) -> tuple[int, int, int] | None:
        """Return the first byte, the start of the body and its length; None if bytes are missing.

        Raises InvalidPacket for a length of more than four bytes.
        """
        length = shift = 0
        for position in range(self._start + 1, min(self._start + 5, self._end)):
            byte = self._buffer[position]
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                return self._buffer[self._start], position + 1, length
            shift += 7
        if self._end - self._start >= 5:
            raise InvalidPacket("the length of a packet has more than four bytes")
        return None


class _LargePacket:
    """A large packet of which some bytes have arrived."""

    def __init__(self, first_byte: int, length: int, begin: memoryview) -> None:
        self._first_byte = first_byte
        self._memory = memoryview(_allocate(length))
        self._memory[: len(begin)] = begin
        self.filled = len(begin)

    @property
    def is_complete(self) -> bool:
        return self.filled == len(self._memory)

    def free(self) -> memoryview:
        return self._memory[self.filled :]

    def packet(self) -> Packet:
        return Packet(self._first_byte, self._memory.toreadonly())


def _allocate(size: int) -> bytearray | mmap.mmap:
    if size <= _MAX_HEAP_BYTES:
        return _unfilled(None, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _receive(stream: Stream, free: memoryview) -> int | None:
    """Return the number of bytes that were received; None if there are none now."""
    try:
        count = stream.recv_into(free)
    except _WOULD_BLOCK:
        return None
    except OSError as problem:
        raise StreamBroken(f"the connection broke: {problem}") from None
    if not count:
        raise StreamBroken("the broker closed the connection")
    return count


class OutgoingPacket:
    """A packet to send, in pieces that are not joined."""

    def __init__(self, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
        #: What is left to send; no view is empty.
        self.pieces = deque(memoryview(piece) for piece in pieces if len(piece))


_P = TypeVar("_P", bound=OutgoingPacket)


class PacketWriter(Generic[_P]):
    """The packets to send on one connection. Any thread may call `put`, one thread `write`."""

    def __init__(self) -> None:
        # Guards changes of the queue, so that `put` knows whether `write` will see the packet.
        self._lock = threading.Lock()
        self._packets: deque[_P] = deque()

    def __bool__(self) -> bool:
        return bool(self._packets)

    def put(self, packet: _P) -> bool:
        """Add a packet. Returns whether the queue was empty, so that somebody must call `write`."""
        with self._lock:
            was_empty = not self._packets
            self._packets.append(packet)
        return was_empty

    def write(self, stream: Stream) -> Iterator[_P]:
        """Send packets, and yield each when its last byte is sent.

        Ends if the queue is empty or the stream takes no more bytes. Raises StreamBroken.
        """
        while self._packets:
            count = self._send(stream)
            if count is None:
                return
            yield from self._sent(count)

    def _send(self, stream: Stream) -> int | None:
        """Send some bytes and return their number; None if the stream takes none now."""
        try:
            if isinstance(stream, socket.socket) and not isinstance(stream, ssl.SSLSocket):
                return stream.sendmsg(self._next_pieces())
            return stream.send(self._packets[0].pieces[0])
        except _WOULD_BLOCK:
            return None
        except OSError as problem:
            raise StreamBroken(f"the connection broke: {problem}") from None

    def _next_pieces(self) -> list[memoryview]:
        # Other threads append meanwhile, so the queue cannot be iterated.
        count = min(len(self._packets), _PACKETS_PER_CALL)
        pieces = (piece for index in range(count) for piece in self._packets[index].pieces)
        return list(islice(pieces, _PIECES_PER_CALL))

    def _sent(self, count: int) -> Iterator[_P]:
        """Remove this number of bytes, and yield the packets that end with them."""
        while count:
            packet = self._packets[0]
            count = _advance(packet.pieces, count)
            if packet.pieces:
                return
            with self._lock:
                self._packets.popleft()
            yield packet


def _advance(pieces: deque[memoryview], count: int) -> int:
    """Remove bytes from the pieces. Returns how many of them are left to remove."""
    while pieces and count >= len(pieces[0]):
        count -= len(pieces.popleft())
    if pieces and count:
        pieces[0] = pieces[0][count:]
        return 0
    return count
