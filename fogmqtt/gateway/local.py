"""The gateway's own cores as one more device: they step in where none is there, and back."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Literal

from fogmqtt.core.events import DeviceDraining, DeviceJoined, Event
from fogmqtt.operators import catalog
from fogmqtt.wire.topics import LOCAL

log = logging.getLogger(__name__)


class LocalCores:
    """Joins the fleet as `local` and leaves it, as often as it takes. Owner thread only.

    `busy` says whether tiles are being worked on here.
    """

    def __init__(self, boot: str, feed: Callable[[Event], None], busy: Callable[[], bool]) -> None:
        self._boot = boot
        self._feed = feed
        self._busy = busy
        self._lives = 0
        self._state: Literal["away", "working", "leaving"] = "away"
        self._wanted_again = False
        self._abilities = frozenset(catalog.names())

    @property
    def working(self) -> bool:
        """Whether they take new tiles."""
        return self._state == "working"

    def join(self) -> None:
        """Take tiles; also to be called when the broker was lost, which empties the fleet."""
        if self._state == "leaving":
            # Coming back as another life would count what this one still holds as lost.
            self._wanted_again = True
            return
        if self._state == "away":
            self._lives += 1
            self._state = "working"
            log.debug("the gateway's own cores take tiles")
        # A drained device only comes back by a restart.
        boot = f"{self._boot}.{self._lives}"
        self._feed(DeviceJoined(LOCAL, boot, os.cpu_count() or 1, self._abilities))

    def offer(self, needed: frozenset[str]) -> None:
        """Be able to do this too: these cores are the standard that devices are held against."""
        if needed <= self._abilities:
            return
        self._abilities |= needed
        if self._state == "working":
            self.join()

    def leave(self) -> None:
        """Finish what is in hand and take nothing more."""
        if self._state == "working":
            self._state = "leaving"
            self._feed(DeviceDraining(LOCAL))

    def tick(self) -> None:
        """To be called now and then, and after every tile done here."""
        if self._state != "leaving" or self._busy():
            return
        self._state = "away"
        if self._wanted_again:
            self._wanted_again = False
            self.join()
