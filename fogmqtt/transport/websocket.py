"""A WebSocket (RFC 6455) that carries MQTT, used like a non-blocking socket.

paho's own masks and unmasks each byte in Python, and copies what is left of a frame at each call
of `send`. This one also says why a handshake failed.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import struct
from typing import Final

from fogmqtt.transport.link import Address

_KEY_SUFFIX: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: The payload of a frame that we send, at most: as much as is masked at a time.
_FRAME_BYTES: Final = 65_536
#: A longer HTTP answer is none of a WebSocket server.
_MAX_ANSWER_BYTES: Final = 16_384
_BUFFER_BYTES: Final = 8192

_CONTINUATION, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x2, 0x8, 0x9, 0xA
_FIN, _MASKED = 0x80, 0x80
#: The payload length 126 or 127 says that 2 or 8 bytes with the length follow.
_LONG_LENGTHS: Final = {126: struct.Struct("!H"), 127: struct.Struct("!Q")}
_MAX_CONTROL_BYTES: Final = 125


class HandshakeRefused(ConnectionError):
    """The server did not open a WebSocket. `status` is its HTTP status; 0 if it sent none."""

    def __init__(self, status: int, answer: str) -> None:
        super().__init__(answer)
        self.status = status
        self.answer = answer


class WebSocket:
    """A client's WebSocket over a connected TCP or TLS socket, which it owns.

    The handshake blocks for the socket's timeout at most. Raises HandshakeRefused and OSError.
    """

    def __init__(self, sock: socket.socket, address: Address) -> None:
        self._socket = sock
        #: What arrived and was not taken: from `_start` to `_end`.
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._start = self._end = 0
        #: The bytes of the current data frame that were not taken.
        self._frame_left = 0
        self._may_have_more = False
        #: The rest of the frame that is being sent, and the bytes of data that it carries.
        self._frame = memoryview(b"")
        self._frame_carries = 0
        #: Replies to the server's pings, to send before the next frame.
        self._replies = b""
        self._is_closed = False
        try:
            self._shake_hands(address)
        except BaseException:
            sock.close()
            raise

    # --- as a socket ----------------------------------------------------------------------

    def recv_into(self, buffer: memoryview, /) -> int:
        """Write the next bytes into the buffer and return their number; 0 at the end.

        Raises BlockingIOError or an SSLWant error if there are none now.
        """
        self._may_have_more = False
        while not self._frame_left:
            if self._is_closed or not self._next_frame():
                return 0
        count = self._take(buffer[: self._frame_left])
        self._frame_left -= count
        self._may_have_more = True
        return count

    def recv(self, size: int) -> bytes:
        """Return the next bytes; as `recv_into`."""
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(memoryview(buffer))])

    def send(self, data: bytes | bytearray | memoryview, /) -> int:
        """Send a frame with some of the bytes, and return their number.

        Raises BlockingIOError or an SSLWant error until the frame is sent. The next call must have
        the same data then.
        """
        if not self._frame:
            chunk = memoryview(data)[:_FRAME_BYTES]
            self._frame_carries = len(chunk)
            self._frame = memoryview(self._replies + _frame(_BINARY, chunk))
            self._replies = b""
        while self._frame:
            self._frame = self._frame[self._socket.send(self._frame) :]
        return self._frame_carries

    def pending(self) -> int:
        """Return whether `recv_into` may return bytes for which the socket is not readable."""
        return int(self._may_have_more)

    def fileno(self) -> int:
        return self._socket.fileno()

    def setblocking(self, flag: bool) -> None:
        self._socket.setblocking(flag)

    def getsockopt(self, level: int, name: int, size: int, /) -> bytes:
        return self._socket.getsockopt(level, name, size)

    def setsockopt(self, level: int, name: int, value: int) -> None:
        self._socket.setsockopt(level, name, value)

    def close(self) -> None:
        self._socket.close()

    # --- frames ---------------------------------------------------------------------------

    def _next_frame(self) -> bool:
        """Handle a control frame, or take the header of a data frame.

        Returns False at the end of the connection.
        """
        while True:
            if (header := self._header()) is not None:
                opcode, body_start, length = header
                if opcode in (_BINARY, _CONTINUATION):
                    self._start, self._frame_left = body_start, length
                    return True
                if length > _MAX_CONTROL_BYTES or opcode not in (_CLOSE, _PING, _PONG):
                    raise ConnectionError(f"a WebSocket frame of type {opcode}, {length} bytes")
                if self._end >= body_start + length:
                    self._start = body_start + length
                    self._handle_control(opcode, self._buffer[body_start : self._start])
                    return not self._is_closed
            if not self._fill():
                return False

    def _header(self) -> tuple[int, int, int] | None:
        """Return opcode, start of the payload and its length; None if bytes are missing.

        Raises ConnectionError for a masked frame, which only clients send.
        """
        if self._end - self._start < 2:
            return None
        first, second = self._buffer[self._start], self._buffer[self._start + 1]
        if second & _MASKED:
            raise ConnectionError("a masked WebSocket frame of a server")
        body_start, length = self._start + 2, second
        if (long := _LONG_LENGTHS.get(length)) is not None:
            if self._end - body_start < long.size:
                return None
            (length,) = long.unpack_from(self._buffer, body_start)
            body_start += long.size
        return first & 0x0F, body_start, length

    def _handle_control(self, opcode: int, body: memoryview) -> None:
        if opcode == _PING:
            self._reply(_PONG, body)
        elif opcode == _CLOSE:
            self._is_closed = True
            self._reply(_CLOSE, body)

    def _reply(self, opcode: int, body: memoryview) -> None:
        """Send a reply at once, or before the next frame if the socket takes no bytes now."""
        self._replies += _frame(opcode, body)
        if self._frame:
            return
        try:
            self._replies = self._replies[self._socket.send(self._replies) :]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return

    # --- bytes ----------------------------------------------------------------------------

    def _take(self, buffer: memoryview) -> int:
        """Write bytes that arrived into the buffer: ours first, then those of the socket."""
        count = min(len(buffer), self._end - self._start)
        if not count:
            return self._socket.recv_into(buffer)
        buffer[:count] = self._buffer[self._start : self._start + count]
        self._start += count
        return count

    def _fill(self) -> bool:
        """Receive more bytes into our buffer; False at the end of the connection."""
        rest = bytes(self._buffer[self._start : self._end])
        self._buffer[: len(rest)] = rest
        self._start, self._end = 0, len(rest)
        count = self._socket.recv_into(self._buffer[self._end :])
        self._end += count
        return count > 0

    # --- handshake ------------------------------------------------------------------------

    def _shake_hands(self, address: Address) -> None:
        key = base64.b64encode(os.urandom(16))
        self._socket.sendall(
            f"GET {address.path} HTTP/1.1\r\n"
            f"Host: {address}\r\n"
            "Upgrade: websocket\r\n"
            "Connection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key.decode()}\r\n"
            "Sec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: mqtt\r\n\r\n".encode()
        )
        status, headers = _parse_answer(self._receive_answer())
        if status != 101:
            raise HandshakeRefused(status, f"HTTP status {status}")
        expected = base64.b64encode(hashlib.sha1(key + _KEY_SUFFIX).digest())  # noqa: S324
        if headers.get("sec-websocket-accept") != expected.decode():
            raise HandshakeRefused(status, "an answer to another request")

    def _receive_answer(self) -> bytes:
        """Return the HTTP answer without its last empty line. What follows stays in the buffer."""
        answer = b""
        while b"\r\n\r\n" not in answer:
            try:
                data = self._socket.recv(_BUFFER_BYTES)
            except ConnectionResetError:
                data = b""
            answer += data
            if not data or len(answer) > _MAX_ANSWER_BYTES or not _begins_as_http(answer):
                raise HandshakeRefused(0, "no HTTP answer")
        answer, _, rest = answer.partition(b"\r\n\r\n")
        self._buffer[: len(rest)] = rest
        self._end = len(rest)
        self._may_have_more = bool(rest)
        return answer


def _begins_as_http(answer: bytes) -> bool:
    return answer[:5] == b"HTTP/"[: len(answer)]


def _parse_answer(answer: bytes) -> tuple[int, dict[str, str]]:
    """Return the status and the headers, by their names in lower case."""
    first, *lines = answer.decode("latin-1").split("\r\n")
    words = first.split()
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    pairs = (line.partition(":") for line in lines)
    return status, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _frame(opcode: int, body: memoryview) -> bytes:
    """Return a frame of a client, masked with a new key."""
    length = len(body)
    if length < 126:
        header = bytes((_FIN | opcode, _MASKED | length))
    else:
        short = 126 if length < 65_536 else 127
        header = bytes((_FIN | opcode, _MASKED | short)) + _LONG_LENGTHS[short].pack(length)
    key = os.urandom(4)
    return header + key + _masked(body, key)


def _masked(body: memoryview, key: bytes) -> bytes:
    # One operation on large integers, instead of one for each byte.
    size = len(body)
    mask = (key * (size // 4 + 1))[:size]
    masked = int.from_bytes(body, "little") ^ int.from_bytes(mask, "little")
    return masked.to_bytes(size, "little")
