"""An HTTP server that takes callbacks, and answers as the test wants."""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from tests.fog import Inbox, free_port


@dataclass(frozen=True)
class Post:
    """A request that came."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers with these statuses in turn, and with 204 when they are used up."""

    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    port: int = field(default_factory=free_port)
    posts: Inbox = field(default_factory=Inbox)
    tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        where = "https://localhost" if self.tls else "http://127.0.0.1"
        return f"{where}:{self.port}/take?from=fog"

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers = outer.answers.pop(0) if outer.answers else (204, {})
                self.send_response(status)
                for name, value in {"Content-Length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                outer.posts.put(Post(self.path, dict(self.headers), body))

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self) -> Post:
        return self.posts.take(Post, within=60)
