"""Where invited boards send their request: HTTPS, open only while a board may come.

It is a thread of the gateway with threads of its own, so nothing here blocks the gateway's loop.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Final

import msgspec

import fogmqtt
from fogmqtt.errors import FogError, JoinRefused
from fogmqtt.joining.asking import Applications, AskRequest
from fogmqtt.joining.bundle import utc_now
from fogmqtt.joining.install_script import install_script
from fogmqtt.joining.membership import JoinRequest, Membership
from fogmqtt.joining.site import Site
from fogmqtt.joining.wheel import build_wheel, wheel_name
from fogmqtt.log import one_line

log = logging.getLogger(__name__)

#: Refused requests within a minute that close the port, and for how long; seconds.
FAILURES: Final = 5
CLOSED_S: Final = 60.0
#: Seconds between two looks at the ledger.
WATCH_S: Final = 0.3
#: Seconds without a byte, and of one connection altogether.
_IDLE_S: Final = 5.0
_LONGEST_S: Final = 60.0
#: Seconds until the port notices that it is to close.
_POLL_S: Final = 0.05
_MOST_CONNECTIONS: Final = 16
_MOST_BYTES: Final = 16_384


class JoinPort:
    """Opens and closes the port as the ledger says, in a thread, until `close`."""

    def __init__(self, site: Site, host: str, port: int) -> None:
        self._site = site
        self._address = (host, port)
        self._membership = Membership(site)
        self._server: _Server | None = None
        self._failures: deque[float] = deque(maxlen=FAILURES)
        self._closed_until = float("-inf")
        self._problem = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="join port", daemon=True)

    def start(self) -> None:
        """Begin to look at the ledger."""
        if self._site.renew_certificate(utc_now()):
            log.info("the broker has a new certificate, for %s", ", ".join(self._site.addresses))
            self._site.reload_broker()
        self._thread.start()

    def close(self) -> None:
        """Close the port, and end the thread."""
        self._closing.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closing.is_set():
            try:
                self._open_or_close()
                self._problem = ""
            except (FogError, OSError) as problem:
                # Named once, not each time.
                if (text := str(problem)) != self._problem:
                    log.warning("boards cannot join: %s", text)
                    self._problem = text
            self._closing.wait(WATCH_S)
        self._stop()

    def _open_or_close(self) -> None:
        moment = time.monotonic()
        is_wanted = moment >= self._closed_until and self._membership.must_be_open(utc_now())
        if self._server is not None:
            self._server.end_old(moment)
        if is_wanted and self._server is None:
            self._server = _Server(self._address, self._site, self._membership, self._failed)
            log.info("boards can join at port %d while an invitation is open", self._address[1])
        elif not is_wanted and self._server is not None:
            self._stop()
            log.info("the port for boards that join is closed")

    def _failed(self) -> None:
        """Note a refused request; too many close the port for a while."""
        moment = time.monotonic()
        self._failures.append(moment)
        if len(self._failures) == FAILURES and moment - self._failures[0] < CLOSED_S:
            self._failures.clear()
            self._closed_until = moment + CLOSED_S
            log.warning(
                "%d requests to join were refused: the port is closed for %g s", FAILURES, CLOSED_S
            )

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None


class _Server(ThreadingMixIn, TCPServer):
    """The open port. TLS begins in the thread of a connection, so nobody holds up the others."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        site: Site,
        membership: Membership,
        failed: Callable[[], None],
    ) -> None:
        self.site = site
        self.membership = membership
        self.applications = Applications(site, membership)
        self.failed = failed
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._context = _context(site)
        #: When each began, by the socket that came in, and the one that has its descriptor now.
        self._connections: dict[socket.socket, tuple[float, socket.socket]] = {}
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._wheel = b""
        super().__init__(address, _Handler)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_POLL_S,), name="join", daemon=True
        )
        self._thread.start()

    def verify_request(self, request: object, client_address: object) -> bool:
        """Refuse more connections than a few boards need."""
        del request, client_address
        with self._lock:
            return len(self._connections) < _MOST_CONNECTIONS

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        with self._lock:
            self._connections[request] = (time.monotonic(), request)
        super().process_request(request, client_address)

    def finish_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        request.settimeout(_IDLE_S)
        with (
            suppress(OSError),
            self._context.wrap_socket(
                request, server_side=True, do_handshake_on_connect=False
            ) as secure,
        ):
            with self._lock:
                self._connections[request] = (self._connections[request][0], secure)
            secure.do_handshake()
            _Handler(secure, client_address, self)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        with self._lock:
            self._connections.pop(request, None)
        with suppress(OSError):
            super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Name a fault of ours."""
        del request, client_address
        log.error("a request to join met a fault", exc_info=sys.exc_info())

    def end_old(self, moment: float) -> None:
        """End connections that last too long."""
        with self._lock:
            every = list(self._connections.values())
        for began, connection in every:
            if moment - began > _LONGEST_S:
                with suppress(OSError):
                    # That of SSLSocket would change its state under the thread that reads.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def wheel(self) -> bytes:
        """Return our own version as a package; made once."""
        with self._building:
            if not self._wheel:
                self._wheel = build_wheel()
            return self._wheel

    def stop(self) -> None:
        """Close the port. A connection that is there ends by itself."""
        self.shutdown()
        self.server_close()
        self._thread.join()


def _context(site: Site) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(site.certificate, site.key)
    # A board that renews its certificate shows the one that it has.
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=site.authority.pem)
    return context


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: _Server
    server_version = "fogmqtt"
    sys_version = ""

    def do_GET(self) -> None:  # http.server chooses the name
        """Give what is no secret: the authority's certificate, our program, and its installer."""
        try:
            data, kind = self._file()
        except FogError as problem:
            log.warning("a board cannot be installed: %s", problem)
            self._refuse(500, str(problem))
        else:
            if data:
                self._send(200, data, kind)
            else:
                self._refuse(
                    404, f"this gateway has fogmqtt {fogmqtt.__version__}, and nothing else"
                )

    def _file(self) -> tuple[bytes, str]:
        if self.path == "/ca":
            return self.server.site.authority.pem.encode(), "application/x-pem-file"
        if self.path == "/join.sh":
            host = self.headers.get("Host", "")
            return install_script(self.server.site, host).encode(), "text/x-shellscript"
        if self.path == f"/{wheel_name()}":
            return self.server.wheel(), "application/zip"
        return b"", ""

    def do_POST(self) -> None:
        """Let a board join, or renew its certificate."""
        try:
            answer = self._answer(self._body())
        except msgspec.DecodeError:
            self.server.failed()
            self._refuse(403, "the request is none of fogmqtt's, or of another version")
        except JoinRefused as problem:
            log.warning("%s may not join: %s", self.client_address[0], one_line(str(problem)))
            self.server.failed()
            self._refuse(403, str(problem))
        except FogError as problem:  # of our own files
            log.warning("a board cannot join: %s", problem)
            self._refuse(500, "the gateway cannot change its files; its log says why")
        else:
            status = 202 if answer is None else 200
            self._send(status, msgspec.json.encode(answer), "application/json")

    def _answer(self, body: bytes) -> object:
        address = str(self.client_address[0])
        if self.path in ("/ask", "/asked"):
            return self._ask(msgspec.json.decode(body, type=AskRequest), address)
        asked = msgspec.json.decode(body, type=JoinRequest)
        if self.path == "/join":
            answer = self.server.membership.admit(asked, address, utc_now())
            log.info("%s has joined, from %s", asked.id, address)
            return answer
        if self.path == "/renew":
            answer = self.server.membership.renew(asked, self._serial(asked.id), utc_now())
            log.info("%s has a new certificate", asked.id)
            return answer
        raise JoinRefused("there is nothing of this name")

    def _ask(self, asked: AskRequest, address: str) -> object:
        if self.path == "/asked":
            return self.server.applications.answer(asked, utc_now())
        answer = self.server.applications.begin(asked, address, utc_now())
        log.info("%s asks to join, from %s: fog-gateway accept %s", asked.id, address, asked.id)
        return answer

    def _serial(self, board: str) -> int:
        """Return the number of the certificate that the board shows. Raises JoinRefused."""
        shown = self.connection.getpeercert() or {}
        names = [value for pairs in shown.get("subject", ()) for _, value in pairs]
        if names != [board]:
            raise JoinRefused(f"the certificate that renews {board} is not its own")
        return int(shown["serialNumber"], 16)

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and int(length) <= _MOST_BYTES):
            raise JoinRefused("the request has no length, or is too large")
        return self.rfile.read(int(length))

    def _refuse(self, status: int, text: str) -> None:
        self._send(status, msgspec.json.encode({"error": text}), "application/json")

    def _send(self, status: int, data: bytes, kind: str) -> None:
        with suppress(OSError):  # it did not wait for the answer
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what matters is logged where it happens."""
