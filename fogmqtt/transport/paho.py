"""The link to a broker by paho-mqtt; the only module that imports it.

A fresh paho client serves each connection, so that nothing of a broken one is sent again behind
our back: what must be sent again is the scheduler's business. paho's loop runs on a thread of
our own, since only there its real exceptions can be had.
"""

from __future__ import annotations

import logging
import math
import socket
import threading
from typing import Any

from paho.mqtt.client import (
    MQTT_ERR_SUCCESS,
    Client,
    ConnectFlags,
    DisconnectFlags,
    MQTTMessage,
    MQTTMessageInfo,
    MQTTv5,
    MQTTv311,
)
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fogmqtt.errors import NotConnected, TooLarge
from fogmqtt.transport.base import Connected, Deliver, Disconnected, Received, Refused, Will
from fogmqtt.transport.link import Link
from fogmqtt.transport.refusal import refused_by_broker, refused_on_the_way

log = logging.getLogger(__name__)

#: Mosquitto's Receive Maximum: more unacknowledged messages than this only wait at the broker.
MAX_IN_FLIGHT = 20
#: Fixed header, topic length, message id, properties: what a packet has beside topic and payload.
PACKET_HEADROOM = 64
#: Seconds between two tries to connect, the first and the longest.
RETRY_S = (1.0, 5.0)
#: Seconds that `close` gives what was handed over to leave.
FLUSH_S = 2.0
#: Seconds that one try to connect may take.
CONNECT_S = 5.0
_TAKEN_OVER = 0x8E


class PahoTransport:
    """A Transport. `deliver` is called on the network thread."""

    def __init__(self, link: Link, deliver: Deliver, *, will: Will | None = None) -> None:
        self._link = link
        self._deliver = deliver
        self._will = will
        self._filters: dict[str, int] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"mqtt-{link.client_id}", daemon=True
        )
        #: The client of the connection that is up; None while there is none.
        self._up: Client | None = None
        self._max_packet_bytes: int | None = None
        self._newest: MQTTMessageInfo | None = None
        #: What the connection at hand has said: that it stands, or why it does not.
        self._said = False
        self._failure: str | None = None
        self._taken_over = False

    def start(self) -> None:
        self._thread.start()

    def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
        self._filters[topic_filter] = qos
        if self._up is not None:
            self._up.subscribe(topic_filter, qos)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expires_s: float | None = None,
        content_type: str | None = None,
    ) -> None:
        client = self._up
        if client is None:
            raise NotConnected(f"not connected to {self._link.url}")
        self._check_size(topic, payload)
        properties = self._properties(expires_s, content_type)
        info = client.publish(topic, payload, qos, retain, properties)
        if info.rc != MQTT_ERR_SUCCESS:
            raise NotConnected(f"not connected to {self._link.url}")
        self._newest = info

    def close(self) -> None:
        if self._closing.is_set():
            return
        client, newest = self._up, self._newest
        if client is not None and newest is not None:
            _flush(newest)
        self._closing.set()
        if client is not None:
            client.disconnect()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(CONNECT_S + RETRY_S[1])

    # The network thread.

    def _run(self) -> None:
        delay = RETRY_S[0]
        while not self._closing.is_set():
            stood = self._connection()
            delay = RETRY_S[0] if stood else min(2 * delay, RETRY_S[1])
            self._closing.wait(delay)

    def _connection(self) -> bool:
        """One connection from beginning to end; whether it ever stood."""
        self._said, self._failure, self._taken_over = False, None, False
        try:
            client = self._client()
            client.connect_async(*self._where(), keepalive=math.ceil(self._link.keepalive_s))
            client.reconnect()
        except (OSError, ValueError) as problem:  # ssl's errors are OSErrors
            self._deliver(refused_on_the_way(self._link, problem))
            return False
        self._loop(client)
        stood = self._up is not None
        self._up = None
        if self._closing.is_set():
            return stood
        reason = self._failure or "the connection broke"
        if stood:
            self._deliver(Disconnected(reason, self._taken_over))
        elif not self._said:
            self._deliver(refused_on_the_way(self._link, ConnectionError(reason)))
        return stood

    def _loop(self, client: Client) -> None:
        try:
            while client.loop(1.0) == MQTT_ERR_SUCCESS:
                if self._closing.is_set() and not client.is_connected():
                    return
        except Exception as problem:  # a deaf client is worse than a new one
            log.exception("the link to %s raised; connecting anew", self._link.url)
            self._failure = f"{type(problem).__name__}: {problem}"

    def _where(self) -> tuple[str, int]:
        address = self._link.address
        return address.host, address.port

    def _client(self) -> Client:
        link = self._link
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=link.client_id,
            clean_session=None if link.protocol == 5 else True,
            protocol=MQTTv5 if link.protocol == 5 else MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_S
        client.max_inflight_messages_set(MAX_IN_FLIGHT)
        if link.username:
            client.username_pw_set(link.username, link.password or None)
        if link.address.tls:
            client.tls_set(link.ca or None, link.cert or None, link.key or None)
        if self._will is not None:
            client.will_set(self._will.topic, self._will.payload, qos=1, retain=True)
        client.on_socket_open = _no_delay
        # Set, so that publish() on another thread leaves the writing to ours.
        client.on_socket_register_write = _ignore
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        return client

    def _on_connect(
        self,
        client: Client,
        _userdata: Any,
        _flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._refuse(client, refused_by_broker(self._link, str(reason)))
            return
        self._max_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        if self._filters:
            client.subscribe(list(self._filters.items()))
        else:
            self._stand(client)

    def _on_subscribe(
        self,
        client: Client,
        _userdata: Any,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self._refuse(client, refused_by_broker(self._link, f"subscription: {reasons[0]}"))
        elif self._up is None:
            self._stand(client)

    def _stand(self, client: Client) -> None:
        self._said = True
        self._up = client
        self._deliver(Connected(self._max_packet_bytes))

    def _refuse(self, client: Client, refused: Refused) -> None:
        self._said = True
        self._deliver(refused)
        client.disconnect()

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        self._deliver(Received(message.topic, message.payload, message.retain))

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: Any,
        _flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._failure = self._failure or str(reason)
        self._taken_over = self._taken_over or reason.value == _TAKEN_OVER

    def _check_size(self, topic: str, payload: bytes) -> None:
        size = len(topic.encode()) + len(payload) + PACKET_HEADROOM
        limit = self._max_packet_bytes
        if limit is not None and size > limit:
            raise TooLarge(
                f"{topic}: {size:,} bytes are over the broker's limit of {limit:,} for one "
                "packet; raise max_packet_size in mosquitto.conf"
            )

    def _properties(self, expires_s: float | None, content_type: str | None) -> Properties | None:
        if self._link.protocol != 5 or (expires_s is None and content_type is None):
            return None
        properties = Properties(PacketTypes.PUBLISH)
        if expires_s is not None:
            properties.MessageExpiryInterval = max(1, math.ceil(expires_s))
        if content_type is not None:
            properties.ContentType = content_type
        return properties


def _no_delay(_client: Client, _userdata: Any, sock: Any) -> None:
    """Without this a small QoS 1 round trip takes 40 ms more."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _ignore(*_: Any) -> None:
    """Says that somebody else will write."""


def _flush(newest: MQTTMessageInfo) -> None:
    try:
        newest.wait_for_publish(FLUSH_S)
    except (ValueError, RuntimeError):
        log.debug("the newest message was not taken")
