"""paho's client over our WebSocket."""

from __future__ import annotations

import socket
from typing import cast

from paho.mqtt import client as mqtt

from fogmqtt.transport.link import Address
from fogmqtt.transport.websocket import WebSocket


class WebSocketClient(mqtt.Client):
    """A client of paho that opens a WebSocket if it is given the address of one."""

    #: The address to connect to, set before `connect`; None for MQTT over TCP.
    websocket_address: Address | None = None

    def _create_socket(self) -> mqtt.SocketLike:
        """Connect, with TLS if it is set. Raises HandshakeRefused and OSError."""
        sock = super()._create_socket()
        if self.websocket_address is None:
            return sock
        return WebSocket(cast(socket.socket, sock), self.websocket_address)
