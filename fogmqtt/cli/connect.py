"""Connects gateways to the configured broker, and starts an embedded broker if none answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from fogmqtt.cli.common import make_link
from fogmqtt.config import BrokerSettings, GatewayConfig
from fogmqtt.gateway.broker_link import Connect
from fogmqtt.transport.base import Deliver, Transport, Will
from fogmqtt.transport.embedded import EmbeddedBroker, is_listening, is_local
from fogmqtt.transport.paho import PahoTransport


def connector(
    broker: BrokerSettings,
    client_id: str,
    embedded: EmbeddedBroker | None = None,
    *,
    session_s: int = 0,
) -> Connect:
    """Return a function that makes a gateway's transport.

    `embedded` is the broker that this process started, if it did. `session_s` is as in Link.
    """
    has_counters = embedded is None or embedded.has_counters

    def connect(deliver: Deliver, will: Will) -> Transport:
        link = make_link(broker, client_id)
        link = replace(link, session_s=session_s, has_counters=has_counters)
        return PahoTransport(link, deliver, will=will)

    return connect


def serving_connector(config: GatewayConfig, embedded: EmbeddedBroker | None) -> Connect:
    """As `connector`, for a serving gateway: the broker repeats unacknowledged messages."""
    # An embedded broker ends with this process, and iotcore crashes when a shared subscription
    # returns. With QoS 2, paho cannot finish an exchange that began on an earlier connection: the
    # broker would wait for it until the session ends.
    session_s = 0 if embedded or config.wire.qos == 2 else config.gateway.session_s
    return connector(config.broker, config.gateway.id, embedded, session_s=session_s)


@contextmanager
def embedded_broker(config: GatewayConfig) -> Iterator[EmbeddedBroker | None]:
    """Run an embedded broker during the block if none answers and the configuration allows it."""
    embedded = _start(config.broker)
    try:
        yield embedded
    finally:
        if embedded is not None:
            embedded.stop()


def _start(broker: BrokerSettings) -> EmbeddedBroker | None:
    if broker.embedded == "never":
        return None
    if broker.embedded == "auto" and (not is_local(broker.url) or is_listening(broker.url)):
        return None
    return EmbeddedBroker.start(broker.url, broker.protocol)
