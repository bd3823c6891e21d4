"""The link to a broker, as the configuration describes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fogmqtt.config import BrokerSettings
    from fogmqtt.transport.link import Link


def with_brokers(broker: BrokerSettings, urls: Sequence[str] | None) -> BrokerSettings:
    """Return the settings with these brokers in place of the configured ones, if there are any."""
    return dataclasses.replace(broker, url=",".join(urls)) if urls else broker


def make_link(broker: BrokerSettings, client_id: str) -> Link:
    """Return the settings of the transport for this broker and client id. Raises ConfigError."""
    from fogmqtt.transport.link import Link
    from fogmqtt.transport.probe import own_url

    first, *others = broker.urls or ("",)
    return Link(
        url=first,
        others=tuple(others),
        client_id=client_id,
        protocol=broker.protocol,
        username=broker.username,
        password=broker.password,
        ca=broker.ca,
        cert=broker.cert,
        key=broker.key,
        keepalive_s=round(broker.keepalive_s),
        client=broker.client,
        # An answer to whoever waits this long for a broker: the reason comes a little earlier.
        connect_timeout_s=0.8 * broker.connect_timeout_s,
        own_url=own_url(first) if broker.embedded == "auto" and not others else "",
    )
