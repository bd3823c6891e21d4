"""Waits until the devices that are online are known, so that a job can be planned for them.

The gateway publishes its own info as soon as it is subscribed, and gets it back. A broker that
delivers a client's messages in their order, as Mosquitto does, sends it after the retained topics.
Other brokers may send some of these a moment later.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from fogmqtt.gateway.broker_link import BrokerLink
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.compatibility import Compatibility
from fogmqtt.operators.api.pipeline import Stage

#: Seconds without a retained topic after which there are no more, if our own info is not back.
SETTLE_S: Final = 0.3
#: The same once our own info is back.
QUIET_S: Final = 0.02
#: Seconds for retained topics, and for messages that have come in and are not handled yet, at most.
BACKLOG_S: Final = 5.0


class Settling:
    """Tells when devices are known. It belongs to the event loop."""

    def __init__(self, link: BrokerLink, compatibility: Compatibility, offline_s: float) -> None:
        """`offline_s`: seconds after which a job is planned without a broker."""
        self._link = link
        self._compatibility = compatibility
        self._offline_until = now() + offline_s
        self._connected_at = now()
        self._topic_at = now()
        self._own_info = asyncio.Event()
        #: Whether a device's retained topic ever came.
        self.has_retained = False

    def connected(self) -> None:
        """Note that the link is up: retained topics begin to come in."""
        self._connected_at = self._topic_at = now()
        self._own_info.clear()

    def topic_came(self) -> None:
        """Note that a device's retained topic came in."""
        self._topic_at = now()
        self.has_retained = True

    def own_info_came(self) -> None:
        """Note that this gateway's own info came back."""
        self._own_info.set()

    async def wait(self, stage: Stage | None = None) -> None:
        """Wait until the devices are known, or no broker answered for long.

        Before that, wait until they can be compared for the operators of `stage`, or for all.
        """
        if stage is None:
            await self._compatibility.wait_until_complete()
        else:
            await self._compatibility.wait_for(stage)
        if not self._link.connected:
            try:
                async with asyncio.timeout(max(0.0, self._offline_until - now())):
                    await self._link.up()
            except TimeoutError:
                return
        await self._wait_for_topics()

    async def wait_for_backlog(self) -> None:
        """As `wait`; and, for a bounded time, until everything that came in is handled."""
        await self.wait()
        until = now() + BACKLOG_S
        while not self._link.idle and now() < until:
            await asyncio.sleep(0.01)

    async def _wait_for_topics(self) -> None:
        """Wait until the retained topics are in, as far as can be told."""
        while now() < self._connected_at + BACKLOG_S:
            came_back = self._own_info.is_set()
            rest_s = self._topic_at + (QUIET_S if came_back else SETTLE_S) - now()
            if rest_s <= 0:
                return
            if came_back:
                await asyncio.sleep(rest_s)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._own_info.wait()
