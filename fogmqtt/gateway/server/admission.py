"""Whether a serving gateway has room for another image: places that wait, and the spool's disk."""

from __future__ import annotations

import asyncio
import logging

from fogmqtt.errors import FogError
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.storage.durable_files import is_full

log = logging.getLogger(__name__)


class Admission:
    """The room for images of all sources. It belongs to the event loop."""

    def __init__(self, gateway: Gateway, max_waiting: int) -> None:
        self._gateway = gateway
        self._max_waiting = max_waiting
        #: Images on their way to the spool.
        self._spooling = 0
        #: Set when an image has ended, so that there may be room for another.
        self._freed = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """Whether another image may wait."""
        return self._waiting < self._max_waiting

    def check(self, own: int = 0) -> None:
        """Raise FogError if no other image may wait, of a user with `own` unfinished images.

        A tenth of the places is kept from a user who has all others.
        """
        if not self.has_room:
            raise FogError(
                f"{self._waiting} images are waiting, as many as "
                "limits.max_waiting allows; try again later"
            )
        if own >= self._max_waiting - self._max_waiting // 10:
            raise FogError(
                f"{own} images of yours are not finished, nine tenths of limits.max_waiting; the "
                "other places are for others; try again later"
            )

    async def wait(self) -> None:
        """Wait until another image may wait."""
        while not self.has_room:
            self._freed.clear()
            await self._freed.wait()

    def freed(self) -> None:
        """Note that an image has ended."""
        self._freed.set()

    def spooling(self) -> None:
        """Count an image as waiting, since it is on its way to the spool."""
        self._spooling += 1

    def spooled(self) -> None:
        """Note that an image is in the spool, or was not taken."""
        self._spooling -= 1

    def refusal(self, problem: Exception) -> Exception:
        """Return the error to tell for an image that the spool did not take."""
        if not is_full(problem):
            return problem
        reason = "the gateway's disk is full; submit it again when there is room"
        if not self._gateway.status.paused:
            log.warning("the disk of the spool is full: no image is taken until there is room")
            self._gateway.status.pause(reason)
        return FogError(reason)

    def taken(self) -> None:
        """Note that the spool has taken an image, so that its disk has room."""
        if self._gateway.status.paused:
            log.info("the disk of the spool has room again")
            self._gateway.status.pause("")

    @property
    def _waiting(self) -> int:
        return self._gateway.waiting + self._spooling
