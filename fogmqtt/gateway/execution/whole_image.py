"""Stages that this gateway does whole, on all its cores, because no fleet is faster.

For a cheap operator, cutting, transfer and merging take longer than the work itself. A whole image
is exact by definition, so its result may replace the tiles at any moment. It counts as a second
copy of all the tiles that are left, and starts by the same rule as a second copy of one tile.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from fogmqtt.core.geometry import Auto, Rect
from fogmqtt.errors import FogError
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.registry import DeviceRegistry
from fogmqtt.gateway.execution.cost_model import CostModel, Costs, StageDemand, compare_times
from fogmqtt.gateway.execution.dispatcher import Dispatcher
from fogmqtt.gateway.execution.stage_run import result_pixel_bytes
from fogmqtt.gateway.jobs.model import Job
from fogmqtt.gateway.jobs.report import ReportSnapshot
from fogmqtt.gateway.threads import Threads
from fogmqtt.images.source import ImageSource, as_array
from fogmqtt.images.spec import Image
from fogmqtt.operators.api import registry as operator_registry
from fogmqtt.operators.api.base import StageOutput
from fogmqtt.operators.api.pipeline import Operators, Stage, format_pipeline, run_whole

log = logging.getLogger(__name__)

#: The largest image that is done whole, in pixels: it takes several times the image's memory.
WHOLE_PIXELS: Final = 100_000_000
#: The rows of the sample that is timed if the time of a kind of work is not known yet.
_SAMPLE_ROWS: Final = 64
#: The whole image is begun if the tiles that are left need this many times its time.
_LATE_FACTOR: Final = 1.2
#: The speed of tiles is judged after this part of the whole image's time, …
_FIRST_CHECK: Final = 0.1
#: … and if no tile is done by then, after this part.
_FIRST_CHECK_WITHOUT_TILES: Final = 0.5
#: Seconds between two checks whether tiles are late.
_CHECK_S: Final = 0.02


@dataclass(slots=True)
class StageAttempt:
    """A tiled stage in progress: its expected costs, and the measurements so far."""

    work: StageDemand
    costs: Costs
    #: Whether the gateway may do the stage whole, at once or when its tiles are late.
    may_be_whole: bool
    #: The progress of the job's report before this stage.
    before: ReportSnapshot
    began_at: float = field(default_factory=now)
    done_pixels: int = 0
    #: Seconds that the whole image took, if it was done whole.
    whole_s: float | None = None

    @property
    def by_tiles(self) -> bool:
        return self.costs.by_tiles

    def credit(self, pixels: int) -> None:
        """Count the pixels of a merged tile."""
        self.done_pixels += pixels

    def tiles_s(self, moment: float) -> float | None:
        """Return the seconds for all tiles at the speed so far; None while no tile is done."""
        if not self.done_pixels:
            return None
        return (moment - self.began_at) * self.work.pixels / self.done_pixels

    def is_late(self, moment: float) -> bool:
        """Whether the whole image, begun now, would probably finish before the other tiles."""
        whole_s = self.costs.whole_s
        if whole_s is None:
            return False
        elapsed_s, total_s = moment - self.began_at, self.tiles_s(moment)
        if total_s is None:
            return elapsed_s > _FIRST_CHECK_WITHOUT_TILES * whole_s
        return elapsed_s > _FIRST_CHECK * whole_s and total_s - elapsed_s > _LATE_FACTOR * whole_s


class WholeImage:
    """Decides whether a stage is cut, and does stages whole. It belongs to the event loop."""

    def __init__(
        self,
        threads: Threads,
        registry: DeviceRegistry,
        dispatcher: Dispatcher,
        costs: CostModel,
        *,
        allowed: bool,
    ) -> None:
        self._threads = threads
        self._registry = registry
        self._dispatcher = dispatcher
        self._costs = costs
        self._allowed = allowed

    async def plan(self, job: Job, stage: Stage, image: ImageSource) -> StageAttempt:
        """Decide whether a stage is cut or done whole."""
        spec = image.spec
        pixels = spec.height * spec.width
        work = StageDemand(
            format_pipeline(stage.operators),
            f"{spec.channels} {spec.dtype} {format_pipeline(stage.gateway_operators)}",
            self._registry.compatibility.needs(stage),
            pixels,
            pixels * (stage.sent.pixel_bytes + result_pixel_bytes(stage)),
        )
        possible = self._possible(job, stage, pixels)
        if possible and not self._costs.knows_whole(work):
            await self._time_sample(work, _operators(stage), image)
        able = self._registry.able(self._dispatcher.ready_devices(), stage)
        costs = self._costs.costs(work, able, whole=possible)
        may_be_whole = possible and not (costs.by_tiles and costs.tiles_s is None)
        return StageAttempt(work, costs, may_be_whole, job.report.snapshot())

    async def compute(
        self, job: Job, stage: Stage, image: ImageSource, attempt: StageAttempt
    ) -> StageOutput:
        """Do the stage whole, at once or as soon as its tiles are late."""
        while attempt.by_tiles and not attempt.is_late(now()):
            await asyncio.sleep(_CHECK_S)
        began_at, original = now(), job.original
        assert original is not None  # noqa: S101  # set when the image was decoded
        output = await self._threads.image(
            lambda: run_whole(_operators(stage), as_array(image), as_array(original)),
            attempt.work.pixels,
        )
        attempt.whole_s = now() - began_at
        # Beside tiles it is slower than alone, so only a faster time is learned then.
        if not attempt.by_tiles or attempt.whole_s < (attempt.costs.whole_s or 0.0):
            self._costs.learn_whole(attempt.work, attempt.work.pixels, attempt.whole_s)
        return output

    def learn(self, job: Job, attempt: StageAttempt, *, by_tiles: bool) -> None:
        """Remember what the stage took, and write it into the job's report."""
        moment, report = now(), job.report
        took_s = moment - attempt.began_at
        tiles_s = took_s if by_tiles else attempt.tiles_s(moment)
        if tiles_s is None and attempt.by_tiles:
            tiles_s = max(took_s, attempt.costs.tiles_s or 0.0)  # it would have taken longer
        if attempt.by_tiles and tiles_s is not None:
            self._costs.learn_tiles(attempt.work, attempt.costs, tiles_s)
        report.makespan += took_s
        if by_tiles:
            report.add_alone(attempt.costs.whole_s, measured=False)
            return
        report.restore(attempt.before)
        whole_s = attempt.whole_s or took_s
        report.add_alone(whole_s, measured=True)
        report.add_reason(_why_whole(attempt, tiles_s, whole_s))

    async def _time_sample(
        self, work: StageDemand, operators: Operators, image: ImageSource
    ) -> None:
        sample = Rect(0, 0, min(_SAMPLE_ROWS, image.spec.height), image.spec.width)
        try:
            seconds = await self._threads.image(
                lambda: _time_whole(operators, image.read(sample)), sample.pixels
            )
        except FogError as problem:
            log.debug("%s cannot be timed on a sample: %s", work.kind, problem)
            return
        self._costs.learn_whole(work, sample.pixels, seconds)

    def _possible(self, job: Job, stage: Stage, pixels: int) -> bool:
        return (
            self._allowed
            # A user's own plan is kept, and so are the tiles of an earlier run.
            and isinstance(job.request.tiles, Auto)
            and not job.request.run_suffix
            and pixels <= WHOLE_PIXELS
            and all(operator_registry.is_built_in(operator.name) for operator in _operators(stage))
        )


def _operators(stage: Stage) -> Operators:
    return (*stage.gateway_operators, *stage.operators)


def _why_whole(attempt: StageAttempt, tiles_s: float | None, whole_s: float) -> str:
    expected_s = tiles_s if tiles_s is not None else attempt.costs.tiles_s
    if expected_s is None:
        return f"no device can help with this now: this gateway took {whole_s:.2f} s alone"
    return compare_times(max(expected_s, whole_s), whole_s)


def _time_whole(operators: Operators, sample: Image) -> float:
    """Return the seconds of the faster of two runs: the first one loads what operators need."""

    def once() -> float:
        began = now()
        run_whole(operators, sample, sample)
        return now() - began

    return min(once(), once())
