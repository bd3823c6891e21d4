"""The HTTP server's socket, and its patience with clients that are slow on purpose.

uvicorn serves HTTP. It waits for ever for a request's headers, and for a reader that takes nothing.
The protocol here does not.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import h11
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from fogmqtt.dashboard.problems import Problem
from fogmqtt.errors import UsageError

log = logging.getLogger(__name__)

#: Seconds for the headers of a request, from the first moment on.
HEADERS_S: Final = 10.0
#: Seconds in which a reader must take something.
READER_S: Final = 20.0
#: Seconds for which a connection without a request is kept.
_KEEP_ALIVE_S: Final = 60
#: Seconds that the end waits for answers that are being sent.
_GRACE_S: Final = 1
#: Connections at once. Each costs a file descriptor, of which a process often has 1024.
_MOST_CONNECTIONS: Final = 800
#: Bytes of a message of a page.
_MOST_WS_BYTES: Final = 16_384
#: Bytes that the kernel keeps for a reader beside those under way: what is sent without end must
#: not grow old in its buffers, which are some megabytes large.
_UNSENT_BYTES: Final = 131_072
#: Bytes of a request's headers.
_MOST_HEADER_BYTES: Final = 32_768


class PatientProtocol(H11Protocol):
    """HTTP/1.1 with time limits. `headers_s` and `reader_s` are for tests."""

    headers_s = HEADERS_S
    reader_s = READER_S

    #: Connections at once; beyond them, requests are answered with 503.
    most_connections = _MOST_CONNECTIONS

    _headers_timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self.app = _too_many_connections
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._expect_headers()  # the rest of a body that nobody reads may not take for ever

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_headers_timer()
        self._stop_reader_timer()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reader_timer is None:
            self._reader_timer = self.loop.call_later(self.reader_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_reader_timer()

    def _expect_headers(self) -> None:
        """Give a request's headers their time, unless a request is being answered."""
        if self.transport.get_protocol() is not self:
            self._stop_headers_timer()  # it became a WebSocket
        elif self.cycle is not None and not self.cycle.response_complete:
            self._stop_headers_timer()
        elif self._headers_timer is None:
            self._headers_timer = self.loop.call_later(self.headers_s, self._too_slow)

    def _too_slow(self) -> None:
        self._headers_timer = None
        if self.transport.is_closing():
            return
        if self.cycle is None and self.conn.our_state is h11.IDLE:
            self._send_too_slow()
        self.transport.close()

    def _send_too_slow(self) -> None:
        body = b"The headers of the request did not come in time.\n"
        headers = [("content-type", "text/plain"), ("connection", "close")]
        headers.append(("content-length", str(len(body))))
        with suppress(h11.LocalProtocolError):
            response = h11.Response(status_code=408, headers=headers, reason=b"Request Timeout")
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")

    def _stop_headers_timer(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _stop_reader_timer(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None


async def _too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request on a connection beyond those that may be open."""
    problem = Problem(
        "busy",
        503,
        f"{_MOST_CONNECTIONS} connections are open already; close some, or try again later.",
        limit=_MOST_CONNECTIONS,
        retry_after_s=5.0,
        headers={"Connection": "close"},
    )
    if scope["type"] == "http":
        await problem.response()(scope, receive, send)


class _Server(uvicorn.Server):
    """uvicorn without its own handling of signals: the command line has one."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises UsageError if the address cannot be used."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind)
    except OSError as problem:
        raise UsageError(f"dashboard.listen: {host}: {problem.strerror}") from None
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    if family == socket.AF_INET6:  # [::] is all addresses, IPv4 too
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        sock.bind(address)
        sock.listen(1024)
    except OSError as problem:
        sock.close()
        reason = problem.strerror or str(problem)
        if problem.errno == errno.EADDRINUSE:
            reason = "another program listens there; name another port"
        raise UsageError(f"dashboard.listen: {host}:{port}: {reason}") from None
    sock.setblocking(False)
    return sock


async def serve_http(app: ASGIApp, sock: socket.socket, **options: Any) -> None:
    """Answer requests until cancelled."""
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        # WebSockets without buffers of their own: a page says when it is ready for a message.
        ws="websockets-sansio",
        ws_max_size=_MOST_WS_BYTES,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
        **options,
    )
    # Its warnings are about requests that are no HTTP, and its errors have their traceback.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[sock]), name="http")
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        sock.close()
