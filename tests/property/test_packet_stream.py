"""Packets are the same however their bytes are split, and the same as those that paho reads."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from fogmqtt.transport.fast_client import FastClient
from fogmqtt.transport.packet_stream import (
    MAX_SMALL_BODY,
    InvalidPacket,
    OutgoingPacket,
    Packet,
    PacketReader,
    PacketWriter,
    StreamBroken,
)

SUCCESS = b"\x20\x03\x00\x00\x00"
#: Sizes at which a packet begins to be large, and others.
sizes = st.sampled_from([0, 1, 5, 100, 127, 128, MAX_SMALL_BODY - 20, 20_000, 70_000]) | (
    st.integers(MAX_SMALL_BODY - 3, MAX_SMALL_BODY + 3)
)
seeds = st.integers(0, 2**32)


class ScriptedStream:
    """A socket that gives and takes a random number of bytes, or none at that moment."""

    def __init__(self, incoming: bytes, seed: int) -> None:
        self.sent = b""
        #: Whether the connection ends after the incoming bytes.
        self.closes = False
        self._left = incoming
        self._random = random.Random(seed)

    @property
    def is_drained(self) -> bool:
        return not self._left

    def recv(self, size: int) -> bytes:
        if not self._left and self.closes:
            return b""
        if not self._left or self._random.random() < 0.2:
            raise BlockingIOError
        count = min(size, self._random.choice([1, 3, 100, 4000, 8192, 1 << 20]))
        data, self._left = self._left[:count], self._left[count:]
        return data

    def recv_into(self, buffer: memoryview) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes | memoryview) -> int:
        if self._random.random() < 0.2:
            raise BlockingIOError
        count = min(len(data), self._random.choice([1, 2, 100, 9000]))
        self.sent += data[:count]
        return count

    def close(self) -> None:
        """Nothing is open."""

    def fileno(self) -> int:
        return -1


def packet(first_byte: int, body: bytes) -> bytes:
    length, size = b"", len(body)
    while True:
        size, digit = divmod(size, 128)
        length += bytes((digit | (0x80 if size else 0),))
        if not size:
            return bytes((first_byte,)) + length + body


def read_all(stream: ScriptedStream) -> Iterator[Packet]:
    reader = PacketReader()
    while not stream.is_drained:
        yield from reader.read(stream)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 255), sizes), max_size=8), seeds)
def test_packets_do_not_depend_on_how_their_bytes_arrive(
    specs: list[tuple[int, int]], seed: int
) -> None:
    expected = [(first, random.Random(seed).randbytes(size)) for first, size in specs]
    stream = ScriptedStream(b"".join(packet(*each) for each in expected), seed)
    assert [(first, bytes(body)) for first, body in read_all(stream)] == expected


# What a client makes of the packets: the fast one and paho's own.


def publish(qos: int, size: int, *, retain: bool, is_mqtt5: bool) -> bytes:
    mid = b"\x00\x07" if qos else b""
    properties = b"\x05\x02\x00\x00\x00\x1e" if is_mqtt5 else b""
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    return packet(0x30 | qos << 1 | retain, b"\x00\x03a/b" + mid + properties + payload)


def events(client: mqtt.Client, incoming: bytes, seed: int) -> tuple[list[object], bytes]:
    """What a connected client tells its owner about the packets, and what it replies."""
    seen: list[object] = []
    stream = ScriptedStream(incoming, seed)
    client.on_message = lambda _client, _data, message: seen.append(
        (message.topic, bytes(message.payload), message.qos, message.retain, message.dup)
    )
    client.on_publish = lambda _client, _data, mid, code, _properties: seen.append((mid, str(code)))
    client.on_subscribe = lambda _client, _data, mid, codes, _properties: seen.append((mid, codes))
    client.on_socket_register_write = lambda *_: None
    client._sock = stream  # type: ignore[assignment]
    for qos in (1, 1, 2):
        client.publish("out", b"x" * 3000, qos)
    while not stream.is_drained or client.want_write():
        try:
            code = client.loop_read() or client.loop_write()
        except (UnicodeDecodeError, ValueError) as problem:  # the transport connects again
            code = type(problem)
        if code:
            seen.append(code)
            break
    return seen, stream.sent


def is_no_publish(first_byte: int) -> bool:
    return first_byte >> 4 != 3


packets_of_a_broker = st.one_of(
    st.tuples(st.just("publish"), st.integers(0, 2), sizes, st.booleans()),
    st.tuples(st.just("puback"), st.integers(1, 4)),
    st.tuples(st.just("refusal"), st.integers(1, 4)),
    st.just(("pubrel",)),
    st.just(("suback",)),
    st.just(("pingresp",)),
    st.just(("long topic",)),
    # What paho decodes for both, mostly malformed. It does not see a first byte of 0, and it checks
    # the properties of a PUBLISH of MQTT 5, which we skip.
    st.tuples(st.just("any"), st.integers(1, 255).filter(is_no_publish), st.binary(max_size=12)),
)


def as_bytes(spec: tuple[object, ...], *, is_mqtt5: bool) -> bytes:
    match spec:
        case ("publish", int(qos), int(size), bool(retain)):
            return publish(qos, size, retain=retain, is_mqtt5=is_mqtt5)
        case ("puback", int(mid)):
            return packet(0x40, mid.to_bytes(2))
        case ("refusal", int(mid)):
            return packet(0x40, mid.to_bytes(2) + (b"\x87\x00" if is_mqtt5 else b""))
        case ("pubrel",):
            return packet(0x62, b"\x00\x07")
        case ("suback",):
            return packet(0x90, b"\x00\x09" + (b"\x00" if is_mqtt5 else b"") + b"\x01")
        case ("pingresp",):
            return packet(0xD0, b"")
        case ("long topic",):
            return packet(0x32, b"\x00\xff a topic that is longer than the packet")
        case ("any", int(first_byte), bytes(body)):
            return packet(first_byte, body)
        case _:
            raise ValueError(spec)


@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311])
@settings(deadline=None)
@given(st.lists(packets_of_a_broker, max_size=8), st.booleans(), seeds)
def test_the_owner_and_the_broker_see_no_difference_from_paho(
    protocol: MQTTProtocolVersion, specs: list[tuple[object, ...]], manual_ack: bool, seed: int
) -> None:
    is_mqtt5 = protocol == MQTTProtocolVersion.MQTTv5
    incoming = b"".join(as_bytes(spec, is_mqtt5=is_mqtt5) for spec in specs)
    fast, plain = (
        events(
            kind(CallbackAPIVersion.VERSION2, protocol=protocol, manual_ack=manual_ack),
            incoming,
            seed,
        )
        for kind in (FastClient, mqtt.Client)
    )
    assert fast[0] == plain[0]
    # An error may come while replies wait, and those need not leave.
    assert fast[1] == plain[1] or isinstance(fast[0][-1], int | type)


# Bytes that are no packets.


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff\x01", b"\x80\x80\x80\x80\x00"])
def test_a_length_of_more_than_four_bytes_is_no_packet(length: bytes) -> None:
    with pytest.raises(InvalidPacket, match="four bytes"):
        list(read_all(ScriptedStream(b"\x30" + length, 1)))


@pytest.mark.parametrize("size", [2, 100, 50_000])
def test_a_connection_that_ends_within_a_packet_is_broken(size: int) -> None:
    stream = ScriptedStream(packet(0x30, bytes(size))[:-1], 1)
    reader = PacketReader()
    while not stream.is_drained:
        assert not list(reader.read(stream))
    stream.closes = True
    with pytest.raises(StreamBroken, match="closed"):
        list(reader.read(stream))


def test_an_announced_length_takes_no_memory_before_bytes_arrive() -> None:
    process, readers = psutil.Process(), []
    before = process.memory_info().rss
    for _ in range(8):
        readers.append(PacketReader())
        stream = ScriptedStream(b"\x30\xff\xff\xff\x7f" + bytes(100), 1)
        while not stream.is_drained:
            assert not list(readers[-1].read(stream))
    assert process.memory_info().rss - before < 64 * 1024 * 1024


def test_a_packet_of_64_megabytes_is_a_read_only_view() -> None:
    body = random.Random(1).randbytes(1 << 20) * 64
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    writer: PacketWriter[OutgoingPacket] = PacketWriter()
    whole = memoryview(packet(0x30, body))
    assert writer.put(OutgoingPacket((whole[:100], whole[100:])))
    reader, arrived = PacketReader(), list[Packet]()
    while not arrived:
        list(writer.write(theirs))
        arrived += reader.read(ours)
    ours.close()
    theirs.close()
    received = arrived[0].body
    assert isinstance(received, memoryview)
    assert received.readonly
    assert received == body


# Writing.


@settings(deadline=None)
@given(st.lists(st.lists(sizes, min_size=1, max_size=4), max_size=24), seeds, st.booleans())
def test_pieces_leave_in_order_however_much_the_socket_takes(
    lengths: list[list[int]], seed: int, gathers: bool
) -> None:
    chance = random.Random(seed)
    packets = [[b"head", *(chance.randbytes(size) for size in each)] for each in lengths]
    writer: PacketWriter[OutgoingPacket] = PacketWriter()
    outgoing = [OutgoingPacket(pieces) for pieces in packets]
    expected = b"".join(b"".join(pieces) for pieces in packets)
    assert [writer.put(each) for each in outgoing] == [index == 0 for index in range(len(outgoing))]
    sent = list[OutgoingPacket]()
    if gathers:
        arrived = send_over_a_socket(writer, sent)
    else:
        stream = ScriptedStream(b"", seed)
        while writer:
            sent += writer.write(stream)
        arrived = stream.sent
    assert arrived == expected
    assert sent == outgoing


def test_a_packet_of_more_pieces_than_the_kernel_takes_leaves() -> None:
    writer: PacketWriter[OutgoingPacket] = PacketWriter()
    writer.put(OutgoingPacket([b"ab"] * 3000))
    assert send_over_a_socket(writer, []) == b"ab" * 3000


def send_over_a_socket(writer: PacketWriter[OutgoingPacket], sent: list[OutgoingPacket]) -> bytes:
    near, far = socket.socketpair()
    near.setblocking(False)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
    arrived = b""
    while writer:
        sent += writer.write(near)
        arrived += far.recv(1 << 20) if writer else b""
    near.close()
    while data := far.recv(1 << 20):
        arrived += data
    far.close()
    return arrived
