"""From the configuration to a link, with a broker of our own where none is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fogmqtt.cli.common import link
from fogmqtt.config import Broker, GatewayConfig
from fogmqtt.gateway.service import Connect
from fogmqtt.transport.base import Deliver, Transport, Will
from fogmqtt.transport.embedded import EmbeddedBroker, is_local, listening
from fogmqtt.transport.paho import PahoTransport


def connector(broker: Broker, client_id: str) -> Connect:
    """What makes a gateway's transport."""

    def connect(deliver: Deliver, will: Will) -> Transport:
        return PahoTransport(link(broker, client_id), deliver, will=will)

    return connect


@contextmanager
def broker_at_hand(config: GatewayConfig) -> Iterator[EmbeddedBroker | None]:
    """Start a broker of our own where the configuration lets us and none answers; end it after."""
    embedded = _start(config.broker)
    try:
        yield embedded
    finally:
        if embedded is not None:
            embedded.stop()


def _start(broker: Broker) -> EmbeddedBroker | None:
    if broker.embedded == "never":
        return None
    if broker.embedded == "auto" and (not is_local(broker.url) or listening(broker.url)):
        return None
    return EmbeddedBroker.start(broker.url)
