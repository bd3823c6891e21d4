"""One connection of paho's, from CONNECT to its end; only this module and its user import paho."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fogmqtt.errors import NotConnected, TooLarge
from fogmqtt.transport.base import (
    Connected,
    Disconnected,
    Published,
    Receipt,
    Received,
    Refused,
)
from fogmqtt.transport.link import Link, unshared
from fogmqtt.transport.optional import OptionalFilters
from fogmqtt.transport.refusals import filter_refused, hung_up, rejected
from fogmqtt.transport.setup import Filter, OutgoingMessage, Setup

log = logging.getLogger(__name__)

#: What a PUBLISH needs beside topic and payload: fixed header, packet id, our two properties.
OVERHEAD_BYTES: Final = 64
#: Unacknowledged messages on one connection. Mosquitto announces a Receive Maximum of 20, which
#: paho does not look at, and its queue of QoS 2 ends there. More would win nothing: the broker
#: acknowledges within a round trip, and 20 tiles fill any link.
MAX_INFLIGHT: Final = 20
CONNECT_TIMEOUT_S: Final = 5.0
#: Silence after which a SUBACK counts as dropped, the first time: what a broker has retained for
#: one filter may fill its queue for us, and then it drops even those.
_SUBACK_S: Final = 2.0
#: How long to wait for something to do while Connected is not said.
_SHORT_TURN_S: Final = 0.1
_TAKEN_OVER: Final = 0x8E
_numbers = count(1)


class Connection:
    """One connection from CONNECT to its end; never used again.

    `dial` and `turn` belong to the network thread, `subscribe`, `publish`, `acknowledge`, `flush`
    and `say_goodbye` to anybody. paho's callbacks come on the network thread, inside `turn`.
    `give_up` is told, on that thread, of an optional filter that is not granted, and why.
    """

    def __init__(
        self, setup: Setup, filters: dict[str, Filter], give_up: Callable[[str, str], None]
    ) -> None:
        self.number = next(_numbers)
        self._setup = setup
        self._filters = filters
        self._give_up = give_up
        self._optional = OptionalFilters(name for name, one in filters.items() if one.optional)
        self._changed = threading.Condition()
        self._asked: dict[int, str] = {}
        self._heard_at = time.monotonic()
        self._patience_s = _SUBACK_S
        self._handed = 0
        self._published = 0
        #: Whom to tell that a message is with the broker, by its number.
        self._awaited: dict[int, object] = {}
        #: Calls of publish() that have a token and did not return yet; and what the broker took
        #: meanwhile of nobody known.
        self._watching = 0
        self._untold: set[int] = set()
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
            self._client.connect_async(
                address.host,
                address.port,
                keepalive,
                clean_start=not self._setup.keeps_session,
                properties=self._session(),
            )
        else:
            self._client.connect_async(address.host, address.port, keepalive)
        self._client.reconnect()

    def turn(self) -> bool:
        """Wait up to a second for something to do, and do it; False when the link is gone."""
        code = self._client.loop(1.0 if self.ready else _SHORT_TURN_S)
        if code is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._reason = self._reason or mqtt.error_string(code)
            return False
        self._ask_again()
        self._proceed()
        return self.refusal is None

    def _ask_again(self) -> None:
        """Subscribe anew where the answer seems lost; twice as late each time."""
        if not self._asked or time.monotonic() - self._heard_at < self._patience_s:
            return
        log.info("%s did not answer: asking again", ", ".join(self._asked.values()))
        self._heard_at = time.monotonic()
        self._patience_s *= 2
        with self._changed:
            unanswered, self._asked = self._asked, {}
            for topic_filter in unanswered.values():
                self._ask(topic_filter, self._filters[topic_filter].qos)

    def end(self) -> Disconnected | Refused | None:
        """Close the socket; what became of the connection, None where only something optional."""
        with self._changed:
            was_ready, self.ready = self.ready, False
            blamed = self._optional.blamed(time.monotonic())
            self._changed.notify_all()
        if (sock := self._client.socket()) is not None:
            sock.close()
        if self.refusal is not None and not was_ready:
            return self.refusal
        if blamed is not None and not self._taken_over:
            self._give_up(blamed, f"it closed the connection on {blamed}: {self._reason}")
        if was_ready:
            return Disconnected(self._reason or "the connection broke", self._taken_over)
        if blamed is not None and not self._taken_over:
            return None
        if self._acknowledged:
            return Refused(f"{self._setup.link.address} hung up: {self._reason}")
        return hung_up(self._setup.link)

    # --- anybody --------------------------------------------------------------------------

    def subscribe(self, topic_filter: str, wanted: Filter) -> None:
        with self._changed:
            self._filters[topic_filter] = wanted
            if wanted.optional:
                self._optional.add(topic_filter)
            elif self._acknowledged:
                self._ask(topic_filter, wanted.qos)

    def publish(self, message: OutgoingMessage) -> None:
        """Raises NotConnected and TooLarge."""
        if not self.ready:
            raise no_link(self._setup.link, message.topic)
        size = len(message.topic.encode()) + len(message.payload) + OVERHEAD_BYTES
        if self._limit is not None and size > self._limit:
            raise TooLarge(
                f"{message.topic}: {size} bytes, but {self._setup.link.address} takes "
                f"{self._limit}; make tiles smaller (wire.max_message_bytes) or raise the broker's "
                "max_packet_size"
            )
        self._hand(message)

    def acknowledge(self, receipt: Receipt) -> None:
        """Tell the broker, unless it spoke of another connection's message."""
        if receipt.connection == self.number:
            self._client.ack(receipt.mid, 1)

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

    def _hand(self, message: OutgoingMessage) -> None:
        watched = message.token is not None
        with self._changed:
            self._handed += 1
            self._watching += watched
        # Not under our lock: paho calls back while it holds its own, which this needs.
        info = self._client.publish(
            message.topic, message.payload, message.qos, message.retain, message.properties
        )
        lost = info.rc is not MQTTErrorCode.MQTT_ERR_SUCCESS
        with self._changed:
            self._handed -= lost
            taken = watched and self._watch(info.mid, None if lost else message.token)
        if lost:
            raise no_link(self._setup.link, message.topic)
        if taken:
            self._setup.deliver(Published(message.token))

    def _watch(self, mid: int, token: object) -> bool:
        """Whether the broker has taken it before publish() had returned; under the lock."""
        taken = mid in self._untold
        if token is not None and not taken:
            self._awaited[mid] = token
        self._watching -= 1
        if not self._watching:
            self._untold.clear()
        return taken and token is not None

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
            # paho would acknowledge what we only have in memory.
            manual_ack=True,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
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
        self._heard_at = time.monotonic()
        with self._changed:
            self._acknowledged = True
            for topic_filter, wanted in self._filters.items():
                if not wanted.optional:
                    self._ask(topic_filter, wanted.qos)
        self._proceed()

    def _on_subscribe(
        self, _client: object, _data: object, mid: int, codes: list[ReasonCode], *_: object
    ) -> None:
        self._heard_at = time.monotonic()
        refused = next((code for code in codes if code.is_failure), None)
        with self._changed:
            optional = self._optional.answered(mid, None if refused else self._heard_at)
            topic_filter = self._asked.pop(mid, "?")
        if refused is not None and optional is not None:
            self._give_up(optional, f"it refused {optional}: {refused}")
        elif refused is not None:
            self.refusal = filter_refused(self._setup.link, topic_filter, str(refused))
            self._reason = self.refusal.reason
            log.error("%s", self.refusal.reason)
            return
        self._proceed()

    def _proceed(self) -> None:
        """Say Connected once every filter is in force; then what came before."""
        moment = time.monotonic()
        with self._changed:
            if self._asked or not self._acknowledged:
                return
            self._ask_optional(moment)
            overdue = self._optional.overdue(moment)
            # Before it is told: whoever hears it may publish at once.
            begins = not self.ready and not self._optional.holds_up(moment)
            self.ready = self.ready or begins
        if overdue is not None:
            self._give_up(overdue, f"it does not answer the subscription to {overdue}")
        if begins:
            self._begin()

    def _ask_optional(self, moment: float) -> None:
        topic_filter = self._optional.next()
        if topic_filter is None:
            return
        _, mid = self._client.subscribe(topic_filter, self._filters[topic_filter].qos)
        if mid is not None:
            self._optional.asked(mid, moment)

    def _begin(self) -> None:
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
            token = self._awaited.pop(mid, None)
            if token is None and self._watching:
                self._untold.add(mid)
            self._changed.notify_all()
        if token is not None:
            refusal = (
                f"the broker refused it: {code}; see its access list" if code.is_failure else ""
            )
            self._setup.deliver(Published(token, refusal))

    def _on_message(
        self, client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage
    ) -> None:
        self._heard_at = time.monotonic()
        receipt = None
        if message.qos == 1 and self._is_held(message.topic):
            receipt = Receipt(self.number, message.mid, message.dup)
        else:
            client.ack(message.mid, message.qos)
        received = Received(message.topic, bytes(message.payload), message.retain, receipt)
        if self.ready:
            self._setup.deliver(received)
        else:
            self._early.append(received)

    def _is_held(self, topic: str) -> bool:
        return any(
            mqtt.topic_matches_sub(unshared(topic_filter), topic)
            for topic_filter, wanted in self._filters.items()
            if wanted.hold
        )

    def _session(self) -> Properties | None:
        if not self._setup.keeps_session:
            return None
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._setup.link.session_s
        return properties

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


def no_link(link: Link, topic: str) -> NotConnected:
    return NotConnected(f"{topic}: no link to {link.address} at this moment")


def _send_at_once(_client: mqtt.Client, _userdata: object, sock: Any) -> None:
    # Without it a small QoS 1 round trip waits 40 ms for a delayed acknowledgement.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _leave_to_the_loop(_client: mqtt.Client, _userdata: object, _sock: object) -> None:
    """Our thread is awake already, and writes."""
