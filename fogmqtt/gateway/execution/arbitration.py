"""Does a tile on this machine to find out which of two devices gave a wrong result."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from fogmqtt.core.scheduling.events import DeviceRefuted, Event, TileArbitrated
from fogmqtt.errors import FogError
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.execution.local_tiles import LocalTiles
from fogmqtt.gateway.execution.stage_run import StageRun
from fogmqtt.log import CountedWarnings

log = logging.getLogger(__name__)

#: Seconds for a tile that the gateway does itself to decide which device is right.
_LEASE_S: Final = 600.0


class Arbitration:
    """Feeds the scheduler with what this gateway finds."""

    def __init__(
        self, tiles: LocalTiles, warnings: CountedWarnings, feed: Callable[[Event], None]
    ) -> None:
        self._tiles = tiles
        self._warnings = warnings
        self._feed = feed

    async def arbitrate(self, run: StageRun, index: int) -> None:
        """Feed the correct fingerprint of a tile, because two devices differ."""
        correct = await self._correct_fingerprint(run, index)
        self._feed(TileArbitrated(run.key, index, correct))

    async def refute(self, run: StageRun, index: int, results: tuple[tuple[str, int], ...]) -> None:
        """Refute the devices whose result of a tile differs from this gateway's.

        `results` are the devices with the fingerprints of their results.
        """
        devices = " and ".join(device for device, _ in results)
        text = f"{devices} differ in tile {run.key}/{index}"
        self._warnings.add("disagreement", text, now())
        correct = await self._correct_fingerprint(run, index)
        for device, fingerprint in results if correct is not None else ():
            if fingerprint != correct:
                reason = f"its result of tile {index} differs from this gateway's"
                self._feed(DeviceRefuted(run.key, device, reason))

    async def _correct_fingerprint(self, run: StageRun, index: int) -> int | None:
        """Return the fingerprint of a tile done here; None if this machine fails, too."""
        try:
            done = await self._tiles.do(run, index, _LEASE_S)
        except FogError as problem:
            text = f"{run.key}/{index} fails on this gateway too: {problem}"
            self._warnings.add("disagreement", text, now())
            return None
        except Exception:
            log.exception("tile %s/%d cannot be arbitrated", run.key, index)
            return None
        return done.checked.fingerprint
