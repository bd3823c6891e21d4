"""The transport over MQTT: a network thread around paho's public functions.

Each connection has a paho client of its own. A single client would send its unacknowledged messages
first on the next connection, but after a loss only the owner knows which messages are still valid.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from typing import Final

import msgspec

from fogmqtt.errors import ConfigError
from fogmqtt.transport.base import (
    NO_PROPERTIES,
    Deliver,
    Disconnected,
    MessageProperties,
    Payload,
    Receipt,
    Refused,
    Unavailable,
    Will,
    packet_size,
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
from fogmqtt.transport.properties import pack
from fogmqtt.transport.refusals import final_of, unreachable
from fogmqtt.transport.retry_pause import RetryPause
from fogmqtt.transport.tls import tls_context

log = logging.getLogger(__name__)

#: Each pause between two attempts is up to so much shorter or longer, so that a broker that
#: restarts does not get all its clients at the same moment.
_JITTER: Final = 0.2
_FLUSH_S: Final = 2.0
_DISCONNECT_S: Final = 0.5
_CHANCE: Final = random.SystemRandom()
#: Seconds that `close` waits for the network thread while it is connected.
_JOIN_S: Final = 7.0
#: The same while it is not. An attempt to connect ends by itself, and nobody needs its outcome.
_JOIN_ATTEMPT_S: Final = 0.5


class PahoTransport:
    """A `Transport` to a real broker. It connects again, after 0.2 to 5 s, until
    `close`.

    If the link names several brokers, it tries them in order, and the next one after a loss. It
    reads certificates again for each connection.

    It calls `deliver` on the network thread. No Received comes before Connected, and no event after
    `close` has returned. Raises ConfigError if a certificate file is invalid.
    """

    def __init__(self, link: Link, deliver: Deliver, *, will: Will | None = None) -> None:
        self._brokers = [_settings(one, deliver, will) for one in link.each()]
        self._own_settings = None
        if link.own_url:
            self._own_settings = _settings(link.to_own(), deliver, will)
        #: Which broker is used, or will be tried next.
        self._turn = 0
        self._subscriptions: dict[str, Subscription] = {}
        #: The optional filters that each broker does not grant. They are not asked for there again.
        self._not_granted: list[set[str]] = [set() for _ in self._brokers]
        self._retry = RetryPause(link.connect_timeout_s)
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._closing = threading.Event()
        self._end_at = math.inf
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    @property
    def _settings(self) -> ConnectionSettings:
        return self._brokers[self._turn]

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
        properties: MessageProperties = NO_PROPERTIES,
        token: object = None,
    ) -> None:
        connection = self._connection
        if connection is None:
            raise not_connected(self._settings.link, topic)
        packed = None
        if self._settings.link.protocol == 5:
            packed = pack(expires_s, content_type, properties)
        else:
            properties = NO_PROPERTIES
        size = packet_size(topic, payload, properties)
        connection.publish(OutgoingMessage(topic, payload, qos, retain, packed, size, token))

    def ping(self) -> None:
        connection = self._connection
        if connection is None:
            raise not_connected(self._settings.link, "ping")
        connection.ping()

    def close(self) -> None:
        if self._closing.is_set() or not self._thread.is_alive():
            self._closing.set()
            return
        connection = self._connection
        if connection is None or not connection.ready:
            self._end_at = 0.0
            self._closing.set()
            self._thread.join(_JOIN_ATTEMPT_S)
        else:
            connection.flush(_FLUSH_S)
            self._end_at = time.monotonic() + _DISCONNECT_S
            self._closing.set()
            connection.disconnect()
            self._thread.join(_JOIN_S)

    # --- network thread -------------------------------------------------------------------

    def _run(self) -> None:
        #: The newest refusal of each broker since the last connection.
        refusals: list[Refused] = []
        while not self._closing.is_set():
            outcome = self._try_to_connect()
            if self._closing.is_set():
                return
            if outcome is None:
                continue
            self._turn = (self._turn + 1) % len(self._brokers)
            if isinstance(outcome, Disconnected):
                refusals.clear()
            else:
                refusals = [*refusals, outcome][-len(self._brokers) :]
                final = final_of(refusals) if len(refusals) == len(self._brokers) else None
                outcome = final or msgspec.structs.replace(outcome, final=False)
            self._deliver(outcome)
            if refusals and len(refusals) < len(self._brokers):
                continue  # another broker was not tried yet
            self._closing.wait(self._pause_s(outcome) * _CHANCE.uniform(1 - _JITTER, 1 + _JITTER))

    def _pause_s(self, outcome: Disconnected | Refused) -> float:
        if isinstance(outcome, Disconnected):
            return self._retry.after_loss(time.monotonic(), taken_over=outcome.taken_over)
        return self._retry.after_refusal(time.monotonic(), final=outcome.final)

    def _try_to_connect(self) -> Disconnected | Refused | None:
        """Run one connection. Whatever fails is said: without this thread the owner is mute."""
        try:
            return self._connect_once()
        except Exception as problem:
            log.exception("a connection to %s cannot be made", self._settings.link.address)
            return Refused(f"{type(problem).__name__}: {problem}", final=False)

    def _connect_once(self) -> Disconnected | Refused | None:
        """Run one connection from its start to its end; None: connect again at once."""
        settings = _with_certificates(self._reachable())
        with self._lock:
            subscriptions = {
                topic_filter: one
                for topic_filter, one in self._subscriptions.items()
                if topic_filter not in self._not_granted[self._turn]
            }
            connection = Connection(settings, subscriptions, self._give_up, self._retry.attempt_s)
            self._connection = connection
        try:
            return self._serve(connection, settings.link)
        finally:
            self._connection = None

    def _reachable(self) -> ConnectionSettings:
        """The configured broker, or the one that a gateway of this machine started instead."""
        settings, own = self._settings, self._own_settings
        if own is None or is_listening(settings.link.url) or not is_listening(own.link.url):
            return settings
        return own

    def _serve(self, connection: Connection, link: Link) -> Disconnected | Refused | None:
        try:
            connection.connect()
        except OSError as problem:
            return unreachable(link, problem)
        if self._closing.is_set():
            return connection.close()
        try:
            was_ready = False
            while connection.run_once() and time.monotonic() < self._end_at:
                if connection.ready and not was_ready:
                    self._retry.connected(time.monotonic())
                    was_ready = True
        except Exception:
            # A paho client whose callback raised delivers no more messages, although it stays
            # connected.
            log.exception("the connection to %s failed; connecting again", link.address)
        return connection.close()

    def _give_up(self, topic_filter: str, reason: str) -> None:
        """Do not subscribe to this optional filter again at this broker."""
        with self._lock:
            self._not_granted[self._turn].add(topic_filter)
        if not self._closing.is_set():
            self._settings.deliver(Unavailable(topic_filter, reason))

    def _deliver(self, outcome: Disconnected | Refused) -> None:
        log.debug("%s", outcome.reason)  # the owner decides what is logged above debug
        self._settings.deliver(outcome)


def _settings(link: Link, deliver: Deliver, will: Will | None) -> ConnectionSettings:
    """The settings of all connections to the broker of a link. Raises ConfigError."""
    tls = tls_context(link) if link.address.tls else None
    features, limit = BrokerFeatures(link.address), PacketLimit()
    return ConnectionSettings(link, deliver, will, tls, features, limit, [])


def _with_certificates(settings: ConnectionSettings) -> ConnectionSettings:
    """The settings with the certificates as they are on disk now: they may be renewed."""
    if settings.tls is None:
        return settings
    try:
        return msgspec.structs.replace(settings, tls=tls_context(settings.link))
    except ConfigError as problem:
        log.warning("%s; the earlier files are used until these can be read", problem)
        return settings
