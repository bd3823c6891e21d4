"""Splits a stream of MQTT bytes into packets, for proxies that drop, repeat or change them."""

from __future__ import annotations

_PUBLISH, _PUBACK = 3, 4
_DUP = 0x08
_QOS = 0x06


class Framer:
    """Splits a stream into whole packets, and keeps an incomplete packet for the next call."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes and return the packets that are complete now."""
        self._rest += data
        packets = []
        while (length := _length(self._rest)) is not None and len(self._rest) >= length:
            packets.append(bytes(self._rest[:length]))
            del self._rest[:length]
        return packets

    def rest(self) -> bytes:
        """Return and drop the bytes of an incomplete packet."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest


def _length(data: bytearray) -> int | None:
    """Return the length of the first packet with its header, or None if it is not known yet."""
    size, shift = 0, 0
    for index in range(1, min(len(data), 5)):
        size |= (data[index] & 0x7F) << shift
        shift += 7
        if not data[index] & 0x80:
            return 1 + index + size
    return None


def is_publish(packet: bytes) -> bool:
    return packet[0] >> 4 == _PUBLISH


def is_puback(packet: bytes) -> bool:
    return packet[0] >> 4 == _PUBACK


def again(packet: bytes) -> bytes:
    """Return a PUBLISH as a sender repeats it: with the DUP flag, unless its QoS is 0."""
    return bytes((packet[0] | _DUP, *packet[1:2])) + packet[2:] if packet[0] & _QOS else packet


def is_qos_2(packet: bytes) -> bool:
    return packet[0] & _QOS == 0x04
