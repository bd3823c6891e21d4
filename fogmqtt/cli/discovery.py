"""A look at who is there, without taking part."""

from __future__ import annotations

import secrets

from fogmqtt.cli.common import stop_on_signals
from fogmqtt.cli.connect import connector
from fogmqtt.config import GatewayConfig
from fogmqtt.gateway.app import SETTLE_S, Gateway
from fogmqtt.gateway.devices.registry import DeviceRegistry
from fogmqtt.gateway.loop import now

#: Seconds more for what has come in and was not looked at yet.
PATIENCE_S = 5.0


def look_around(config: GatewayConfig) -> DeviceRegistry:
    """The devices as they announce themselves, held against this gateway. Raises NoBroker."""
    gateway_id = f"{config.gateway.id[:20]}-look-{secrets.token_hex(2)}"
    gateway = Gateway(config, gateway_id, connector(config.broker, gateway_id))
    gateway.give_up(without_broker_s=config.broker.connect_timeout_s, timeout_s=None)
    try:
        gateway.transport.start()
        with stop_on_signals(gateway.stop):
            gateway.run(lambda: gateway.connected)
            until = now() + SETTLE_S
            gateway.periodic_tasks.append(lambda _: until)
            gateway.run(lambda: now() >= until and gateway.roster.standard.known)
            # Where there is much to hear, it is worth a moment more.
            gateway.run(lambda: gateway.loop.idle or now() >= until + PATIENCE_S)
    finally:
        gateway.close()
    return gateway.roster
