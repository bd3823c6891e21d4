"""The bytes of a WebSocket are the same however frames and packets of the network divide them."""

from __future__ import annotations

import base64
import hashlib
import random
import socket
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from fogmqtt.transport.link import Address
from fogmqtt.transport.websocket import HandshakeRefused, WebSocket

ADDRESS = Address("broker.example", 80, path="/mqtt")
SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
sizes = st.sampled_from([0, 1, 125, 126, 127, 4000, 65_535, 65_536, 150_000])
seeds = st.integers(0, 2**32)


def accept(request: bytes) -> bytes:
    """The answer of a server that opens a WebSocket."""
    key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
    token = base64.b64encode(hashlib.sha1(key + SUFFIX).digest())  # noqa: S324
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"sec-websocket-accept: " + token + b"\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    )


class ScriptedSocket:
    """A socket to a server that accepts; it gives and takes a random number of bytes, or none."""

    def __init__(self, incoming: bytes, seed: int, answer: Callable[[bytes], bytes] = accept):
        self.sent = b""
        self.is_closed = False
        self._answer = answer
        self._incoming = incoming
        self._left = b""
        self._random = random.Random(seed)

    @property
    def is_drained(self) -> bool:
        return not self._left

    def sendall(self, data: bytes) -> None:
        self._left = self._answer(data) + self._incoming

    def recv(self, size: int) -> bytes:
        """As `recv_into` of a blocking socket."""
        data, self._left = self._left[:size], self._left[size:]
        return data

    def recv_into(self, buffer: memoryview) -> int:
        if not self._left or self._random.random() < 0.2:
            raise BlockingIOError
        count = min(len(buffer), self._random.choice([1, 2, 7, 1000, 100_000]))
        data = self.recv(count)
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes | memoryview) -> int:
        if self._random.random() < 0.2:
            raise BlockingIOError
        count = min(len(data), self._random.choice([1, 2, 7, 1000, 100_000]))
        self.sent += data[:count]
        return count

    def close(self) -> None:
        self.is_closed = True


def opened(sock: ScriptedSocket) -> WebSocket:
    return WebSocket(sock, ADDRESS)  # type: ignore[arg-type]


def received(websocket: WebSocket, sock: ScriptedSocket) -> bytes:
    data, buffer = b"", memoryview(bytearray(5000))
    while not sock.is_drained or websocket.pending():
        try:
            data += buffer[: websocket.recv_into(buffer)]
        except BlockingIOError:
            assert not websocket.pending()
    return data


def sent_all(websocket: WebSocket, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[websocket.send(rest) :]
        except BlockingIOError:
            continue


def frames_of(data: bytes) -> list[Frame]:
    """The frames of a client, read by another implementation, which checks that they are masked."""
    reader, frames = StreamReader(), []
    reader.feed_data(data)
    while reader.buffer:
        parser = Frame.parse(reader.read_exact, mask=True, max_size=None)
        with pytest.raises(StopIteration) as ended:
            next(parser)
        frames.append(ended.value.value)
    return frames


@settings(deadline=None)
@given(
    st.lists(st.tuples(sizes, st.sampled_from(["frame", "continued", "ping"])), max_size=6), seeds
)
def test_data_arrive_and_pings_are_answered(specs: list[tuple[int, str]], seed: int) -> None:
    chance = random.Random(seed)
    incoming, expected, pings = b"", b"", list[bytes]()
    for size, kind in specs:
        body = chance.randbytes(min(size, 125) if kind == "ping" else size)
        if kind == "ping":
            pings.append(body)
            incoming += Frame(Opcode.PING, body).serialize(mask=False)
            continue
        expected += body
        half = size // 2 if kind == "continued" else size
        incoming += Frame(Opcode.BINARY, body[:half], fin=kind == "frame").serialize(mask=False)
        if kind == "continued":
            incoming += Frame(Opcode.CONT, body[half:]).serialize(mask=False)
    sock = ScriptedSocket(incoming, seed)
    websocket = opened(sock)
    assert received(websocket, sock) == expected
    sent_all(websocket, b"x")  # what could not be sent at once goes first
    frames = frames_of(sock.sent)
    assert [(frame.opcode, frame.data) for frame in frames] == [
        *((Opcode.PONG, body) for body in pings),
        (Opcode.BINARY, b"x"),
    ]


@settings(deadline=None)
@given(st.lists(sizes.filter(bool), max_size=4), seeds)
def test_data_leave_in_masked_frames(lengths: list[int], seed: int) -> None:
    chance = random.Random(seed)
    payloads = [chance.randbytes(length) for length in lengths]
    sock = ScriptedSocket(b"", seed)
    websocket = opened(sock)
    for payload in payloads:
        sent_all(websocket, payload)
    frames = frames_of(sock.sent)
    assert {frame.opcode for frame in frames} <= {Opcode.BINARY}
    assert b"".join(frame.data for frame in frames) == b"".join(payloads)


def test_a_close_is_answered_and_ends_the_stream() -> None:
    sock = ScriptedSocket(Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=False), 3)
    websocket = opened(sock)
    assert received(websocket, sock) == b""
    assert websocket.recv_into(memoryview(bytearray(9))) == 0
    sent_all(websocket, b"x")
    assert frames_of(sock.sent)[0].opcode == Opcode.CLOSE


@pytest.mark.parametrize(
    "frame",
    [
        b"\x82\x86\x01\x02\x03\x04masked",
        b"\x81\x02ab",  # text
        b"\x89\x7e\x01\x00" + bytes(256),  # a ping of 256 bytes
    ],
    ids=["masked", "text", "long ping"],
)
def test_a_frame_that_a_server_must_not_send_ends_the_connection(frame: bytes) -> None:
    sock = ScriptedSocket(frame, 1)
    with pytest.raises(ConnectionError, match="WebSocket frame"):
        received(opened(sock), sock)


@pytest.mark.parametrize(
    ("answer", "status", "expected"),
    [
        (b"", 0, "no HTTP answer"),
        (b"\x20\x03\x00\x00\x00", 0, "no HTTP answer"),
        (b"HTTP/1.1 101 OK\r\n" + b"x: y\r\n" * 5000, 0, "no HTTP answer"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", 404, "HTTP status 404"),
        (b"HTTP/1.1 nonsense\r\n\r\n", 0, "HTTP status 0"),
        (b"HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: x\r\n\r\n", 101, "another request"),
        (b"HTTP/1.1 101 OK\r\n\r\n", 101, "another request"),
    ],
)
def test_any_other_answer_closes_the_socket_and_says_why(
    answer: bytes, status: int, expected: str
) -> None:
    sock = ScriptedSocket(b"", 1, lambda _request: answer)
    with pytest.raises(HandshakeRefused, match=expected) as refused:
        opened(sock)
    assert refused.value.status == status
    assert sock.is_closed


def test_a_server_that_does_not_answer_ends_the_handshake_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), timeout=0.1)
        with pytest.raises(TimeoutError):
            WebSocket(client, ADDRESS)
        assert client.fileno() == -1
