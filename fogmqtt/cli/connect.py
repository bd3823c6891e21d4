"""From the configuration to a link, with a broker of our own where none is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from fogmqtt.cli.common import link
from fogmqtt.config import BrokerSettings, GatewayConfig
from fogmqtt.gateway.broker_link import Connect
from fogmqtt.transport.base import Deliver, Transport, Will
from fogmqtt.transport.embedded import EmbeddedBroker, is_listening, is_local
from fogmqtt.transport.paho import PahoTransport


def connector(
    broker: BrokerSettings,
    client_id: str,
    own: EmbeddedBroker | None = None,
    *,
    session_s: int = 0,
) -> Connect:
    """What makes a gateway's transport; `own` is the broker that we started, if we did.

    `session_s` is as in Link.
    """
    has_counters = own is None or own.has_counters

    def connect(deliver: Deliver, will: Will) -> Transport:
        whole = replace(link(broker, client_id), session_s=session_s, has_counters=has_counters)
        return PahoTransport(whole, deliver, will=will)

    return connect


def serving_connector(config: GatewayConfig, own: EmbeddedBroker | None) -> Connect:
    """The same for a gateway that serves: the broker sends unacknowledged messages again."""
    # Our own broker ends with us, and iotcore does when a shared subscription returns. With QoS 2
    # paho does not know the end of an exchange that began on another connection: the broker would
    # wait for it for as long as the session lasts.
    session_s = 0 if own or config.wire.qos == 2 else config.gateway.session_s
    return connector(config.broker, config.gateway.id, own, session_s=session_s)


@contextmanager
def broker_at_hand(config: GatewayConfig) -> Iterator[EmbeddedBroker | None]:
    """Start a broker of our own where the configuration lets us and none answers; end it after."""
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
