"""A relay with bad weather: what networks do to MQTT short of cutting the wire."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.packets import Framer, again, is_publish, is_qos_2
from tests.relay import Relay

FAIR = "fair"
#: Nothing passes, nothing is lost; nothing passes and all is lost, without a word to the client.
STALL, HALF_OPEN = "stall", "half-open"
SLOW, JITTER, CORRUPT = "slow", "jitter", "corrupt"
DUPLICATE, REORDER = "duplicate", "reorder"
WEATHERS = (STALL, HALF_OPEN, SLOW, JITTER, CORRUPT, DUPLICATE, REORDER)

_SLOW_BYTES_PER_S = 10_000
#: How long a packet is late, seconds, while there is jitter.
_LATE_S = (0.02, 0.2)
#: Parts of packets that are harmed, repeated, or overtaken.
_CORRUPT, _DUPLICATE, _REORDER = 0.1, 0.5, 0.5


@dataclass
class _Direction:
    """One direction of one connection."""

    sink: socket.socket
    framer: Framer
    rng: random.Random
    #: A packet that the next one overtakes.
    held: bytes = b""


class Weather(Relay):
    """A relay whose `sky` one thread may change at any time; all its dice come from `seed`."""

    def __init__(self, target: int, seed: int = 0) -> None:
        self._sky = FAIR
        self._changed = threading.Condition()
        self._over = False
        self._rng = random.Random(seed)
        #: Packets that were harmed, repeated or overtaken.
        self.touched = 0
        super().__init__(target)

    @property
    def sky(self) -> str:
        return self._sky

    def become(self, sky: str) -> None:
        """Let it be so from now on."""
        with self._changed:
            before, self._sky = self._sky, sky
            self._changed.notify_all()
        if sky == HALF_OPEN:
            self._leave_clients_alone()
        elif before == HALF_OPEN:
            self.cut()

    def close(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
        super().close()

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        way = _Direction(sink, Framer(), random.Random(self._rng.random()))
        try:
            while data := source.recv(65_536):
                for packet in way.framer.feed(data):
                    self._pass(packet, way)
            sink.sendall(way.held + way.framer.rest())
        finally:
            self._wait_while(HALF_OPEN)

    def _pass(self, packet: bytes, way: _Direction) -> None:
        self._wait_while(STALL)
        if self._sky == HALF_OPEN:
            return
        for one in self._made_of(packet, way):
            self._send(one, way.sink)

    def _made_of(self, packet: bytes, way: _Direction) -> Iterator[bytes]:
        """What goes on instead of a packet, in order."""
        harmed = self._harmed(packet, way.rng)
        held, way.held = way.held, b""
        if self._sky == REORDER and not held and _hit(packet, way.rng, _REORDER):
            way.held = harmed
            self.touched += 1
            return
        yield harmed
        if held:
            yield held
        if self._sky == DUPLICATE and not is_qos_2(packet) and _hit(packet, way.rng, _DUPLICATE):
            self.touched += 1
            yield again(packet)

    def _harmed(self, packet: bytes, rng: random.Random) -> bytes:
        if self._sky != CORRUPT or rng.random() > _CORRUPT:
            return packet
        self.touched += 1
        wrong = bytearray(packet)
        wrong[rng.randrange(len(wrong))] ^= 1 << rng.randrange(8)
        return bytes(wrong)

    def _send(self, packet: bytes, sink: socket.socket) -> None:
        if self._sky == JITTER:
            time.sleep(self._rng.uniform(*_LATE_S))
        step = _SLOW_BYTES_PER_S // 10
        while self._sky == SLOW and len(packet) > step:
            sink.sendall(packet[:step])
            packet = packet[step:]
            time.sleep(0.1)
        sink.sendall(packet)

    def _wait_while(self, sky: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._sky != sky)

    def _leave_clients_alone(self) -> None:
        """Close the broker's side of every connection; the client's stays open, and silent."""
        for _, far in self.pairs():
            with contextlib.suppress(OSError):
                far.shutdown(socket.SHUT_RDWR)


def _hit(packet: bytes, rng: random.Random, part: float) -> bool:
    return is_publish(packet) and rng.random() < part
