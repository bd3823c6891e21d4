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
from collections import Counter, deque
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Final
from urllib.parse import urlsplit

import msgspec

import fogmqtt
from fogmqtt.errors import FogError, JoinRefused
from fogmqtt.joining.asking import Applications, AskRequest
from fogmqtt.joining.bundle import utc_now
from fogmqtt.joining.install_script import install_script
from fogmqtt.joining.membership import JoinAnswer, JoinRequest, Membership
from fogmqtt.joining.site import Site
from fogmqtt.joining.wheel import build_wheel, wheel_name
from fogmqtt.log import one_line

log = logging.getLogger(__name__)

#: Refused requests of one address within a minute, after which it is told no more why.
REFUSALS: Final = 5
#: Those of all addresses, after which none is named in the log.
MOST_REFUSALS: Final = 100
_MINUTE_S: Final = 60.0
_TOO_MANY: Final = "too many requests of this address were refused; wait a minute"
#: Seconds between two looks at the ledger.
WATCH_S: Final = 0.3
#: Seconds between two looks at this machine's addresses and the certificate.
RENEW_S: Final = 10.0
#: Seconds without a byte, and of one connection altogether.
_IDLE_S: Final = 5.0
_LONGEST_S: Final = 60.0
#: Seconds until the port notices that it is to close.
_POLL_S: Final = 0.05
_MOST_CONNECTIONS: Final = 32
_MOST_BYTES: Final = 16_384


class JoinPort:
    """Opens and closes the port as the ledger says, in a thread, until `close`."""

    def __init__(self, site: Site, host: str, port: int) -> None:
        self._site = site
        self._address = (host, port)
        self._membership = Membership(site)
        self._server: _Server | None = None
        self._refusals = Refusals()
        self._serving = ExitStack()
        self._problem = ""
        self._renewed_at = 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="join port", daemon=True)

    def start(self) -> None:
        """Begin to look at the ledger."""
        self._renew()
        if self._site.renew_access_list():
            log.info("the broker has a new access list, by fogmqtt %s", fogmqtt.__version__)
            self._site.reload_broker()
        self._serving.enter_context(self._site.serving())
        self._thread.start()

    def close(self) -> None:
        """Close the port, and end the thread."""
        self._closing.set()
        self._thread.join()
        self._serving.close()

    def _renew(self) -> None:
        """Give the broker and this port a new certificate, if addresses changed or it is old."""
        self._renewed_at = time.monotonic()
        if self._site.renew_certificate(utc_now()):
            log.info("the broker has a new certificate, for %s", ", ".join(self._site.addresses))
            self._site.reload_broker()
            self._stop()  # it opens with the new one

    def _watch(self) -> None:
        while not self._closing.is_set():
            try:
                if time.monotonic() - self._renewed_at > RENEW_S:
                    self._renew()
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
        is_wanted = self._membership.must_be_open(utc_now())
        if self._server is not None:
            self._server.end_old(moment)
        if is_wanted and self._server is None:
            self._server = _Server(self._address, self._site, self._membership, self._refusals)
            log.info("boards can join at port %d while an invitation is open", self._address[1])
        elif not is_wanted and self._server is not None:
            self._stop()
            log.info("the port for boards that join is closed")

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None


