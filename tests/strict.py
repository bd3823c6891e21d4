"""A broker that does not grant `$SYS` or `$share`: a relay in front of a real one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.packets import Framer
from tests.relay import Relay

#: Close the connection; close it after the SUBACK; refuse in the SUBACK; do not answer.
CUT, CUT_LATE, REFUSE, SILENT = "cut", "cut late", "refuse", "silent"
WAYS = (CUT, CUT_LATE, REFUSE, SILENT)
_CONNECT, _SUBSCRIBE, _SUBACK = 1, 8, 9
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
