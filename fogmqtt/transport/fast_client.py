"""paho's client with a reader and a writer that do not copy large packets.

paho copies what it receives six times and what it sends once for each call of `send`. This module
replaces how packets are read and written and how a PUBLISH is packed. All else is paho's: the
connection, acknowledgements, flow control and pings.

It uses private names of paho, so pyproject.toml names the version of paho, and
tests/unit/test_fast_client.py fails if one of the names has changed.
"""

from __future__ import annotations

import struct
import time
from contextlib import suppress
from typing import Any, Final, cast

from paho.mqtt import client as mqtt
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fogmqtt.transport.base import (
    MessageProperties,
    Payload,
    join_payload,
    payload_pieces,
    payload_size,
)
from fogmqtt.transport.packet_stream import (
    InvalidPacket,
    OutgoingPacket,
    Packet,
    PacketReader,
    PacketWriter,
    Stream,
    StreamBroken,
)
from fogmqtt.transport.properties import read
from fogmqtt.transport.websocket_client import WebSocketClient

_SUCCESS: Final = MQTTErrorCode.MQTT_ERR_SUCCESS
_PUBLISH, _PUBACK, _DISCONNECT = 0x30, 0x40, 0xE0
_QOS_BITS, _QOS_0_OR_1 = 0x06, (0x00, 0x02)
#: The bytes of a packet id.
_MID_BYTES = 2
_ACCEPTED: Final = ReasonCode(PacketTypes.PUBACK)
_NO_PROPERTIES: Final = Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]
#: A smaller payload is copied behind its header, so that small packets are one piece.
_MIN_PIECE_BYTES: Final = 2048


class PiecesForPaho(bytes):
    """A payload in pieces. paho takes it for empty bytes, and passes it on to `_send_publish`."""

    pieces: Payload = b""

    @classmethod
    def of(cls, payload: Payload) -> PiecesForPaho:
        wrapped = cls()
        wrapped.pieces = payload
        return wrapped


class _Outgoing(OutgoingPacket):
    """A packet, with what paho wants to know when it is sent."""

    def __init__(self, pieces: Any, kind: int, mid: int, qos: int, info: Any) -> None:
        super().__init__(pieces)
        self.kind = kind & 0xF0
        self.mid = mid
        self.qos = qos
        self.info = info


