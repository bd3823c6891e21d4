"""The gateway's own cores as one more device: in the fleet while jobs can use them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

from fogmqtt.core.scheduling.events import DeviceDraining, DeviceJoined, Event
from fogmqtt.operators.api import registry
from fogmqtt.wire.topics import LOCAL
from fogmqtt.workers.resources import cores

log = logging.getLogger(__name__)


class LocalDevice:
    """Joins the fleet as `local` and leaves it, as often as it takes. Owner thread only.

    `busy` says whether tiles are being worked on here; `warm` starts the workers, once, and
    calls back when they could take a tile at once.
    """

    def __init__(
        self,
        boot: str,
        feed: Callable[[Event], None],
        busy: Callable[[], bool],
        warm: Callable[[Callable[[], None]], None] = lambda ready: ready(),
    ) -> None:
        self._boot = boot
        self._feed = feed
        self._busy = busy
        self._warm = warm
        self._is_warm: bool | None = None
        self._lives = 0
        self._state: Literal["away", "working", "leaving"] = "away"
        self._wanted = False
        self._abilities = frozenset(registry.names())

    @property
    def working(self) -> bool:
        """Whether they take new tiles."""
        return self._state == "working"

    def join(self) -> None:
        """Take tiles; also to be called when the broker was lost, which empties the fleet."""
        self._wanted = True
        if not self._is_warm:
            self._start()
            return
        if self._state == "leaving":
            return  # as another life, what this one still holds would count as lost
        if self._state == "away":
            self._lives += 1
            self._state = "working"
            log.debug("the gateway's own cores take tiles")
        # A drained device only comes back by a restart.
        boot = f"{self._boot}.{self._lives}"
        self._feed(DeviceJoined(LOCAL, boot, cores(), self._abilities))

    def staff(self, *, wanted: bool, devices: Callable[[], frozenset[str]]) -> None:
        """Join where tiles are to be done and `devices` are there to be helped; leave after that.

        Where none is there, whoever waits for one says when it was long enough.
        """
        if not wanted:
            self.leave()
        elif not self._wanted and devices():
            self.join()

    def offer(self, needed: frozenset[str]) -> None:
        """Be able to do this too: these cores are the standard that devices are held against."""
        if needed <= self._abilities:
            return
        self._abilities |= needed
        if self._state == "working":
            self.join()

    def leave(self) -> None:
        """Finish what is in hand and take nothing more."""
        self._wanted = False
        if self._state == "working":
            self._state = "leaving"
            self._feed(DeviceDraining(LOCAL))

    def tick(self) -> None:
        """To be called now and then, and after every tile done here."""
        if self._state != "leaving" or self._busy():
            return
        self._state = "away"
        if self._wanted:
            self.join()

    def _start(self) -> None:
        if self._is_warm is None:
            self._is_warm = False
            self._warm(self._started)

    def _started(self) -> None:
        self._is_warm = True
        if self._wanted:
            self.join()
