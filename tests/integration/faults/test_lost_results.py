"""A device's link breaks after a result was sent and before the broker has it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import pytest

from tests.fog import RealBroker
from tests.hearing import hearing
from tests.packets import Framer, is_publish
from tests.processes import fog_at, photo, read, same
from tests.relay import Relay

pytestmark = pytest.mark.broker

#: Presence messages and `accepted` are smaller, results are larger.
RESULT_BYTES = 20_000


class Swallowing(Relay):
    """Loses the second result, and its connection, before the broker has it.

    The first one shows that the broker takes packets of that size.
    """

    results = 0

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        framer = Framer()
        while data := source.recv(65_536):
            for packet in framer.feed(data):
                self.results += _is_result(packet)
                if _is_result(packet) and self.results == 2:
                    return
                sink.sendall(packet)


def _is_result(packet: bytes) -> bool:
    return is_publish(packet) and b"/results/" in packet[:100] and len(packet) > RESULT_BYTES


@contextmanager
def swallowing(target: int) -> Iterator[Swallowing]:
    """Such a relay to a loopback port, closed after."""
    one = Swallowing(target)
    try:
        yield one
    finally:
        one.close()


@pytest.mark.parametrize(("client", "protocol"), [("fast", "5"), ("plain", "3.1.1")])
def test_a_result_that_the_broker_did_not_get_is_sent_again_and_its_tile_is_not(
    broker: RealBroker, tmp_path: Path, protocol: str, client: str
) -> None:
    settings = {"BROKER__PROTOCOL": protocol, "BROKER__CLIENT": client}
    with (
        swallowing(broker.port) as link,
        hearing(broker.url) as heard,
        fog_at(tmp_path, broker, **settings) as fog,
    ):
        fog.device("eya", BROKER__URL=link.url).says("eya is online")
        path = fog.save("in.png", photo(300, 400))
        for name in ("first.png", "second.png"):
            fog.run(path, "-o", name, "--pipeline", "median ksize=5", "--tiles", "grid 1x1")
            assert same(read(tmp_path / name), cv2.medianBlur(read(path), 5))
    assert link.results == 3
    assert len(heard.results) == len(heard.sent) == 2
