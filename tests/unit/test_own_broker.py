"""Where a gateway's own broker is, and what counts as a broker."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from fogmqtt.config import BrokerSettings, GatewayConfig
from fogmqtt.errors import ConfigError
from fogmqtt.setup import brokers
from fogmqtt.setup.link import make_link
from fogmqtt.transport.probe import is_broker, is_listening, own_url

CONNACK = b"\x20\x02\x00\x00"


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A program that sends this to whoever has sent something."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.recv(100)
                    client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"mqtt://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("mqtt://127.0.0.1:1883", "mqtt://127.0.0.1:11883"),
        ("mqtt://localhost", "mqtt://localhost:11883"),
        ("mqtt://[::1]:60000", "mqtt://[::1]:50000"),
        ("mqtt://192.168.1.10", ""),
        ("mqtts://localhost", ""),
        ("ws://localhost", ""),
    ],
)
def test_the_address_of_our_own_broker_follows_from_the_configured_one(url: str, own: str) -> None:
    assert own_url(url) == own


def test_only_what_answers_as_a_broker_is_one() -> None:
    with answering(CONNACK) as url:
        assert is_listening(url)
        assert is_broker(url)
    for answer in (b"HTTP/1.1 400 Bad Request\r\n", b""):
        with answering(answer) as url:
            assert not is_broker(url)
    assert not is_broker(url)


@pytest.mark.parametrize(
    ("settings", "own"),
    [
        (BrokerSettings(), "mqtt://127.0.0.1:11883"),
        (BrokerSettings(embedded="never"), ""),
        (BrokerSettings(embedded="always"), ""),
        (BrokerSettings("mqtt://192.168.1.10"), ""),
        (BrokerSettings("mqtts://localhost"), ""),
        (BrokerSettings("mqtt://127.0.0.1,mqtt://127.0.0.1:1884"), ""),
    ],
)
def test_programs_look_for_our_own_broker_where_one_may_be(
    settings: BrokerSettings, own: str
) -> None:
    assert make_link(settings, "eya").own_url == own


@pytest.mark.parametrize("url", ["mqtts://localhost", "mqtt://192.168.1.10"])
def test_no_broker_is_started_for_tls_or_another_machine(url: str) -> None:
    with brokers.embedded_broker(GatewayConfig(broker=BrokerSettings(url))) as embedded:
        assert embedded is None


def test_one_broker_is_started_at_most() -> None:
    two = BrokerSettings("mqtt://127.0.0.1:1,mqtt://127.0.0.1:2")
    with brokers.embedded_broker(GatewayConfig(broker=two)) as embedded:
        assert embedded is None
    always = GatewayConfig(broker=replace(two, embedded="always"))
    with pytest.raises(ConfigError, match="names 2"), brokers.embedded_broker(always):
        pass
