"""MQTT over paho: our own network thread around paho's public calls; nothing else imports paho.

Each connection gets a client of its own. paho would carry unacknowledged messages over to the
next connection and send them first; after a loss the owner alone decides what is still true.
"""

from __future__ import annotations

import logging
import math
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fogmqtt.errors import NotConnected, TooLarge
from fogmqtt.transport.base import Connected, Deliver, Disconnected, Received, Refused, Will
from fogmqtt.transport.link import Link
from fogmqtt.transport.refusals import filter_refused, hung_up, rejected, unreachable
from fogmqtt.transport.tls import tls_context

log = logging.getLogger(__name__)

#: What a PUBLISH needs beside topic and payload: fixed header, packet id, our two properties.
OVERHEAD_BYTES: Final = 64
#: Unacknowledged messages on one connection. Mosquitto announces a Receive Maximum of 20, which
#: paho does not look at, and its queue of QoS 2 ends there. More would win nothing: the broker
#: acknowledges within a round trip, and 20 tiles fill any link.
MAX_INFLIGHT: Final = 20
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 5.0
_CONNECT_TIMEOUT_S: Final = 5.0
_FLUSH_S: Final = 2.0
_GOODBYE_S: Final = 0.5
_TAKEN_OVER: Final = 0x8E


@dataclass(frozen=True, slots=True)
class _Setup:
    """What every connection of one transport has in common."""

    link: Link
    deliver: Deliver
    will: Will | None
    tls: ssl.SSLContext | None


