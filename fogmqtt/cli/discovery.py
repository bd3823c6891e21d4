"""Finds the devices at the broker, by a short-lived gateway that runs no job."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Final

from fogmqtt.cli.async_program import run_async
from fogmqtt.cli.connect import connector
from fogmqtt.config import GatewayConfig
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.devices.registry import DeviceView

log = logging.getLogger(__name__)

#: Seconds in which each device publishes its info: the default of device.checkin_s, and a little.
CHECK_IN_S: Final = 6.0


def find_devices(config: GatewayConfig) -> tuple[DeviceView, ...]:
    """Return the devices that have sent their info, compared with this machine. Raises NoBroker."""
    return run_async(_find_devices(config))


async def _find_devices(config: GatewayConfig) -> tuple[DeviceView, ...]:
    gateway_id = f"{config.gateway.id[:20]}-look-{secrets.token_hex(2)}"
    async with Gateway(
        config,
        gateway_id,
        connector(config.broker, gateway_id),
        broker_within_s=config.broker.connect_timeout_s,
    ) as gateway:
        await gateway.link.up()
        await gateway.settled()
        if not gateway.devices():
            # Some brokers send no retained messages to a subscription with wildcards.
            log.info("no device is known yet: waiting %g s for check-ins", CHECK_IN_S)
            await asyncio.sleep(CHECK_IN_S)
        return gateway.devices()
