"""A tiled stage while the scheduler has its tiles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fogmqtt.errors import FogError, JobFailed
from fogmqtt.gateway.execution.stage_run import StageRun
from fogmqtt.gateway.jobs.model import Job
from fogmqtt.operators.api.results import TileResult


@dataclass(frozen=True, slots=True)
class KeptResult:
    """The result that counts for a tile; a later one for the same tile replaces it."""

    tile: int
    device: str
    result: TileResult


@dataclass(eq=False, slots=True)
class ActiveStage:
    """It belongs to the event loop."""

    job: Job
    run: StageRun
    #: What a device must offer to do its tiles.
    needs: frozenset[str]
    #: Device and fingerprint of the result that counts, by tile.
    kept: dict[int, tuple[str, int]] = field(default_factory=dict)
    #: No device has been able to do its tiles for a while.
    starved: bool = False
    #: The scheduler has let go of it.
    over: bool = False
    _arrived: asyncio.Queue[KeptResult | FogError | None] = field(default_factory=asyncio.Queue)

    @property
    def key(self) -> str:
        return self.run.key

    async def results(self) -> AsyncIterator[KeptResult]:
        """Yield results until every tile has one. Raises JobFailed if that cannot be."""
        while (arrived := await self._arrived.get()) is not None:
            if isinstance(arrived, FogError):
                raise arrived
            yield arrived

    def put(self, kept: KeptResult) -> None:
        """Hand a result to the job's coroutine."""
        self._arrived.put_nowait(kept)

    def finish(self) -> None:
        """Every tile has its result."""
        self.over = True
        self._arrived.put_nowait(None)

    def fail(self, reason: str | FogError) -> None:
        """No result can come any more, for this reason."""
        self._arrived.put_nowait(JobFailed(reason) if isinstance(reason, str) else reason)
