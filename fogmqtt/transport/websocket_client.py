"""paho's client over our WebSocket, with a socket that notices a dead link."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final, cast

from paho.mqtt import client as mqtt
from paho.mqtt.enums import MQTTErrorCode

from fogmqtt.transport.link import Address
from fogmqtt.transport.websocket import WebSocket

#: Milliseconds after which Linux ends a connection whose bytes nobody confirms. Without it that
#: takes a quarter of an hour.
_USER_TIMEOUT_MS: Final = 15_000
_SUCCESS: Final = MQTTErrorCode.MQTT_ERR_SUCCESS


class WebSocketClient(mqtt.Client):
    """A client of paho that opens a WebSocket if it is given the address of one.

    It sends pings only when `ping` is called, and calls `on_ping_answered` for each answer: paho's
    own keep-alive needs twice its interval to notice a dead link.
    """

    #: The address to connect to, set before `connect`; None for MQTT over TCP.
    websocket_address: Address | None = None
    #: Called on the network thread when the broker answers a ping.
    on_ping_answered: Callable[[], None] | None = None

    @property
    def heard_at(self) -> float:
        """When the last bytes arrived, in seconds of the monotonic clock."""
        return self._last_bytes_received

    def ping(self) -> None:
        """Send a PINGREQ. Any thread may call it."""
        self._send_pingreq()

    def _check_keepalive(self) -> None:
        """Do nothing: the owner sends pings."""

    def _handle_pingresp(self) -> MQTTErrorCode:
        code = super()._handle_pingresp()
        if self.on_ping_answered is not None:
            self.on_ping_answered()
        return code

    def loop_misc(self) -> MQTTErrorCode:
        """Do nothing: the owner judges the connection."""
        return MQTTErrorCode.MQTT_ERR_NO_CONN if self._sock is None else _SUCCESS

    def _create_socket_connection(self) -> socket.socket:
        sock = super()._create_socket_connection()
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
        return sock

    def _create_socket(self) -> mqtt.SocketLike:
        """Connect, with TLS if it is set. Raises HandshakeRefused and OSError."""
        sock = super()._create_socket()
        if self.websocket_address is None:
            return sock
        return WebSocket(cast(socket.socket, sock), self.websocket_address)
