"""Waits until the devices that are online are known, so that a job can be planned for them."""

from __future__ import annotations

import asyncio
from typing import Final

from fogmqtt.gateway.broker_link import BrokerLink
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.compatibility import Compatibility

#: Seconds from the connection until the devices' retained topics have come in.
SETTLE_S: Final = 0.3
#: More seconds for messages that have come in and are not handled yet.
BACKLOG_S: Final = 5.0


class Settling:
    """Tells when devices are known. It belongs to the event loop."""

    def __init__(self, link: BrokerLink, compatibility: Compatibility, offline_s: float) -> None:
        """`offline_s`: seconds after which a job is planned without a broker."""
        self._link = link
        self._compatibility = compatibility
        self._offline_until = now() + offline_s
        self._connected_at = now()

    def connected(self) -> None:
        """Note that the link is up: retained topics begin to come in."""
        self._connected_at = now()

    async def wait(self) -> None:
        """Wait until the devices are known and compared, or no broker answered for long."""
        await self._compatibility.ready.wait()
        if not self._link.connected:
            try:
                async with asyncio.timeout(max(0.0, self._offline_until - now())):
                    await self._link.up()
            except TimeoutError:
                return
        await asyncio.sleep(max(0.0, self._connected_at + SETTLE_S - now()))

    async def wait_for_backlog(self) -> None:
        """As `wait`; and, for a bounded time, until everything that came in is handled."""
        await self.wait()
        until = now() + BACKLOG_S
        while not self._link.idle and now() < until:
            await asyncio.sleep(0.01)