class FastClient(WebSocketClient):
    """A client for one connection. A payload over 8 kB arrives as a read-only view.

    Only one thread may call `loop`. `publish` takes a payload in pieces as PiecesForPaho.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._reader = PacketReader()
        self._writer: PacketWriter[_Outgoing] = PacketWriter()
        #: The network thread handles packets, and sends the replies afterwards without a wake-up.
        self._is_reading = False

    def limit_inflight(self, receive_maximum: int) -> None:
        """Let no more messages be unacknowledged at once than the broker's Receive Maximum.

        paho ignores it, and refuses to change its own limit on a connection. The broker may end the
        connection of a client that exceeds it.
        """
        self._max_inflight_messages = min(receive_maximum, self._max_inflight_messages)

    # --- reading --------------------------------------------------------------------------

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Handle all packets that have arrived, and send the replies."""
        del max_packets
        if self._sock is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        self._last_bytes_received = time.monotonic()
        self._is_reading = True
        try:
            code = self._handle_packets()
        finally:
            # Before the look at the queue: another thread wakes us for what it adds afterwards.
            self._is_reading = False
        if code > 0:
            return self._loop_rc_handle(code)
        if self._sock is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        return self.loop_write() if self._writer else _SUCCESS

    def _handle_packets(self) -> MQTTErrorCode:
        packets = self._reader.read(cast(Stream, self._sock))
        while self._sock is not None:
            try:
                packet = next(packets, None)
            except InvalidPacket:
                return MQTTErrorCode.MQTT_ERR_PROTOCOL
            except StreamBroken:
                return MQTTErrorCode.MQTT_ERR_CONN_LOST
            if packet is None:
                break
            if (code := self._handle(packet)) > 0:
                return code
        return _SUCCESS

    def _handle(self, packet: Packet) -> MQTTErrorCode:
        kind = packet.first_byte & 0xF0
        try:
            if kind == _PUBLISH and packet.first_byte & _QOS_BITS in _QOS_0_OR_1:
                return self._take_publish(packet)
            if kind == _PUBACK and len(packet.body) == _MID_BYTES:
                return self._take_puback(packet.body)
            return self._handle_as_paho(packet)
        except MalformedPacket:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL

    def _handle_as_paho(self, packet: Packet) -> MQTTErrorCode:
        """Let paho decode and handle a packet, which copies it."""
        self._in_packet["command"] = packet.first_byte
        self._in_packet["remaining_length"] = len(packet.body)
        self._in_packet["packet"] = bytearray(packet.body)
        try:
            return self._packet_handle()
        finally:
            self._in_packet["packet"] = bytearray()

    def _take_publish(self, packet: Packet) -> MQTTErrorCode:
        """Handle a PUBLISH of QoS 0 or 1 without a copy."""
        message = _decode_publish(packet, self._protocol)
        self._handle_on_message(message)
        if message.qos and not self._manual_ack:
            return self._send_puback(message.mid)
        return _SUCCESS

    def _take_puback(self, body: bytes | memoryview) -> MQTTErrorCode:
        """Handle a PUBACK that has only a packet id: the broker took the message.

        paho makes new objects for the reason and the properties that it does not have.
        """
        mid = int.from_bytes(body)
        with self._out_message_mutex:
            if mid not in self._out_messages:
                return _SUCCESS
            return self._do_on_publish(mid, _ACCEPTED, _NO_PROPERTIES)

    # --- writing --------------------------------------------------------------------------

    def want_write(self) -> bool:
        return bool(self._writer)

    def _send_publish(
        self,
        mid: int,
        topic: bytes,
        payload: bytes | bytearray = b"",
        qos: int = 0,
        retain: bool = False,
        dup: bool = False,
        info: mqtt.MQTTMessageInfo | None = None,
        properties: Properties | None = None,
    ) -> MQTTErrorCode:
        if self._sock is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        whole = payload.pieces if isinstance(payload, PiecesForPaho) else bytes(payload)
        header = struct.pack("!H", len(topic)) + topic
        if qos:
            header += struct.pack("!H", mid)
        if self._protocol == MQTTProtocolVersion.MQTTv5:
            header += b"\0" if properties is None else properties.pack()  # type: ignore[no-untyped-call]
        size = payload_size(whole)
        packet = bytearray((_PUBLISH | dup << 3 | qos << 1 | retain,))
        self._pack_remaining_length(packet, len(header) + size)
        packet += header
        if size < _MIN_PIECE_BYTES:
            packet += join_payload(whole)
            whole = ()
        self._put(_Outgoing((packet, *payload_pieces(whole)), _PUBLISH, mid, qos, info))
        return _SUCCESS

    def _packet_queue(
        self,
        command: int,
        packet: bytes | bytearray,
        mid: int,
        qos: int,
        info: mqtt.MQTTMessageInfo | None = None,
    ) -> MQTTErrorCode:
        self._put(_Outgoing((packet,), command, mid, qos, info))
        return _SUCCESS

    def _put(self, packet: _Outgoing) -> None:
        if not self._writer.put(packet) or self._is_reading or self._sockpairW is None:
            return
        with suppress(BlockingIOError):  # it is full of wake-ups
            self._sockpairW.send(b"0")

    def _packet_write(self) -> MQTTErrorCode:
        if self._sock is None:
            return _SUCCESS
        packets = self._writer.write(cast(Stream, self._sock))
        while self._sock is not None:
            try:
                packet = next(packets, None)
            except StreamBroken:
                return MQTTErrorCode.MQTT_ERR_CONN_LOST
            if packet is None:
                return MQTTErrorCode.MQTT_ERR_AGAIN if self._writer else _SUCCESS
            self._last_msg_out = time.monotonic()
            self._after_sending(packet)
        return _SUCCESS

    def _after_sending(self, packet: _Outgoing) -> None:
        if packet.kind == _PUBLISH and packet.qos == 0:
            on_publish: Any = self.on_publish
            if on_publish is not None:
                on_publish(self, self._userdata, packet.mid, _ACCEPTED, _NO_PROPERTIES)
            packet.info._set_as_published()
        elif packet.kind == _DISCONNECT:
            self._do_on_disconnect(packet_from_broker=False, v1_rc=_SUCCESS)
            self._sock_close()


def _decode_publish(packet: Packet, protocol: int) -> mqtt.MQTTMessage:
    """Return the message of a PUBLISH of QoS 0 or 1. Raises MalformedPacket."""
    body = packet.body
    qos = (packet.first_byte & _QOS_BITS) >> 1
    topic_end = 2 + int.from_bytes(body[:2])
    end = topic_end + 2 * qos
    if end > len(body) or (topic_end == 2 and protocol != MQTTProtocolVersion.MQTTv5):
        raise MalformedPacket("the PUBLISH ends within its topic")
    properties = None
    if protocol == MQTTProtocolVersion.MQTTv5:
        start, end = _place_of_properties(body, end)
        properties = _read_properties(body[start:end])
    mid = int.from_bytes(body[topic_end : topic_end + 2]) if qos else 0
    message = mqtt.MQTTMessage(mid, bytes(body[2:topic_end]))
    message.qos = qos
    message.dup = bool(packet.first_byte & 0x08)
    message.retain = bool(packet.first_byte & 0x01)
    # paho only passes these on.
    message.properties = properties  # type: ignore[assignment]
    message.payload = body[end:]  # type: ignore[assignment]
    message.timestamp = time.monotonic()
    return message


def _read_properties(block: bytes | memoryview) -> MessageProperties:
    try:
        return read(block)
    except ValueError as problem:
        raise MalformedPacket(str(problem)) from None


def _place_of_properties(body: bytes | memoryview, start: int) -> tuple[int, int]:
    """Return where properties begin behind their length and end. Raises MalformedPacket."""
    length = 0
    for index, byte in enumerate(body[start : start + 4]):
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            begin = start + index + 1
            if begin + length <= len(body):
                return begin, begin + length
            break
    raise MalformedPacket("the PUBLISH ends within its properties")
