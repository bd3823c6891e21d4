"""A WebSocket proxy in front of a broker, as many brokers and networks have one."""

from __future__ import annotations

import contextlib
import http
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve


@contextmanager
def websocket_proxy(target: int, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Pass the bytes of WebSockets at /mqtt on to a loopback port; any other path gives 404."""

    def check_path(client: ServerConnection, request: Request) -> Response | None:
        if request.path == "/mqtt":
            return None
        return client.respond(http.HTTPStatus.NOT_FOUND, "no broker here\n")

    def handle(client: ServerConnection) -> None:
        with socket.create_connection(("127.0.0.1", target)) as broker:
            back = threading.Thread(target=_pass_on, args=(broker, client))
            back.start()
            # Either side may end first.
            with contextlib.suppress(ConnectionClosed, OSError):
                for message in client:
                    assert isinstance(message, bytes)
                    broker.sendall(message)
            with contextlib.suppress(OSError):
                broker.shutdown(socket.SHUT_RDWR)
            back.join()

    with serve(
        handle,
        "127.0.0.1",
        0,
        ssl=tls,
        subprotocols=["mqtt"],  # type: ignore[list-item]
        process_request=check_path,
        max_size=None,
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


def _pass_on(broker: socket.socket, client: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed, OSError):
        while data := broker.recv(1 << 20):
            client.send(data)
    client.close()