class Refusals:
    """The requests that were refused in the last minute.

    They close nothing: nobody guesses a token of 128 bits, and whoever has one is let in beside
    them. They bound what is written for those who have none.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[float, str]] = deque(maxlen=MOST_REFUSALS)
        self._lock = threading.Lock()

    def note(self, address: str, reason: str) -> bool:
        """Note a refusal, and log it. Return False if there were too many of this address."""
        with self._lock:
            recent = self._last_minute()
            if recent.count(address) >= REFUSALS:
                return False
            self._recent.append((time.monotonic(), address))
        if len(recent) < MOST_REFUSALS:
            log.warning("%s may not join: %s", address, one_line(reason))
        if recent.count(address) == REFUSALS - 1:
            log.warning("%s: its next requests within a minute get no reason", address)
        if len(recent) == MOST_REFUSALS - 1:
            log.warning(
                "%d requests to join were refused within a minute: the next are not named",
                MOST_REFUSALS,
            )
        return True

    def are_too_many(self, address: str) -> bool:
        """Whether an address gets no reasons any more."""
        with self._lock:
            return self._last_minute().count(address) >= REFUSALS

    def _last_minute(self) -> list[str]:
        since = time.monotonic() - _MINUTE_S
        return [address for at, address in self._recent if at > since]


@dataclass(eq=False, slots=True)
class _Connection:
    """One connection. `socket` is the one that has its descriptor now."""

    address: str
    socket: socket.socket
    began: float = field(default_factory=time.monotonic)
    #: Whether its board has shown that it may come.
    is_proven: bool = False
    is_ended: bool = False

    def end(self) -> None:
        """Let the thread that reads from it end."""
        self.is_ended = True
        with suppress(OSError):
            # That of SSLSocket would change its state under the thread that reads.
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


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
        refusals: Refusals,
    ) -> None:
        self.site = site
        self.membership = membership
        self.applications = Applications(site, membership)
        self.refusals = refusals
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._context = _context(site)
        #: By the socket that came in.
        self._connections: dict[socket.socket, _Connection] = {}
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._wheel = b""
        super().__init__(address, BaseHTTPRequestHandler)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_POLL_S,), name="join", daemon=True
        )
        self._thread.start()

    def verify_request(self, request: object, client_address: object) -> bool:
        """Make room for a connection; False if those that were ended are still there."""
        del request, client_address
        with self._lock:
            self._make_room()
            return len(self._connections) < 2 * _MOST_CONNECTIONS

    def _make_room(self) -> None:
        """End the oldest connection of the address that has the most, if there are too many.

        So nobody keeps boards out by holding all places.
        """
        there = [one for one in self._connections.values() if not one.is_ended]
        if len(there) < _MOST_CONNECTIONS:
            return
        counts = Counter(one.address for one in there)
        ending = [one for one in there if not one.is_proven]
        if ending:
            min(ending, key=lambda one: (-counts[one.address], one.began)).end()

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        assert isinstance(client_address, tuple)  # noqa: S101  # of an IP socket
        with self._lock:
            self._connections[request] = _Connection(str(client_address[0]), request)
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
                connection = self._connections[request]
                connection.socket = secure
            secure.do_handshake()
            _Handler(secure, client_address, self, connection)

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
            for one in self._connections.values():
                if moment - one.began > _LONGEST_S:
                    one.end()

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

    def __init__(
        self,
        secure: ssl.SSLSocket,
        client_address: object,
        server: _Server,
        connection: _Connection,
    ) -> None:
        self._connection = connection
        super().__init__(secure, client_address, server)

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
            self._refuse_join("the request is none of fogmqtt's, or of another version")
        except JoinRefused as problem:
            self._refuse_join(str(problem))
        except FogError as problem:  # of our own files
            log.warning("a board cannot join: %s", problem)
            self._refuse(500, "the gateway cannot change its files; its log says why")
        else:
            status = 202 if answer is None else 200
            if isinstance(answer, JoinAnswer):
                answer = self._reached_first(answer)
            self._send(status, msgspec.json.encode(answer), "application/json")

    def _reached_first(self, answer: JoinAnswer) -> JoinAnswer:
        """Name the address first by which the board has come: it may reach no other one."""
        here = str(self.connection.getsockname()[0])

        def sorted_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(sorted(urls, key=lambda url: urlsplit(url).hostname != here))

        return msgspec.structs.replace(
            answer, brokers=sorted_urls(answer.brokers), join=sorted_urls(answer.join)
        )

    def _refuse_join(self, reason: str) -> None:
        if self.server.refusals.note(self._connection.address, reason):
            self._refuse(403, reason)
        else:
            self._refuse(429, _TOO_MANY)

    def _answer(self, body: bytes) -> object:
        address = self._connection.address
        if self.path in ("/ask", "/asked"):
            return self._ask(msgspec.json.decode(body, type=AskRequest), address)
        asked = msgspec.json.decode(body, type=JoinRequest)
        if self.path == "/join":
            self.server.membership.check(asked, utc_now())
            self._connection.is_proven = True
            answer = self.server.membership.admit(asked, address, utc_now())
            log.info("%s has joined, from %s", asked.id, address)
            return answer
        if self.path == "/renew":
            serial = self._serial(asked.id)
            self._connection.is_proven = True
            answer = self.server.membership.renew(asked, serial, utc_now())
            log.info("%s has a new certificate", asked.id)
            return answer
        raise JoinRefused("there is nothing of this name")

    def _ask(self, asked: AskRequest, address: str) -> object:
        if self.path == "/asked":
            return self.server.applications.answer(asked, utc_now())
        if self.server.refusals.are_too_many(address):
            raise JoinRefused(_TOO_MANY)
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
