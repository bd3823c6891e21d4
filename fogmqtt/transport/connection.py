"""One MQTT connection with paho, from CONNECT to its end.

Only this module, transport/paho.py, transport/fast_client.py and transport/websocket_client.py
import paho.
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any, Final, cast

from msgspec import Struct, structs
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fogmqtt.errors import NotConnected
from fogmqtt.transport.base import (
    MAX_SMALL_BYTES,
    NO_PROPERTIES,
    Connected,
    Deliver,
    Disconnected,
    MessageProperties,
    Payload,
    Pong,
    Published,
    Receipt,
    Received,
    Refused,
    Will,
    join_payload,
)
from fogmqtt.transport.fast_client import FastClient, PiecesForPaho
from fogmqtt.transport.features import BrokerFeatures
from fogmqtt.transport.link import Link, without_share
from fogmqtt.transport.link_watch import DEAD_S, PING_S, LinkWatch
from fogmqtt.transport.optional import OptionalFilters
from fogmqtt.transport.packet_limit import PacketLimit
from fogmqtt.transport.properties import PackedProperties
from fogmqtt.transport.refusals import (
    closed_without_answer,
    connack_failure,
    filter_refused,
    mute,
    no_suback,
    no_wildcards,
    too_large,
)
from fogmqtt.transport.websocket_client import WebSocketClient

log = logging.getLogger(__name__)

#: The maximum number of unacknowledged messages on one connection; a broker's Receive Maximum may
#: lower it. Mosquitto's QoS 2 queue ends there. A higher number gains nothing: the broker
#: acknowledges within a round trip, and 20 tiles fill any link.
MAX_INFLIGHT: Final = 20
#: Seconds without any packet after which a first SUBACK counts as lost. The retained messages of
#: one filter can fill the broker's queue for this client, and then the broker drops SUBACKs too.
_SUBACK_TIMEOUT_S: Final = 2.0
#: Seconds to wait for network events while Connected is not delivered.
_SHORT_TURN_S: Final = 0.1
#: Seconds until a connection that works is judged again. Packets may come every millisecond.
_JUDGE_S: Final = 0.05
_SESSION_TAKEN_OVER: Final = 0x8E
_PACKET_TOO_LARGE: Final = 0x95
#: Where `tcpi_last_ack_recv` and `tcpi_bytes_acked` are in Linux's `struct tcp_info` (linux/tcp.h).
_LAST_ACK_MS: Final = 56
_BYTES_ACKED: Final = 120
#: Seconds without an acknowledgement, and without a byte that arrives at the broker's machine,
#: while a packet is on its way that may be too large. Some brokers (RabbitMQ) read no more after
#: such a packet.
_DEAF_S: Final = 10.0
#: Its machine confirms our probes at least this often then. If it does not, the link is dead.
_PROBED_S: Final = 8.0
#: The largest packet of MQTT.
_MAX_PACKET_BYTES: Final = 268_435_455
_connection_numbers = count(1)


class OutgoingMessage(Struct, frozen=True):
    """A message to publish. The fields are those of `Transport.publish`."""

    topic: str
    payload: Payload
    qos: int
    retain: bool
    properties: PackedProperties | None
    #: The bytes of its packet, at most.
    size: int
    token: object = None


class ConnectionSettings(Struct, frozen=True):
    """The settings that all connections of one transport to one broker share."""

    link: Link
    deliver: Deliver
    will: Will | None
    tls: ssl.SSLContext | None
    #: What the broker lacks; only the network thread changes it.
    features: BrokerFeatures
    #: What all connections to it learned about its limit.
    packet_limit: PacketLimit
    #: The optional filters of which one ended the last connection; only the network thread
    #: changes it.
    suspects: list[str]

    @property
    def keeps_session(self) -> bool:
        """Whether the broker keeps unacknowledged messages after a lost connection."""
        return self.link.protocol == 5 and self.link.session_s > 0


class Subscription(Struct, frozen=True):
    """The options of a subscription, as in `Transport.subscribe`."""

    qos: int
    manual_ack: bool = False
    optional: bool = False


class Connection:
    """One connection from CONNECT to its end. It is never used again.

    Only the network thread calls `connect`, `run_once` and `close`. Any thread may call
    `subscribe`, `publish`, `acknowledge`, `flush` and `disconnect`. paho calls its callbacks on
    the network thread, within `run_once`. There it calls `unavailable` with an optional filter that
    the broker does not grant, and the reason.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        subscriptions: dict[str, Subscription],
        unavailable: Callable[[str, str], None],
        attempt_s: float,
    ) -> None:
        """`attempt_s`: seconds that opening the connection may take."""
        self.number = next(_connection_numbers)
        self._settings = settings
        self._subscriptions = subscriptions
        self._unavailable = unavailable
        self._optional = OptionalFilters(
            (name for name, subscription in subscriptions.items() if subscription.optional),
            settings.suspects,
        )
        #: Guards the fields below; notified when `flush` may continue.
        self._changed = threading.Condition()
        #: The filters that wait for their SUBACK, by packet id.
        self._pending_filters: dict[int, str] = {}
        self._last_packet_at = time.monotonic()
        self._suback_timeout_s = _SUBACK_TIMEOUT_S
        #: When the last CONNACK, SUBACK or message arrived.
        self._told_at = self._last_packet_at
        self._handed_over = 0
        self._acknowledged = 0
        self._packet_limit = settings.packet_limit
        #: When the last message was acknowledged or another byte arrived at the broker's machine,
        #: and how many had arrived by then.
        self._progress_at = time.monotonic()
        self._arrived_bytes: int | None = 0
        #: The tokens of unacknowledged messages, by packet id.
        self._tokens: dict[int, object] = {}
        #: The number of publish calls that have not returned, and the packet ids that the broker
        #: acknowledged meanwhile and that are not known yet, with its refusals.
        self._publishing = 0
        self._acknowledged_early: dict[int, str] = {}
        #: Messages that arrived before Connected was delivered.
        self._early_messages: list[Received] = []
        self._has_connack = False
        self._began_at = time.monotonic()
        self._watch = LinkWatch(self._began_at, settings.link.keepalive_s)
        self._attempt_s = attempt_s
        self._reason: str | None = None
        self._is_leaving = False
        #: Nothing came for so long that no packet is to blame for the end of the connection.
        self._is_dead = False
        #: The reason code of the broker's DISCONNECT, if it sent one.
        self._disconnect_code: int | None = None
        self.refusal: Refused | None = None
        #: It confirmed no subscription for long.
        self._is_unconfirmed = False
        #: The broker refused what the next connection does without.
        self._adapts = False
        #: When to judge the connection again.
        self._judge_at = self._began_at
        #: All subscriptions are confirmed and Connected was delivered.
        self.ready = False
        self._client = self._new_client()

    # --- network thread -------------------------------------------------------------------

    def connect(self) -> None:
        """Open the socket and send CONNECT. Raises OSError."""
        address = self._settings.link.address
        keepalive = self._settings.link.keepalive_s
        if self._settings.link.protocol == 5:
            self._client.connect_async(
                address.host,
                address.port,
                keepalive,
                clean_start=not self._settings.keeps_session,
                properties=self._session_properties(),
            )
        else:
            self._client.connect_async(address.host, address.port, keepalive)
        try:
            self._client.reconnect()
        except OSError:
            with self._changed:
                is_cleared = self._packet_limit.unreachable()
            if is_cleared:
                log.info(
                    "%s is away, so no packet was too large for it", self._settings.link.address
                )
            raise

    def run_once(self) -> bool:
        """Wait up to a second for network events and handle them.

        Returns False when the connection has ended.
        """
        code = self._client.loop(1.0 if self.ready else _SHORT_TURN_S)
        if code is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._reason = self._reason or self._loss(code)
            return False
        moment = time.monotonic()
        if self.ready and moment < self._judge_at:
            return self.refusal is None
        self._judge_at = moment + _JUDGE_S
        self._expect_answer()
        self._repeat_subscriptions()
        self._become_ready()
        if self._is_deaf():
            self._reason = f"it has acknowledged nothing for {_DEAF_S:g} s"
            return False
        if problem := self._watch_link():
            self._reason = problem
            self._is_dead = self._watch.silent_s(time.monotonic()) > DEAD_S
            return False
        return self.refusal is None

    def _loss(self, code: MQTTErrorCode) -> str:
        silent_s = self._watch.silent_s(time.monotonic())
        if code is not MQTTErrorCode.MQTT_ERR_CONN_LOST or silent_s < 2 * PING_S:
            return mqtt.error_string(code)
        self._is_dead = True
        return f"nothing came from it for {silent_s:.0f} s, and it confirms no bytes"

    def _watch_link(self) -> str:
        """Ping the broker if it is time. Returns why the connection is dead; empty if it lives."""
        if not self._has_connack:
            return ""
        moment = time.monotonic()
        with self._changed:
            self._watch.look(moment, self._client.heard_at)
            problem = self._watch.problem(moment)
            is_due = not problem and self._watch.needs_ping(moment)
            if is_due:
                self._watch.pinged(moment)
        if is_due:
            self._client.ping()
        return problem

    def _expect_answer(self) -> None:
        """Give up a program that accepts the connection, or the client, and then says nothing."""
        link = self._settings.link
        waited_s = time.monotonic() - self._began_at
        if not self._has_connack and waited_s > link.connect_timeout_s and self.refusal is None:
            self.refusal = mute(link)
        if not self._has_connack or self.ready or self.refusal is not None:
            return
        silent_s = time.monotonic() - self._told_at
        if self._pending_filters and silent_s > max(link.connect_timeout_s, 2 * _SUBACK_TIMEOUT_S):
            self._is_unconfirmed = True
            self.refusal = no_suback(link, list(self._pending_filters.values()))

    def _is_deaf(self) -> bool:
        """Whether the broker seems to read no more because a packet is too large for it."""
        with self._changed:
            if not self._packet_limit.waits_for_large:
                self._progress_at = time.monotonic()
                return False
            arrived_bytes, confirmed_s = _tcp_state(self._client.socket())
            if arrived_bytes is None or arrived_bytes != self._arrived_bytes:
                self._progress_at, self._arrived_bytes = time.monotonic(), arrived_bytes
            is_alive = confirmed_s < _PROBED_S
            return is_alive and time.monotonic() - self._progress_at > _DEAF_S

    def _repeat_subscriptions(self) -> None:
        """Subscribe again if a SUBACK seems lost. Each repetition waits twice as long."""
        is_due = time.monotonic() - self._last_packet_at >= self._suback_timeout_s
        if not self._pending_filters or not is_due:
            return
        log.info("no SUBACK for %s: subscribing again", ", ".join(self._pending_filters.values()))
        self._last_packet_at = time.monotonic()
        self._suback_timeout_s *= 2
        with self._changed:
            pending, self._pending_filters = self._pending_filters, {}
            for topic_filter in pending.values():
                self._send_subscribe(topic_filter, self._subscriptions[topic_filter].qos)

    def close(self) -> Disconnected | Refused | None:
        """Close the socket and return how the connection ended.

        None: the broker closed it because of an optional subscription, or refused a will or client
        id, so the next connection, which adapts, may begin at once.
        """
        with self._changed:
            was_ready, self.ready = self.ready, False
            suspects = []
            if not self._packet_limit.suspects_packet and not self._is_taken_over:
                suspects = self._optional.suspects(time.monotonic())
            if self._has_connack and (self.refusal is None or self._is_unconfirmed):
                self._settings.features.lost_before_answer(list(self._pending_filters.values()))
            self._changed.notify_all()
        self._learn_packet_limit()
        if (sock := self._client.socket()) is not None:
            sock.close()
        if self.refusal is not None and not was_ready:
            return None if self._adapts else self.refusal
        self._judge(suspects, was_ready=was_ready)
        if was_ready:
            return Disconnected(self._reason or "the connection broke", self._is_taken_over)
        if suspects:
            return None
        if self._has_connack:
            address = self._settings.link.address
            return Refused(f"{address} closed the connection: {self._reason}")
        return closed_without_answer(self._settings.link)

    def _judge(self, suspects: list[str], *, was_ready: bool) -> None:
        """Give up the optional filter that ended the connection, or let the next one find it."""
        if len(suspects) == 1:
            (culprit,) = suspects
            reason = f"it closed the connection after the subscription to {culprit}: {self._reason}"
            self._unavailable(culprit, reason)
        if suspects or was_ready:
            self._settings.suspects[:] = suspects if len(suspects) > 1 else []

    @property
    def _is_taken_over(self) -> bool:
        return self._disconnect_code == _SESSION_TAKEN_OVER

    def _learn_packet_limit(self) -> None:
        """Judge by the end of the connection whether a packet was too large for the broker."""
        code = self._disconnect_code
        if self._is_leaving or self._is_dead or code not in (None, _PACKET_TOO_LARGE):
            return
        with self._changed:
            refused = self._packet_limit.lost(time.monotonic(), is_certain=code is not None)
        if refused is None:
            return
        log.warning(
            "%s ended the connection while a packet of %d bytes was on its way, and it has never "
            "acknowledged one of that size: tiles and results stay below %d bytes from now on "
            "(wire.max_message_bytes sets that from the start; the broker's max_packet_size is "
            "its limit)",
            self._settings.link.address,
            refused,
            self._packet_limit.soft,
        )

    # --- any thread -----------------------------------------------------------------------

    def subscribe(self, topic_filter: str, subscription: Subscription) -> None:
        """Subscribe now, or after the CONNACK if it has not arrived."""
        with self._changed:
            self._subscriptions[topic_filter] = subscription
            if subscription.optional:
                self._optional.add(topic_filter)
            elif self._has_connack:
                self._send_subscribe(topic_filter, subscription.qos)

    def publish(self, message: OutgoingMessage) -> None:
        """Hand the message to paho. Raises NotConnected and TooLarge."""
        if not self.ready:
            raise not_connected(self._settings.link, message.topic)
        message, size = self._without_lacking(message), message.size
        limit = min(self._packet_limit.hard or _MAX_PACKET_BYTES, _MAX_PACKET_BYTES)
        if size > limit:
            raise too_large(
                self._settings.link,
                message.topic,
                size,
                limit,
                is_announced=self._packet_limit.is_announced,
            )
        self._hand_over(message, size)

    def acknowledge(self, receipt: Receipt) -> None:
        """Acknowledge a message to the broker, if it arrived on this connection."""
        if receipt.connection == self.number:
            self._client.ack(receipt.packet_id, 1)

    def ping(self) -> None:
        """Ping the broker and deliver Pong after its answer. Raises NotConnected."""
        if not self.ready:
            raise not_connected(self._settings.link, "ping")
        with self._changed:
            self._watch.pinged(time.monotonic(), asked=True)
        self._client.ping()

    def flush(self, timeout_s: float) -> None:
        """Wait until all messages are sent (QoS 0) or acknowledged, or the connection is lost."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self.ready or self._acknowledged >= self._handed_over, timeout_s
            )

    def disconnect(self) -> None:
        """Send DISCONNECT, after which the broker drops the last will."""
        self._is_leaving = True
        self._client.disconnect()

    # --- internals ------------------------------------------------------------------------

    def _without_lacking(self, message: OutgoingMessage) -> OutgoingMessage:
        """The message without what the broker does not have: a QoS, or retained messages."""
        features = self._settings.features
        qos, retain = min(message.qos, features.max_qos), message.retain and features.has_retain
        if qos == message.qos and retain == message.retain:
            return message
        return structs.replace(message, qos=qos, retain=retain)

    def _hand_over(self, message: OutgoingMessage, size: int) -> None:
        with self._changed:
            self._handed_over += 1
            self._publishing += 1
        # Outside the lock: paho calls back while it holds its own lock, and the callback takes
        # this one.
        is_fast = isinstance(self._client, FastClient)
        payload = PiecesForPaho.of(message.payload) if is_fast else join_payload(message.payload)
        info = self._client.publish(
            message.topic,
            payload,
            message.qos,
            message.retain,
            cast("Properties | None", message.properties),
        )
        is_lost = info.rc is not MQTTErrorCode.MQTT_ERR_SUCCESS
        with self._changed:
            self._handed_over -= is_lost
            refusal = self._acknowledged_early.pop(info.mid, None)
            if not is_lost:
                self._remember(info.mid, message, size, refusal)
            self._publishing -= 1
            if not self._publishing:
                self._acknowledged_early.clear()
        if is_lost:
            raise not_connected(self._settings.link, message.topic)
        if refusal is not None and message.token is not None:
            self._settings.deliver(Published(message.token, refusal))

    def _remember(
        self, packet_id: int, message: OutgoingMessage, size: int, refusal: str | None
    ) -> None:
        """Remember a message that is on its way. The caller holds the lock.

        `refusal` is None unless the broker acknowledged it before paho's publish returned.
        """
        has_ack = message.qos > 0
        self._packet_limit.sent(packet_id, size, has_ack=has_ack)
        if refusal is None:
            if has_ack:
                self._watch.sent(packet_id, size, time.monotonic())
            if message.token is not None:
                self._tokens[packet_id] = message.token
        elif has_ack and not refusal:
            self._packet_limit.acknowledged(packet_id)

    def _send_subscribe(self, topic_filter: str, qos: int) -> None:
        actual = self._settings.features.subscription(topic_filter)
        _, packet_id = self._client.subscribe(actual, qos)
        if packet_id is not None:
            self._pending_filters[packet_id] = topic_filter

    def _new_client(self) -> WebSocketClient:
        settings = self._settings
        is_mqtt5 = settings.link.protocol == 5
        client = (FastClient if settings.link.client == "fast" else WebSocketClient)(
            CallbackAPIVersion.VERSION2,
            client_id=settings.features.client_id(settings.link.client_id),
            clean_session=None if is_mqtt5 else True,
            # Otherwise paho acknowledges messages that exist only in memory.
            manual_ack=True,
            protocol=MQTTProtocolVersion.MQTTv5 if is_mqtt5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._attempt_s
        if settings.link.address.path:
            client.websocket_address = settings.link.address
        client.max_inflight_messages = MAX_INFLIGHT
        if settings.link.credentials:
            client.username_pw_set(*settings.link.credentials)
        if settings.tls is not None:
            client.tls_set_context(settings.tls)
        if settings.will is not None:
            qos, retain = min(1, settings.features.max_qos), settings.features.has_retain
            client.will_set(settings.will.topic, settings.will.payload, qos=qos, retain=retain)
        self._set_callbacks(client)
        return client

    def _set_callbacks(self, client: WebSocketClient) -> None:
        client.on_ping_answered = self._on_ping_answered
        client.on_socket_open = _disable_nagle
        # With this callback, publish() never writes to the socket itself. It only wakes the
        # network thread.
        client.on_socket_register_write = _write_in_loop
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect

    def _on_connect(
        self,
        client: mqtt.Client,
        _userdata: object,
        _flags: mqtt.ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        features = self._settings.features
        if code.is_failure:
            self.refusal = connack_failure(self._settings.link, code.value, str(code))
            self._adapts = features.connect_refused(code.value, self._settings.link.client_id)
            return
        features.announced(properties)
        for topic_filter, subscription in self._subscriptions.items():
            if not subscription.optional and not features.grants(topic_filter):
                self.refusal = no_wildcards(self._settings.link, topic_filter)
                return
        receive_maximum = getattr(properties, "ReceiveMaximum", None)
        if receive_maximum is not None and isinstance(client, FastClient):
            client.limit_inflight(receive_maximum)
        self._told_at = self._last_packet_at = time.monotonic()
        with self._changed:
            announced = getattr(properties, "MaximumPacketSize", None)
            self._packet_limit.connected(announced, self._last_packet_at)
            self._has_connack = True
            for topic_filter, subscription in self._subscriptions.items():
                if not subscription.optional:
                    self._send_subscribe(topic_filter, subscription.qos)
        self._become_ready()

    def _on_subscribe(
        self, _client: object, _data: object, mid: int, codes: list[ReasonCode], *_: object
    ) -> None:
        self._told_at = self._last_packet_at = time.monotonic()
        refused = next((code for code in codes if code.is_failure), None)
        with self._changed:
            optional = self._optional.answered(mid, None if refused else self._last_packet_at)
            topic_filter = self._pending_filters.pop(mid, "?")
            if refused is not None and self._settings.features.share_refused(topic_filter):
                self._send_subscribe(topic_filter, self._subscriptions[topic_filter].qos)
                return
        if refused is not None and optional is not None:
            self._unavailable(optional, f"it refused the subscription to {optional}: {refused}")
        elif refused is not None:
            actual = self._settings.features.subscription(topic_filter)
            self.refusal = filter_refused(self._settings.link, actual, str(refused))
            self._reason = self.refusal.reason
            log.error("%s", self.refusal.reason)
            return
        self._become_ready()

    def _become_ready(self) -> None:
        """Deliver Connected once all subscriptions are confirmed; then try the optional ones.

        Connected waits a moment for the answers to those.
        """
        moment = time.monotonic()
        with self._changed:
            if self._pending_filters or not self._has_connack or self.refusal is not None:
                return
            self._settings.features.answered()
            self._send_optional(moment)
            overdue = self._optional.overdue(moment)
            becomes_ready = not self.ready and not self._optional.delays_connected(moment)
            # Before Connected is delivered, because its receiver may publish at once.
            self.ready = self.ready or becomes_ready
        if overdue is not None:
            self._unavailable(overdue, f"it did not answer the subscription to {overdue}")
        if becomes_ready:
            self._deliver_connected()

    def _send_optional(self, moment: float) -> None:
        topic_filter = self._optional.next(moment)
        if topic_filter is None:
            return
        _, packet_id = self._client.subscribe(topic_filter, self._subscriptions[topic_filter].qos)
        if packet_id is not None:
            self._optional.sent(packet_id, moment)

    def _deliver_connected(self) -> None:
        self._settings.deliver(Connected(self._packet_limit.soft, self._settings.link.url))
        for message in self._early_messages:
            self._settings.deliver(message)
        self._early_messages.clear()

    def _on_publish(
        self, _client: object, _data: object, mid: int, code: ReasonCode, *_: object
    ) -> None:
        refusal = ""
        if code.is_failure:
            log.warning("the broker refused message %d: %s; check its acl", mid, code)
            refusal = f"the broker refused it: {code}; check its acl"
        with self._changed:
            self._acknowledged += 1
            self._progress_at = time.monotonic()
            self._watch.acknowledged(mid, self._progress_at)
            token = self._tokens.pop(mid, None)
            if not refusal:
                self._packet_limit.acknowledged(mid)
            if token is None and self._publishing:
                self._acknowledged_early[mid] = refusal
            self._changed.notify_all()
        if token is not None:
            self._settings.deliver(Published(token, refusal))

    def _on_message(
        self, client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage
    ) -> None:
        self._told_at = self._last_packet_at = time.monotonic()
        receipt = None
        if message.qos == 1 and self._needs_manual_ack(message.topic):
            receipt = Receipt(self.number, message.mid, message.dup)
        else:
            client.ack(message.mid, message.qos)
        # paho's type has no memoryview, which FastClient passes.
        payload = cast("bytes | memoryview", message.payload)
        if len(payload) <= MAX_SMALL_BYTES:
            payload = bytes(payload)
        received = Received(
            message.topic, payload, message.retain, receipt, properties=_properties_of(message)
        )
        if self.ready:
            self._settings.deliver(received)
        else:
            self._early_messages.append(received)

    def _on_ping_answered(self) -> None:
        with self._changed:
            sent_at = self._watch.answered()
        if sent_at is not None:
            self._settings.deliver(Pong(sent_at))

    def _needs_manual_ack(self, topic: str) -> bool:
        return any(
            mqtt.topic_matches_sub(without_share(topic_filter), topic)
            for topic_filter, subscription in self._subscriptions.items()
            if subscription.manual_ack
        )

    def _session_properties(self) -> Properties | None:
        if not self._settings.keeps_session:
            return None
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._settings.link.session_s
        return properties

    def _on_disconnect(
        self,
        _client: object,
        _data: object,
        flags: mqtt.DisconnectFlags,
        code: ReasonCode,
        *_: object,
    ) -> None:
        # paho may call this twice for one loss, so it only records the reason. `close` returns it.
        if flags.is_disconnect_packet_from_server:
            self._reason = f"the broker disconnected: {code}"
            self._disconnect_code = code.value


def not_connected(link: Link, topic: str) -> NotConnected:
    """Return the error for a message that cannot be published without a connection."""
    return NotConnected(f"{topic}: no connection to {link.address} at this moment")


def _properties_of(message: mqtt.MQTTMessage) -> MessageProperties:
    """Return what is used of a message's properties, whichever client read them."""
    match message.properties:
        case None:
            return NO_PROPERTIES
        case Properties() as properties:
            pairs = getattr(properties, "UserProperty", [])
            user = dict(reversed(pairs))
            return MessageProperties(
                response_topic=getattr(properties, "ResponseTopic", ""),
                correlation=getattr(properties, "CorrelationData", b""),
                traceparent=user.get("traceparent", ""),
                content_type=getattr(properties, "ContentType", ""),
                user=tuple(pair for pair in pairs if pair[0] != "traceparent"),
            )
        case read:
            return cast("MessageProperties", read)


def _disable_nagle(_client: mqtt.Client, _userdata: object, sock: Any) -> None:
    # Otherwise a small QoS 1 round trip waits 40 ms for a delayed acknowledgement.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _write_in_loop(_client: mqtt.Client, _userdata: object, _sock: object) -> None:
    """Do nothing: the network thread is awake already and writes."""


def _tcp_state(sock: Any) -> tuple[int | None, float]:
    """Return the bytes that the broker's machine confirmed, and the seconds since it last did.

    None and 0 where the system does not tell.
    """
    if sock is None or not hasattr(socket, "TCP_INFO"):
        return None, 0.0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + 8)
        (confirmed_ms,) = struct.unpack_from("I", info, _LAST_ACK_MS)
        return int(struct.unpack_from("Q", info, _BYTES_ACKED)[0]), confirmed_ms / 1000
    except (OSError, struct.error):
        return None, 0.0
