"""Strict brokers: relays that grant no `$SYS` or `$share`, or take short client ids only."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.packets import Framer, is_publish
from tests.relay import Relay

#: Close the connection; close it after the SUBACK; refuse in the SUBACK; do not answer.
CUT, CUT_LATE, REFUSE, SILENT = "cut", "cut late", "refuse", "silent"
WAYS = (CUT, CUT_LATE, REFUSE, SILENT)
_CONNECT, _SUBSCRIBE, _SUBACK = 1, 8, 9
_BAD_ID_5, _BAD_ID_3 = b"\x20\x03\x00\x85\x00", b"\x20\x02\x00\x02"
_NOT_AUTHORISED_5, _FAILURE_3 = b"\x90\x04%b\x00\x87", b"\x90\x03%b\x80"


class Strict(Relay):
    """Passes everything on; a subscription to `prefix` is dealt with in one of the ways.

    For one client: the numbers of its packets are told apart from nobody else's.
    """

    def __init__(self, target: int, way: str, prefix: bytes = b"$SYS/") -> None:
        self._way = way
        self._prefix = prefix
        self._refusal = _FAILURE_3
        #: The number of the SUBSCRIBE whose SUBACK is the last packet that passes.
        self._last = b""
        #: Connections, and subscriptions to the prefix, so far.
        self.connections = self.asked = 0
        super().__init__(target)

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        framer = Framer()
        while data := source.recv(65_536):
            for packet in framer.feed(data):
                if not self._pass(packet, source, sink):
                    return  # the relay closes both sides

    def _pass(self, packet: bytes, source: socket.socket, sink: socket.socket) -> bool:
        """Deal with a packet; whether the connection goes on."""
        kind = packet[0] >> 4
        if kind == _CONNECT:
            self.connections += 1
            self._last = b""
            self._refusal = _NOT_AUTHORISED_5 if packet[8] == 5 else _FAILURE_3
        if kind == _SUBSCRIBE and self._prefix in packet:
            return self._deal_with(packet, source, sink)
        sink.sendall(packet)
        return not (kind == _SUBACK and packet[2:4] == self._last)

    def _deal_with(self, packet: bytes, source: socket.socket, sink: socket.socket) -> bool:
        self.asked += 1
        number = packet[2:4]
        if self._way == CUT_LATE:
            self._last = number
            sink.sendall(packet)
        elif self._way == REFUSE:
            source.sendall(self._refusal % number)
        return self._way != CUT


@contextmanager
def strict(target: int, way: str, prefix: bytes = b"$SYS/") -> Iterator[Strict]:
    """Such a relay to a loopback port, closed after."""
    one = Strict(target, way, prefix)
    try:
        yield one
    finally:
        one.close()


class Forgetful(Relay):
    """Passes no retained message on: some brokers send none to subscriptions with wildcards."""

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        framer = Framer()
        while data := source.recv(65_536):
            for packet in framer.feed(data):
                is_client = source.getsockname()[1] == self.port
                if is_client or not (is_publish(packet) and packet[0] & 1):
                    sink.sendall(packet)


@contextmanager
def forgetful(target: int) -> Iterator[Forgetful]:
    """Such a relay to a loopback port, closed after."""
    one = Forgetful(target)
    try:
        yield one
    finally:
        one.close()


class ShortIds(Relay):
    """Refuses client ids that are not 1 to 23 letters and digits: MQTT demands no more of it."""

    def __init__(self, target: int) -> None:
        #: The client ids that were refused and that passed.
        self.refused: list[str] = []
        self.passed: list[str] = []
        super().__init__(target)

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        framer = Framer()
        while data := source.recv(65_536):
            for packet in framer.feed(data):
                if packet[0] >> 4 == _CONNECT and not self._admits(packet):
                    source.sendall(_BAD_ID_5 if packet[8] == 5 else _BAD_ID_3)
                    return
                sink.sendall(packet)

    def _admits(self, packet: bytes) -> bool:
        at = 12 + (1 + packet[12] if packet[8] == 5 else 0)
        length = int.from_bytes(packet[at : at + 2])
        name = packet[at + 2 : at + 2 + length].decode()
        is_good = len(name) <= 23 and name.isalnum()
        (self.passed if is_good else self.refused).append(name)
        return is_good


@contextmanager
def short_ids(target: int) -> Iterator[ShortIds]:
    """Such a relay to a loopback port, closed after."""
    one = ShortIds(target)
    try:
        yield one
    finally:
        one.close()
