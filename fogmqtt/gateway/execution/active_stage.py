"""A tiled stage while the scheduler has its tiles, and the queue of its results."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from msgspec import Struct

from fogmqtt.core.link_rate import Compression
from fogmqtt.errors import FogError, JobFailed
from fogmqtt.gateway.devices.links import DeviceLinks
from fogmqtt.gateway.execution.stage_run import StageRun
from fogmqtt.gateway.jobs.model import Job
from fogmqtt.gateway.jobs.trace import StageTrace
from fogmqtt.images import codec
from fogmqtt.images.spec import Spec
from fogmqtt.operators.api.results import TileResult


class KeptResult(Struct, frozen=True):
    """The valid result of a tile; a later one for the same tile replaces it."""

    tile: int
    device: str
    result: TileResult


class TileCodecs(Struct, frozen=True):
    """How a tile travels to a device, and its result back."""

    tile: str
    result: str


@dataclass(eq=False, slots=True)
class ActiveStage:
    """Connects the dispatcher with the job's coroutine. It belongs to the event loop."""

    job: Job
    run: StageRun
    #: The abilities that a device must have.
    needs: frozenset[str]
    #: Whether the gateway's own cores should help the devices.
    helped: bool = True
    #: When nobody wants the result any more; infinity if that never happens.
    deadline: float = math.inf
    #: Device and fingerprint of the valid result, by tile.
    kept: dict[int, tuple[str, int]] = field(default_factory=dict)
    #: How often each tile's result was pasted; for those who look at the merged image.
    pasted: dict[int, int] = field(default_factory=dict)
    #: What `png` saves and costs for this stage's pixels.
    png: Compression = field(default_factory=Compression)
    #: Whether no device has been able to do its tiles for a while.
    starved: bool = False
    #: Whether the scheduler has finished or failed it.
    over: bool = False
    #: What happens to its tiles.
    trace: StageTrace = field(init=False)
    _results: asyncio.Queue[KeptResult | FogError | None] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        run = self.run
        self.trace = self.job.trace.begin_stage(run.key, run.stage.source.size, run.planned_tiles)
        first = len(run.tiles)
        check_tiles = range(first, first + len(run.check_tiles))
        self.trace.add_check_tiles(run.tile(index) for index in check_tiles)
        self.trace.add_split(run.halved)
        self.trace.add_done(run.done)

    @property
    def key(self) -> str:
        """The name of the stage for the scheduler and in messages."""
        return self.run.key

    def codecs(self, configured: str, links: DeviceLinks, device: str) -> TileCodecs:
        """Return the codecs for one device. `configured` is `wire.codec`.

        With `auto`, a tile and its result are `png` where the link needs longer for the bytes that
        this saves than the codec takes. With `png` only the tile is. A device gets no codec that it
        does not announce, except `facts`, which is the only one for facts.
        """
        own, stage = self.run.operators[-1].result_codec, self.run.stage
        if own == "bitplanes" and not links.knows(device, own):
            own = "raw"
        knows_png = links.knows(device, "png")
        pays = knows_png and configured == "auto" and self.png.pays(links.bytes_per_s(device))
        tile_is_png = (pays or (knows_png and configured == "png")) and _png_holds(stage.sent)
        result_is_png = pays and own == "raw" and _png_holds(stage.result)
        return TileCodecs("png" if tile_is_png else "raw", "png" if result_is_png else own)

    async def results(self) -> AsyncIterator[KeptResult]:
        """Yield results until every tile has one. Raises JobFailed if the stage failed."""
        while (result := await self._results.get()) is not None:
            if isinstance(result, FogError):
                raise result
            yield result

    def put(self, kept: KeptResult) -> None:
        """Pass a result to the job's coroutine."""
        self._results.put_nowait(kept)

    def finish(self) -> None:
        """End `results`: every tile has its result."""
        self.over = True
        self._results.put_nowait(None)

    def fail(self, reason: str | FogError) -> None:
        """Let `results` raise this error, or JobFailed with this reason."""
        self._results.put_nowait(JobFailed(reason) if isinstance(reason, str) else reason)


def _png_holds(spec: Spec) -> bool:
    return codec.png_holds(spec.channels, spec.dtype)
