"""The gateway's own cores as a device, which is in the fleet while jobs can use it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Literal

from fogmqtt.core.scheduling.events import DeviceDraining, DeviceJoined, Event
from fogmqtt.gateway.background import BackgroundTasks
from fogmqtt.operators.api import registry
from fogmqtt.wire.topics import LOCAL
from fogmqtt.workers.resources import cores

log = logging.getLogger(__name__)


class LocalDevice:
    """Joins the fleet as `local` and leaves it as jobs need it. It belongs to the event loop.

    `feed` passes an event to the scheduler. `busy` returns whether tiles run here. `warm` starts
    the workers before the device joins for the first time.
    """

    def __init__(
        self,
        boot: str,
        feed: Callable[[Event], None],
        busy: Callable[[], bool],
        warm: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._boot = boot
        self._feed = feed
        self._busy = busy
        self._warm = warm
        self._background = BackgroundTasks()
        self._warming = False
        self._joins = 0
        self._state: Literal["away", "working", "leaving"] = "away"
        self._wanted = False
        self._abilities = frozenset(registry.names())

    @property
    def working(self) -> bool:
        """Whether the device takes new tiles."""
        return self._state == "working"

    def join(self) -> None:
        """Take tiles. Call it again after the broker was lost, which empties the fleet."""
        self._wanted = True
        if self._warm is not None:
            self._start_workers(self._warm)
            return
        if self._state == "leaving":
            return  # with another boot id, the tiles that still run here would count as lost
        if self._state == "away":
            self._joins += 1
            self._state = "working"
            log.debug("the gateway's own cores take tiles")
        # The scheduler lets a drained device join again only with a new boot id.
        boot = f"{self._boot}.{self._joins}"
        self._feed(DeviceJoined(LOCAL, boot, cores(), self._abilities, is_local=True))

    def leave(self) -> None:
        """Finish the tiles that run here, and take no more."""
        self._wanted = False
        if self._state == "working":
            self._state = "leaving"
            self._feed(DeviceDraining(LOCAL))

    def offer(self, abilities: frozenset[str]) -> None:
        """Add abilities. This gateway has every ability, since devices are compared with it."""
        if abilities <= self._abilities:
            return
        self._abilities |= abilities
        if self._state == "working":
            self.join()

    def update(self, *, wanted: bool) -> None:
        """Join or leave. Call it after every change of tiles."""
        if not wanted:
            self.leave()
        elif not self._wanted:
            self.join()
        if self._state != "leaving" or self._busy():
            return
        self._state = "away"
        if self._wanted:
            self.join()

    async def close(self) -> None:
        """Cancel the start of the workers."""
        await self._background.close()

    def _start_workers(self, warm: Callable[[], Awaitable[None]]) -> None:
        if self._warming:
            return
        self._warming = True

        async def start() -> None:
            await warm()
            self._warm = None
            if self._wanted:
                self.join()

        self._background.start(start(), "start of the gateway's workers")
