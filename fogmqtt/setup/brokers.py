"""Connects gateways to the configured broker, and starts an embedded broker if none answers."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from fogmqtt.config import BrokerSettings, GatewayConfig
from fogmqtt.errors import ConfigError
from fogmqtt.gateway.broker_link import Connect
from fogmqtt.setup.link import make_link
from fogmqtt.transport.base import Deliver, Transport, Will
from fogmqtt.transport.embedded import EmbeddedBroker
from fogmqtt.transport.paho import PahoTransport
from fogmqtt.transport.probe import is_broker, is_listening, own_url
from fogmqtt.wire.topics import Topics, is_id

log = logging.getLogger(__name__)

#: Seconds between two checks whether a broker has come to the configured address.
WATCH_S: Final = 1.0


def one_off_id(config: GatewayConfig, kind: str = "run") -> str:
    """Return the id of a one-off gateway: its user, as `mariem-run` of the gateway `mariem`.

    A broker's access list gives a user the topics of its own name. Without such a user the id is
    random.
    """
    gateway, user = config.gateway.id, config.broker.username or Path(config.broker.cert).stem
    if user.startswith(f"{gateway}-") and is_id(user):
        return user
    kind = f"-{kind}-"
    return f"{gateway[: 28 - len(kind)]}{kind}{secrets.token_hex(2)}"


def connector(
    config: GatewayConfig,
    gateway_id: str,
    embedded: EmbeddedBroker | None = None,
    *,
    session_s: int = 0,
) -> Connect:
    """Return a function that makes the transport of the gateway with this id.

    `embedded` is the broker that this process started, if it did. `session_s` is as in Link.
    """
    client_id = Topics(config.wire.prefix).client_id("gateway", gateway_id)
    has_counters = embedded is None or embedded.has_counters

    def connect(deliver: Deliver, will: Will) -> Transport:
        link = make_link(config.broker, client_id)
        link = replace(link, session_s=session_s, has_counters=has_counters)
        return PahoTransport(link, deliver, will=will)

    return connect


def serving_connector(config: GatewayConfig, embedded: EmbeddedBroker | None) -> Connect:
    """As `connector`, for a serving gateway: the broker repeats unacknowledged messages."""
    # An embedded broker ends with this process, and iotcore crashes when a shared subscription
    # returns. With QoS 2, paho cannot finish an exchange that began on an earlier connection: the
    # broker would wait for it until the session ends.
    is_configured = embedded is not None and embedded.url in config.broker.urls
    session_s = 0 if is_configured or config.wire.qos == 2 else config.gateway.session_s
    return connector(config, config.gateway.id, embedded, session_s=session_s)


@contextmanager
def embedded_broker(config: GatewayConfig) -> Iterator[EmbeddedBroker | None]:
    """Run an embedded broker during the block if none answers and the configuration allows it.

    With `auto` it leaves the configured port free, and ends as soon as a broker answers there.
    """
    embedded = _start(config.broker)
    with ExitStack() as stack:
        if embedded is not None:
            stack.callback(embedded.stop)
            (url,) = config.broker.urls
            if embedded.url != url:
                stack.enter_context(_giving_way(embedded, url))
        yield embedded


def _start(broker: BrokerSettings) -> EmbeddedBroker | None:
    if broker.embedded == "never":
        return None
    if len(broker.urls) > 1 and broker.embedded == "auto":
        return None
    if len(broker.urls) > 1:
        raise ConfigError(
            "broker.embedded: always starts one broker, but broker.url names "
            f"{len(broker.urls)}; name one, or set broker.embedded to never"
        )
    (configured,) = broker.urls
    if broker.embedded == "always":
        embedded = EmbeddedBroker.start(configured, broker.protocol)
        log.info(
            "started a broker of our own (%s) at %s, for programs of this machine only; "
            "mosquitto_pub and mosquitto_sub need %s",
            embedded.program,
            embedded.url,
            embedded.client_options,
        )
        return embedded
    url = own_url(configured)
    if not url or is_listening(configured):
        return None
    if is_broker(url):
        log.info("nothing listens at %s: using the broker of this machine at %s", configured, url)
        return None
    embedded = EmbeddedBroker.start(url, broker.protocol)
    log.info(
        "nothing listens at %s: started a broker of our own (%s) at %s, for programs of this "
        "machine only; it ends when a broker answers at %s; mosquitto_pub and mosquitto_sub need "
        "%s",
        configured,
        embedded.program,
        url,
        configured,
        embedded.client_options,
    )
    return embedded


@contextmanager
def _giving_way(embedded: EmbeddedBroker, url: str) -> Iterator[None]:
    """End an embedded broker during the block as soon as another one answers at `url`."""
    closing = threading.Event()

    def watch() -> None:
        while not closing.wait(WATCH_S):
            if is_broker(url):
                log.info("a broker answers at %s: our own at %s ends", url, embedded.url)
                embedded.stop()
                return

    thread = threading.Thread(target=watch, name="own broker", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join()
