"""MQTT over paho: our own network thread around paho's public calls.

Each connection gets a client of its own. paho would carry unacknowledged messages over to the
next connection and send them first; after a loss the owner alone decides what is still true.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import Final

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fogmqtt.transport.base import Deliver, Disconnected, Receipt, Refused, Unavailable, Will
from fogmqtt.transport.connection import CONNECT_TIMEOUT_S, Connection, no_link
from fogmqtt.transport.link import Link
from fogmqtt.transport.refusals import unreachable
from fogmqtt.transport.setup import Filter, OutgoingMessage, Setup
from fogmqtt.transport.tls import tls_context

log = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 5.0
_FLUSH_S: Final = 2.0
_GOODBYE_S: Final = 0.5


class PahoTransport:
    """`Transport` to a real broker; keeps connecting, after 1 to 5 s, until `close`.

    `deliver` is called on the network thread. Nothing is Received before Connected, and nothing
    at all is delivered after `close` has returned. Raises ConfigError where a certificate file
    is not one.
    """

    def __init__(self, link: Link, deliver: Deliver, *, will: Will | None = None) -> None:
        self._setup = Setup(link, deliver, will, tls_context(link) if link.address.tls else None)
        self._filters: dict[str, Filter] = {}
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._closing = threading.Event()
        self._give_up_at = math.inf
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def subscribe(
        self, topic_filter: str, *, qos: int = 1, hold: bool = False, optional: bool = False
    ) -> None:
        if optional and topic_filter.startswith("$SYS/") and not self._setup.link.counters:
            self._setup.deliver(Unavailable(topic_filter, "it has no counters"))
            return
        # Of QoS 2 the broker is told before anybody can have a message on disk.
        wanted = Filter(min(qos, 1) if hold else qos, hold, optional)
        with self._lock:
            self._filters[topic_filter] = wanted
            connection = self._connection
        if connection is not None:
            connection.subscribe(topic_filter, wanted)

    def acknowledge(self, receipt: Receipt) -> None:
        connection = self._connection
        if connection is not None:
            connection.acknowledge(receipt)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expires_s: float | None = None,
        content_type: str | None = None,
        token: object = None,
    ) -> None:
        connection = self._connection
        if connection is None:
            raise no_link(self._setup.link, topic)
        properties = self._properties(expires_s, content_type)
        connection.publish(OutgoingMessage(topic, payload, qos, retain, properties, token))

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
        self._thread.join(CONNECT_TIMEOUT_S + _FLUSH_S)

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
            if outcome is None:
                continue
            self._tell(outcome)
            if isinstance(outcome, Disconnected):
                pause = _FIRST_PAUSE_S
            self._closing.wait(pause)
            pause = min(_LONGEST_PAUSE_S, 2 * pause)

    def _live_once(self) -> Disconnected | Refused | None:
        """One connection, from dialling to its end; None where to dial again at once."""
        with self._lock:
            connection = Connection(self._setup, dict(self._filters), self._give_up)
            self._connection = connection
        try:
            return self._serve(connection)
        finally:
            self._connection = None

    def _serve(self, connection: Connection) -> Disconnected | Refused | None:
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

    def _give_up(self, topic_filter: str, reason: str) -> None:
        """Never ask for this optional filter again."""
        with self._lock:
            self._filters.pop(topic_filter, None)
        if not self._closing.is_set():
            self._setup.deliver(Unavailable(topic_filter, reason))

    def _tell(self, outcome: Disconnected | Refused) -> None:
        log.debug("%s", outcome.reason)  # the owner says it as it sees fit
        self._setup.deliver(outcome)
