"""The weather of the chaos suite does what it says: a fault that harms nothing proves nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.fog import wait_for
from tests.packets import Framer
from tests.weather import (
    CORRUPT,
    DUPLICATE,
    FAIR,
    HALF_OPEN,
    JITTER,
    REORDER,
    SLOW,
    STALL,
    Weather,
)

PACKETS = [b"\x30\x04\x00\x01a" + bytes((number,)) for number in range(100)]
LONG = b"\x30\x90\x4e" + bytes(10_000)


class Target:
    """A server that keeps what it hears of one client."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.heard = b""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self._server.accept()
            with client:
                while data := client.recv(65_536):
                    self.heard += data


@dataclass
class Wire:
    weather: Weather
    target: Target
    client: socket.socket

    def say(self, *packets: bytes) -> None:
        self.client.sendall(b"".join(packets))

    def hears(self, size: int) -> list[bytes]:
        """The packets at the other end, once so many bytes are there."""
        wait_for(lambda: len(self.target.heard) >= size, what=f"{size} bytes")
        return Framer().feed(self.target.heard)


@pytest.fixture
def wire() -> Iterator[Wire]:
    target = Target()
    weather = Weather(target.port, seed=1)
    client = socket.create_connection(("127.0.0.1", weather.port))
    try:
        yield Wire(weather, target, client)
    finally:
        client.close()
        weather.close()
        target.close()


def test_fair_weather_changes_nothing(wire: Wire) -> None:
    wire.say(*PACKETS)
    assert wire.hears(600) == PACKETS
    assert wire.weather.touched == 0


def test_a_stall_delays_and_loses_nothing(wire: Wire) -> None:
    wire.say(PACKETS[0])
    wire.hears(6)
    wire.weather.become(STALL)
    wire.say(*PACKETS[1:])
    time.sleep(0.1)
    assert wire.target.heard == PACKETS[0]
    wire.weather.become(FAIR)
    assert wire.hears(600) == PACKETS


def test_half_open_swallows_in_silence_until_it_ends_with_a_cut(wire: Wire) -> None:
    wire.say(PACKETS[0])
    wire.hears(6)
    wire.weather.become(HALF_OPEN)
    wire.client.settimeout(0.1)
    wire.say(*PACKETS[1:])
    with pytest.raises(TimeoutError):
        wire.client.recv(1)
    wire.weather.become(FAIR)
    wire.client.settimeout(5)
    with contextlib.suppress(ConnectionResetError):
        assert wire.client.recv(1) == b""
    assert wire.target.heard == PACKETS[0]


def test_corruption_flips_single_bits(wire: Wire) -> None:
    wire.weather.become(CORRUPT)
    wire.say(*PACKETS)
    wait_for(lambda: len(wire.target.heard) >= 600)
    sent = b"".join(PACKETS)
    harmed = sum(a != b for a, b in zip(sent, wire.target.heard, strict=True))
    assert harmed == wire.weather.touched > 0
    assert all((a ^ b).bit_count() <= 1 for a, b in zip(sent, wire.target.heard, strict=True))


def test_duplicates_follow_their_originals(wire: Wire) -> None:
    wire.weather.become(DUPLICATE)
    wire.say(*PACKETS)
    wait_for(lambda: len(wire.target.heard) == 6 * (100 + wire.weather.touched))
    heard = Framer().feed(wire.target.heard)
    assert list(dict.fromkeys(heard)) == PACKETS
    assert wire.weather.touched > 10


def test_reordering_swaps_neighbours(wire: Wire) -> None:
    wire.weather.become(REORDER)
    wire.say(*PACKETS, b"\xc0\x00")
    heard = wire.hears(602)
    assert sorted(heard) == sorted([*PACKETS, b"\xc0\x00"])
    assert heard[:-1] != PACKETS
    moved = (abs(heard.index(packet) - at) for at, packet in enumerate(PACKETS))
    assert max(moved) == 1


def test_slow_is_ten_kilobytes_a_second(wire: Wire) -> None:
    wire.weather.become(SLOW)
    began = time.monotonic()
    wire.say(LONG)
    wire.hears(len(LONG))
    assert 0.8 < time.monotonic() - began < 30


def test_jitter_is_late_and_in_order(wire: Wire) -> None:
    wire.weather.become(JITTER)
    began = time.monotonic()
    wire.say(*PACKETS[:5])
    assert wire.hears(30) == PACKETS[:5]
    assert time.monotonic() - began > 0.1
