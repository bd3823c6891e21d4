"""Puts the dashboard together: the gateway's client, the application, and the HTTP server."""

from __future__ import annotations

import logging
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fogmqtt.config.addresses import parse_listen
from fogmqtt.config.schema import DashboardSettings
from fogmqtt.dashboard.access import Door
from fogmqtt.dashboard.api import Api
from fogmqtt.dashboard.app import make_app
from fogmqtt.dashboard.boards import SiteBoards
from fogmqtt.dashboard.events import EventHub
from fogmqtt.dashboard.gateway_client import Connect, GatewayClient
from fogmqtt.dashboard.listener import listen, serve_http
from fogmqtt.dashboard.live import LiveEndpoint
from fogmqtt.dashboard.looking import Looking
from fogmqtt.dashboard.static_files import StaticFiles
from fogmqtt.dashboard.tokens import Tokens, load_tokens
from fogmqtt.wire.topics import Topics

log = logging.getLogger(__name__)

_TOKEN: Final = "dashboard.token"  # noqa: S105  # the name of a file
_VIEWER_TOKEN: Final = "dashboard.viewer-token"  # noqa: S105
#: Addresses that stand for all of a machine.
_ALL: Final = ("0.0.0.0", "::")  # noqa: S104


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a user needs to open the page."""

    url: str
    #: The same with the token behind #; empty unless this start made the token.
    url_with_token: str
    #: The file with the operator's token; empty where none is needed.
    token_file: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    """The dashboard of one gateway. `folder` is where tokens are kept that have no file set."""

    settings: DashboardSettings
    gateway: str
    topics: Topics
    folder: Path

    def open(self) -> tuple[socket.socket, Tokens | None, Invitation]:
        """Listen, and read or make the tokens. Raises UsageError and ConfigError."""
        host, port = parse_listen(self.settings.listen)
        sock = listen(host, port)
        try:
            tokens = self._tokens(sock)
        except BaseException:
            sock.close()
            raise
        url = _url(host, sock.getsockname()[1])
        has_new = tokens is not None and tokens.is_new
        return (
            sock,
            tokens,
            Invitation(
                url,
                f"{url}#token={tokens.operator}" if tokens is not None and has_new else "",
                str(self._token_file()) if tokens is not None else "",
            ),
        )

    async def serve(
        self,
        sock: socket.socket,
        tokens: Tokens | None,
        connect: Connect,
        boards: SiteBoards | None = None,
    ) -> None:
        """Serve until cancelled. With `boards`, operators invite boards here."""
        static = StaticFiles()
        static.prepare()
        client = GatewayClient(self.gateway, client_name(sock), self.topics, connect)
        hub, looking = EventHub(client), Looking(client)
        cookie = f"fogmqtt_{self.gateway}"
        door = Door(self.settings, tokens, cookie)
        client.start()
        try:
            api = Api(client, hub, looking, door, boards=boards)
            live = LiveEndpoint(client, looking, door)
            await serve_http(make_app(api, live, door, static), sock)
        finally:
            hub.close()
            await client.close()

    def _tokens(self, sock: socket.socket) -> Tokens | None:
        """Return the tokens; None where only programs of this machine can come in."""
        address = sock.getsockname()[0]
        is_loopback = address == "::1" or address.startswith("127.")
        if is_loopback and not self.settings.proxy.trusted:
            return None
        viewer = self.settings.viewer_token_file or self.folder / _VIEWER_TOKEN
        return load_tokens(self._token_file(), Path(viewer))

    def _token_file(self) -> Path:
        return Path(self.settings.token_file or self.folder / _TOKEN)


def client_name(sock: socket.socket) -> str:
    """Return the dashboard's name at the gateway, the same after a restart."""
    host = re.sub(r"[^a-z0-9_-]", "-", socket.gethostname().lower())[:32].lstrip("-_")
    return f"{host or 'dashboard'}-{sock.getsockname()[1]}"


def _url(host: str, port: int) -> str:
    if host in _ALL:
        host = _address_of_this_machine() or socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _address_of_this_machine() -> str:
    """Return the address by which other machines reach this one. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        address: str = probe.getsockname()[0]
        return address
