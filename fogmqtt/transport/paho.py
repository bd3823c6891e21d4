"""The transport over MQTT: a network thread around paho's public functions.

Each connection has a paho client of its own. A single client would send its unacknowledged messages
first on the next connection, but after a loss only the owner knows which messages are still valid.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import replace
from typing import Final

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fogmqtt.transport.base import (
    Deliver,
    Disconnected,
    Payload,
    Receipt,
    Refused,
    Unavailable,
    Will,
)
from fogmqtt.transport.connection import (
    Connection,
    ConnectionSettings,
    OutgoingMessage,
    Subscription,
    not_connected,
)
from fogmqtt.transport.features import BrokerFeatures
from fogmqtt.transport.link import Link
from fogmqtt.transport.packet_limit import PacketLimit
from fogmqtt.transport.probe import is_listening
from fogmqtt.transport.refusals import unreachable
from fogmqtt.transport.tls import tls_context

log = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 5.0
_FLUSH_S: Final = 2.0
_DISCONNECT_S: Final = 0.5
#: Seconds that `close` waits for the network thread, which may be connecting.
_JOIN_S: Final = 7.0


class PahoTransport:
    """A `Transport` to a real broker. It connects again, after 1 to 5 s, until `close`.

    It calls `deliver` on the network thread. No Received comes before Connected, and no event after
    `close` has returned. Raises ConfigError if a certificate file is invalid.
    """

    def __init__(self, link: Link, deliver: Deliver, *, will: Will | None = None) -> None:
        tls = tls_context(link) if link.address.tls else None
        self._settings = ConnectionSettings(link, deliver, will, tls, BrokerFeatures(link.address))
        self._own_settings = _own(self._settings) if link.own_url else None
        self._subscriptions: dict[str, Subscription] = {}
        self._packet_limit = PacketLimit()
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._closing = threading.Event()
        self._end_at = math.inf
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def subscribe(
        self, topic_filter: str, *, qos: int = 1, manual_ack: bool = False, optional: bool = False
    ) -> None:
        is_counter = topic_filter.startswith("$SYS/")
        if optional and is_counter and not self._settings.link.has_counters:
            self._settings.deliver(Unavailable(topic_filter, "it has no counters"))
            return
        # At QoS 2, paho acknowledges a message before the owner can have it on disk.
        subscription = Subscription(min(qos, 1) if manual_ack else qos, manual_ack, optional)
        with self._lock:
            self._subscriptions[topic_filter] = subscription
            connection = self._connection
        if connection is not None:
            connection.subscribe(topic_filter, subscription)

    def acknowledge(self, receipt: Receipt) -> None:
        connection = self._connection
        if connection is not None:
            connection.acknowledge(receipt)

    def publish(
        self,
        topic: str,
        payload: Payload,
        *,
        qos: int = 1,
        retain: bool = False,
        expires_s: float | None = None,
        content_type: str | None = None,
        token: object = None,
    ) -> None:
        connection = self._connection
        if connection is None:
            raise not_connected(self._settings.link, topic)
        properties = self._properties(expires_s, content_type)
        connection.publish(OutgoingMessage(topic, payload, qos, retain, properties, token))

    def close(self) -> None:
        if self._closing.is_set() or not self._thread.is_alive():
            self._closing.set()
            return
        connection = self._connection
        if connection is None or not connection.ready:
            self._end_at = 0.0
            self._closing.set()
        else:
            connection.flush(_FLUSH_S)
            self._end_at = time.monotonic() + _DISCONNECT_S
            self._closing.set()
            connection.disconnect()
        self._thread.join(_JOIN_S)

    def _properties(self, expires_s: float | None, content_type: str | None) -> Properties | None:
        if self._settings.link.protocol != 5 or (expires_s is None and content_type is None):
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if expires_s is not None:
            properties.MessageExpiryInterval = max(1, math.ceil(expires_s))
        if content_type is not None:
            properties.ContentType = content_type
        return properties

    # --- network thread -------------------------------------------------------------------

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._closing.is_set():
            outcome = self._connect_once()
            if self._closing.is_set():
                return
            if outcome is None:
                continue
            self._deliver(outcome)
            if isinstance(outcome, Disconnected):
                pause_s = _FIRST_PAUSE_S
            self._closing.wait(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    def _connect_once(self) -> Disconnected | Refused | None:
        """Run one connection from its start to its end; None: connect again at once."""
        settings = self._reachable()
        with self._lock:
            subscriptions = dict(self._subscriptions)
            connection = Connection(settings, subscriptions, self._packet_limit, self._give_up)
            self._connection = connection
        try:
            return self._serve(connection, settings.link)
        finally:
            self._connection = None

    def _reachable(self) -> ConnectionSettings:
        """The configured broker, or the one that a gateway of this machine started instead."""
        link, own = self._settings.link, self._own_settings
        if own is None or is_listening(link.url) or not is_listening(own.link.url):
            return self._settings
        return own

    def _serve(self, connection: Connection, link: Link) -> Disconnected | Refused | None:
        try:
            connection.connect()
        except OSError as problem:
            return unreachable(link, problem)
        try:
            while connection.run_once() and time.monotonic() < self._end_at:
                pass
        except Exception:
            # A paho client whose callback raised delivers no more messages, although it stays
            # connected.
            log.exception("the connection to %s failed; connecting again", link.address)
        return connection.close()

    def _give_up(self, topic_filter: str, reason: str) -> None:
        """Do not subscribe to this optional filter again."""
        with self._lock:
            self._subscriptions.pop(topic_filter, None)
        if not self._closing.is_set():
            self._settings.deliver(Unavailable(topic_filter, reason))

    def _deliver(self, outcome: Disconnected | Refused) -> None:
        log.debug("%s", outcome.reason)  # the owner decides what is logged above debug
        self._settings.deliver(outcome)


def _own(settings: ConnectionSettings) -> ConnectionSettings:
    """The settings for a broker that a gateway of this machine started: it keeps no session."""
    link = replace(settings.link, url=settings.link.own_url, session_s=0)
    return replace(settings, link=link, features=BrokerFeatures(link.address))