class _Connection:
    """One connection from CONNECT to its end; never used again.

    `dial` and `turn` belong to the network thread, `subscribe`, `publish`, `flush` and
    `say_goodbye` to anybody. paho's callbacks come on the network thread, inside `turn`.
    """

    def __init__(self, setup: _Setup, filters: dict[str, int]) -> None:
        self._setup = setup
        self._filters = filters
        self._changed = threading.Condition()
        self._asked: dict[int, str] = {}
        self._handed = 0
        self._published = 0
        self._early: list[Received] = []
        self._limit: int | None = None
        self._acknowledged = False
        self._reason: str | None = None
        self._taken_over = False
        self.refusal: Refused | None = None
        #: All filters are in force, and Connected was delivered.
        self.ready = False
        self._client = self._new_client()

    # --- the network thread ---------------------------------------------------------------

    def dial(self) -> None:
        """Open the socket and send CONNECT. Raises OSError."""
        address = self._setup.link.address
        keepalive = self._setup.link.keepalive_s
        if self._setup.link.protocol == 5:
            self._client.connect_async(address.host, address.port, keepalive, clean_start=True)
        else:
            self._client.connect_async(address.host, address.port, keepalive)
        self._client.reconnect()

    def turn(self) -> bool:
        """Wait up to a second for something to do, and do it; False when the link is gone."""
        code = self._client.loop(1.0)
        if code is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._reason = self._reason or mqtt.error_string(code)
            return False
        return self.refusal is None

    def end(self) -> Disconnected | Refused:
        """Close the socket; what became of the connection."""
        with self._changed:
            was_ready, self.ready = self.ready, False
            self._changed.notify_all()
        if (sock := self._client.socket()) is not None:
            sock.close()
        if was_ready:
            return Disconnected(self._reason or "the connection broke", self._taken_over)
        if self.refusal is not None:
            return self.refusal
        if self._acknowledged:
            return Refused(f"{self._setup.link.address} hung up: {self._reason}")
        return hung_up(self._setup.link)

    # --- anybody --------------------------------------------------------------------------

    def subscribe(self, topic_filter: str, qos: int) -> None:
        with self._changed:
            self._filters[topic_filter] = qos
            if self._acknowledged:
                self._ask(topic_filter, qos)

    def publish(
        self, topic: str, payload: bytes, qos: int, retain: bool, properties: Properties | None
    ) -> None:
        """Raises NotConnected and TooLarge."""
        if not self.ready:
            raise _no_link(self._setup.link, topic)
        size = len(topic.encode()) + len(payload) + OVERHEAD_BYTES
        if self._limit is not None and size > self._limit:
            raise TooLarge(
                f"{topic}: {size} bytes, but {self._setup.link.address} takes {self._limit}; "
                "make tiles smaller (wire.max_message_bytes) or raise the broker's max_packet_size"
            )
        self._hand(topic, payload, qos, retain, properties)

    def flush(self, timeout_s: float) -> None:
        """Wait until what was handed over is out (QoS 0) or acknowledged, or the link gone."""
        with self._changed:
            self._changed.wait_for(lambda: not self.ready or self._is_flushed(), timeout_s)

    def say_goodbye(self) -> None:
        """Ask for DISCONNECT to be sent: the broker then forgets our will."""
        self._client.disconnect()

    # --- inside ---------------------------------------------------------------------------

    def _is_flushed(self) -> bool:
        return self._published >= self._handed

    def _hand(
        self, topic: str, payload: bytes, qos: int, retain: bool, properties: Properties | None
    ) -> None:
        with self._changed:
            self._handed += 1
        info = self._client.publish(topic, payload, qos, retain, properties)
        if info.rc is MQTTErrorCode.MQTT_ERR_SUCCESS:
            return
        with self._changed:
            self._handed -= 1
        raise _no_link(self._setup.link, topic)

    def _ask(self, topic_filter: str, qos: int) -> None:
        _, mid = self._client.subscribe(topic_filter, qos)
        if mid is not None:
            self._asked[mid] = topic_filter

    def _new_client(self) -> mqtt.Client:
        setup = self._setup
        five = setup.link.protocol == 5
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=setup.link.client_id,
            clean_session=None if five else True,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.max_inflight_messages = MAX_INFLIGHT
        if setup.link.credentials:
            client.username_pw_set(*setup.link.credentials)
        if setup.tls is not None:
            client.tls_set_context(setup.tls)
        if setup.will is not None:
            client.will_set(setup.will.topic, setup.will.payload, qos=1, retain=True)
        self._listen_to(client)
        return client

    def _listen_to(self, client: mqtt.Client) -> None:
        client.on_socket_open = _send_at_once
        # With this set, publish() never writes to the socket itself: it only wakes our thread.
        client.on_socket_register_write = _leave_to_the_loop
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect

    def _on_connect(
        self,
        _client: mqtt.Client,
        _userdata: object,
        _flags: mqtt.ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if code.is_failure:
            self.refusal = rejected(self._setup.link, code.value, str(code))
            return
        self._limit = getattr(properties, "MaximumPacketSize", None)
        with self._changed:
            self._acknowledged = True
            for topic_filter, qos in self._filters.items():
                self._ask(topic_filter, qos)
        self._be_ready()

    def _on_subscribe(
        self, _client: object, _data: object, mid: int, codes: list[ReasonCode], *_: object
    ) -> None:
        with self._changed:
            topic_filter = self._asked.pop(mid, "?")
        refused = next((code for code in codes if code.is_failure), None)
        if refused is not None:
            self.refusal = filter_refused(self._setup.link, topic_filter, str(refused))
            self._reason = self.refusal.reason
            log.error("%s", self.refusal.reason)
            return
        self._be_ready()

    def _be_ready(self) -> None:
        """Say Connected once every filter is in force; then what came before."""
        with self._changed:
            if self.ready or self._asked:
                return
            # Before it is told: whoever hears it may publish at once.
            self.ready = True
        self._setup.deliver(Connected(self._limit))
        for message in self._early:
            self._setup.deliver(message)
        self._early.clear()

    def _on_publish(
        self, _client: object, _data: object, mid: int, code: ReasonCode, *_: object
    ) -> None:
        if code.is_failure:
            log.warning("the broker refused message %d: %s; see its acl", mid, code)
        with self._changed:
            self._published += 1
            self._changed.notify_all()

    def _on_message(
        self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage
    ) -> None:
        received = Received(message.topic, bytes(message.payload), message.retain)
        if self.ready:
            self._setup.deliver(received)
        else:
            self._early.append(received)

    def _on_disconnect(
        self,
        _client: object,
        _data: object,
        flags: mqtt.DisconnectFlags,
        code: ReasonCode,
        *_: object,
    ) -> None:
        # Called twice for one loss at times: it only notes the reason, `end` tells of the loss.
        if flags.is_disconnect_packet_from_server:
            self._reason = f"the broker said: {code}"
            self._taken_over = code.value == _TAKEN_OVER


def _no_link(link: Link, topic: str) -> NotConnected:
    return NotConnected(f"{topic}: no link to {link.address} at this moment")


def _send_at_once(_client: mqtt.Client, _userdata: object, sock: Any) -> None:
    # Without it a small QoS 1 round trip waits 40 ms for a delayed acknowledgement.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _leave_to_the_loop(_client: mqtt.Client, _userdata: object, _sock: object) -> None:
    """Our thread is awake already, and writes."""


class PahoTransport:
    """`Transport` to a real broker; keeps connecting, after 1 to 5 s, until `close`.

    `deliver` is called on the network thread. Nothing is Received before Connected, and nothing
    at all is delivered after `close` has returned. Raises ConfigError where a certificate file
    is not one.
    """

    def __init__(self, link: Link, deliver: Deliver, *, will: Will | None = None) -> None:
        self._setup = _Setup(link, deliver, will, tls_context(link) if link.address.tls else None)
        self._filters: dict[str, int] = {}
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self._closing = threading.Event()
        self._give_up_at = math.inf
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
        with self._lock:
            self._filters[topic_filter] = qos
            connection = self._connection
        if connection is not None:
            connection.subscribe(topic_filter, qos)

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
        connection = self._connection
        if connection is None:
            raise _no_link(self._setup.link, topic)
        properties = self._properties(expires_s, content_type)
        connection.publish(topic, payload, qos, retain, properties)

    def close(self) -> None:
        if self._closing.is_set() or not self._thread.is_alive():
            self._closing.set()
            return
        connection = self._connection
        if connection is None or not connection.ready:
            self._give_up_at = 0.0
            self._closing.set()
        else:
            connection.flush(_FLUSH_S)
            self._give_up_at = time.monotonic() + _GOODBYE_S
            self._closing.set()
            connection.say_goodbye()
        self._thread.join(_CONNECT_TIMEOUT_S + _FLUSH_S)

    def _properties(self, expires_s: float | None, content_type: str | None) -> Properties | None:
        if self._setup.link.protocol != 5 or (expires_s is None and content_type is None):
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if expires_s is not None:
            properties.MessageExpiryInterval = max(1, math.ceil(expires_s))
        if content_type is not None:
            properties.ContentType = content_type
        return properties

    # --- the network thread ---------------------------------------------------------------

    def _run(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self._closing.is_set():
            outcome = self._live_once()
            if self._closing.is_set():
                return
            self._tell(outcome)
            if isinstance(outcome, Disconnected):
                pause = _FIRST_PAUSE_S
            self._closing.wait(pause)
            pause = min(_LONGEST_PAUSE_S, 2 * pause)

    def _live_once(self) -> Disconnected | Refused:
        """One connection, from dialling to its end."""
        with self._lock:
            connection = _Connection(self._setup, dict(self._filters))
            self._connection = connection
        try:
            return self._serve(connection)
        finally:
            self._connection = None

    def _serve(self, connection: _Connection) -> Disconnected | Refused:
        try:
            connection.dial()
        except OSError as problem:
            return unreachable(self._setup.link, problem)
        try:
            while connection.turn() and time.monotonic() < self._give_up_at:
                pass
        except Exception:
            # A client whose callback raised is deaf while it looks connected: begin anew.
            log.exception("the link to %s failed; connecting again", self._setup.link.address)
        return connection.end()

    def _tell(self, outcome: Disconnected | Refused) -> None:
        log.debug("%s", outcome.reason)  # the owner says it as it sees fit
        self._setup.deliver(outcome)
