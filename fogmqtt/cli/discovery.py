"""Finds the devices at the broker, by a short-lived gateway that runs no job."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from fogmqtt.cli.async_program import run_async
from fogmqtt.config import GatewayConfig
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.devices.registry import DeviceView
from fogmqtt.setup.brokers import connector, one_off_id

log = logging.getLogger(__name__)

#: Seconds in which each device publishes its info: the default of device.checkin_s, and a little.
CHECK_IN_S: Final = 6.0


def find_devices(config: GatewayConfig) -> tuple[DeviceView, ...]:
    """Return the devices that have sent their info, compared with this machine. Raises NoBroker."""
    return run_async(_find_devices(config))


async def _find_devices(config: GatewayConfig) -> tuple[DeviceView, ...]:
    gateway_id = one_off_id(config, "look")
    async with Gateway(
        config,
        gateway_id,
        connector(config, gateway_id),
        broker_within_s=config.broker.connect_timeout_s,
    ) as gateway:
        await wait_for_devices(gateway)
        return gateway.devices()


async def wait_for_devices(gateway: Gateway) -> None:
    """Wait until the devices are known.

    Some brokers send no retained messages to a subscription with wildcards. Then each device is
    known from its next check-in on.
    """
    await gateway.link.up()
    await gateway.settled()
    if not gateway.has_retained:
        log.info("the broker knows of no device: waiting %g s for check-ins", CHECK_IN_S)
        await asyncio.sleep(CHECK_IN_S)
