"""A TCP relay on loopback between clients and a broker, whose connections a test can cut."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_BUFFER_BYTES = 32_768


class Relay:
    """Listens at `port` and forwards all bytes to the port `target` and back."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        #: While False, new connections are closed at once.
        self.open = True
        self._begin(self._accept)

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break all connections, as the restart of a router does."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for sock in pair:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.open = False
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def _begin(self, run: object, *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            if not self.open:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()  # nothing listens at the target
                continue
            with self._lock:
                self._pairs.append((near, far))
            self._begin(self._pump, near, far)
            self._begin(self._pump, far, near)

    def pairs(self) -> list[tuple[socket.socket, socket.socket]]:
        """Return the sockets to client and target of every connection, ended ones included."""
        with self._lock:
            return list(self._pairs)

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        """Forward one direction of a connection until it ends. Raises OSError."""
        while data := source.recv(65_536):
            sink.sendall(data)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        # The other direction may have closed its socket already.
        with contextlib.suppress(OSError):
            for sock in (source, sink):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.carry(source, sink)
        # The direction that ends first shuts down both sockets. The second shutdown is harmless.
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        source.close()


@contextmanager
def relay(target: int) -> Iterator[Relay]:
    """A relay to a loopback port. It is closed at the end."""
    relay = Relay(target)
    try:
        yield relay
    finally:
        relay.close()


@contextmanager
def scripted(*answers: bytes) -> Iterator[int]:
    """A server that answers the n-th packet of a client with the n-th bytes. Yields its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                with client:
                    for answer in answers:
                        client.recv(4096)
                        client.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


class SlowRelay(Relay):
    """A relay that passes at most so many bytes per second, each way and on all connections."""

    def __init__(self, target: int, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        #: Bytes that passed.
        self.passed = 0
        super().__init__(target)

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        # A large buffer would take a tile at once.
        source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        began_at, carried = time.monotonic(), 0
        while data := source.recv(_BUFFER_BYTES):
            idle_s = time.monotonic() - began_at - carried / self._bytes_per_s
            if idle_s > 0:
                began_at += idle_s  # what was not used is not saved up
            carried += len(data)
            self.passed += len(data)
            time.sleep(max(0.0, began_at + carried / self._bytes_per_s - time.monotonic()))
            sink.sendall(data)


@contextmanager
def slow_relay(target: int, bytes_per_s: float) -> Iterator[SlowRelay]:
    """A slow relay to a loopback port. It is closed at the end."""
    made = SlowRelay(target, bytes_per_s)
    try:
        yield made
    finally:
        made.close()
