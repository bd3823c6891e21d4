"""Stages that this gateway does whole, on all its cores, because no fleet is faster.

For a cheap operator, cutting, transfer and merging take longer than the work itself. A whole image
is exact by definition, so its result may replace the tiles at any moment. It counts as a second
copy of all the tiles that are left, and starts by the same rule as a second copy of one tile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from fogmqtt.core.geometry import Auto, Rect
from fogmqtt.errors import FogError
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.registry import AbleDevice, DeviceRegistry
from fogmqtt.gateway.execution.cost_model import CostModel, Decision, StageDemand, compare_times
from fogmqtt.gateway.execution.dispatcher import Dispatcher
from fogmqtt.gateway.execution.stage_run import result_pixel_bytes, run_in_strips
from fogmqtt.gateway.jobs.model import Job
from fogmqtt.gateway.jobs.report import ReportSnapshot
from fogmqtt.gateway.threads import Threads
from fogmqtt.images.source import ImageSource, as_array
from fogmqtt.images.spec import Image
from fogmqtt.operators.api import registry as operator_registry
from fogmqtt.operators.api.base import StageOutput
from fogmqtt.operators.api.pipeline import Operators, Stage, format_pipeline, run_whole

T = TypeVar("T")

log = logging.getLogger(__name__)

#: A larger image is done in strips, in pixels: as a whole it takes several times its own memory.
STRIPS_PIXELS: Final = 32_000_000
#: The part of an image that is timed if the time of a kind of work is not known yet: a smaller one
#: stays in the processor's cache, and seems faster than it is.
_SAMPLE_SHARE: Final = 1 / 16
#: The pixels of the sample, at most.
_SAMPLE_PIXELS: Final = 2_000_000
#: The rows of the sample, at least, and the rows that are done before, so that nothing is loaded
#: while the sample is timed.
_SAMPLE_ROWS: Final = 64
_FIRST_ROWS: Final = 16
#: The whole image is begun if the tiles that are left need this many times its time.
_LATE_FACTOR: Final = 1.2
#: The speed of tiles is judged after this part of the whole image's time, since the first ones take
#: longer to come, …
_FIRST_CHECK: Final = 0.3
#: … and if no tile is done by then, after this part.
_FIRST_CHECK_WITHOUT_TILES: Final = 0.5
#: The same if tiles were never tried with these devices.
_FIRST_CHECK_OF_TRIAL: Final = 0.3
#: Seconds for the first tile of any stage, at least: it is cut, carried and read before it is done.
_FIRST_TILE_S: Final = 0.15
#: Seconds between two checks whether tiles are late.
_CHECK_S: Final = 0.02


@dataclass(slots=True)
class StageAttempt:
    """A stage in progress: how it is done, and the measurements so far."""

    work: StageDemand
    decision: Decision
    #: The devices that can do its tiles, when it began.
    able: Mapping[str, AbleDevice]
    #: Whether the gateway may do the stage whole, at once or when its tiles are late.
    may_be_whole: bool
    #: The progress of the job's report before this stage.
    before: ReportSnapshot
    began_at: float = field(default_factory=now)
    done_pixels: int = 0
    #: Seconds that the whole image took, and the cores that it kept busy, if it was done whole.
    whole_s: float | None = None
    busy_cores: float = 1.0

    @property
    def by_tiles(self) -> bool:
        return self.decision.by_tiles

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
        whole_s = self.decision.whole_s
        if whole_s is None:
            return False
        elapsed_s, total_s = moment - self.began_at, self.tiles_s(moment)
        if total_s is None:
            part = _FIRST_CHECK_OF_TRIAL if self.decision.is_trial else _FIRST_CHECK_WITHOUT_TILES
            return elapsed_s > max(part * whole_s, _FIRST_TILE_S)
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
        possible = self._possible(job, stage)
        if self._is_ours(stage) and not self._costs.knows_whole(work):
            await self._time_sample(work, _operators(stage), image)
        able = self._registry.able(self._dispatcher.ready_devices(), stage)
        decision = self._costs.decide(work, able, whole=possible)
        may_be_whole = possible and not (decision.by_tiles and decision.tiles_s is None)
        return StageAttempt(work, decision, able, may_be_whole, job.report.snapshot())

    async def compute(
        self, job: Job, stage: Stage, image: ImageSource, attempt: StageAttempt
    ) -> StageOutput:
        """Do the stage whole, at once or as soon as its tiles are late."""
        while attempt.by_tiles and not attempt.is_late(now()):
            await asyncio.sleep(_CHECK_S)
        began_at, original, pixels = now(), job.original, attempt.work.pixels
        assert original is not None  # noqa: S101  # set when the image was decoded

        def work() -> StageOutput:
            if pixels > STRIPS_PIXELS:
                return run_in_strips(stage, image, original)
            return run_whole(_operators(stage), as_array(image), as_array(original))

        with job.trace.span("whole image", "whole image"):
            output, attempt.busy_cores = await self._threads.image(
                lambda: _count_cores(work), pixels
            )
        attempt.whole_s = now() - began_at
        return output

    def learn(self, job: Job, attempt: StageAttempt, *, by_tiles: bool) -> None:
        """Remember what the stage took, and write it into the job's report."""
        moment, report, work = now(), job.report, attempt.work
        took_s = moment - attempt.began_at
        tiles_s = took_s if by_tiles else attempt.tiles_s(moment)
        if attempt.by_tiles:
            # Without any tile nobody knows how long they would have taken, only that it was longer.
            known_s = took_s if tiles_s is None else tiles_s
            self._costs.learn_tiles(work, attempt.able, known_s, lost=tiles_s is None)
        report.makespan += took_s
        if by_tiles:
            report.add_alone(attempt.decision.whole_s, measured=False)
            return
        report.restore(attempt.before)
        whole_s = attempt.whole_s or took_s
        # Beside tiles it is slower than alone.
        if not attempt.by_tiles or whole_s < (attempt.decision.whole_s or 0.0):
            self._costs.learn_whole(work, whole_s, attempt.busy_cores)
        report.add_alone(whole_s, measured=True)
        report.add_reason(_why_whole(attempt, tiles_s, whole_s))

    async def _time_sample(
        self, work: StageDemand, operators: Operators, image: ImageSource
    ) -> None:
        spec = image.spec
        rows = round(min(_SAMPLE_SHARE * spec.height, _SAMPLE_PIXELS / spec.width))
        rows = min(max(_SAMPLE_ROWS, rows), spec.height)
        sample = Rect(0, 0, rows, spec.width)
        try:
            seconds, busy = await self._threads.image(
                lambda: _time_whole(operators, image.read(sample)), sample.pixels
            )
        except FogError as problem:
            log.debug("%s cannot be timed on a sample: %s", work.kind, problem)
            return
        self._costs.learn_sample(work, sample.pixels, seconds, busy)

    def _possible(self, job: Job, stage: Stage) -> bool:
        return (
            self._allowed
            # A user's own plan is kept, and so are the tiles of an earlier run.
            and isinstance(job.request.tiles, Auto)
            and not job.request.run_suffix
            and self._is_ours(stage)
        )

    def _is_ours(self, stage: Stage) -> bool:
        """Whether this gateway may run the stage's operators in its own process."""
        return self._allowed and all(
            operator_registry.is_built_in(operator.name) for operator in _operators(stage)
        )


def _operators(stage: Stage) -> Operators:
    return (*stage.gateway_operators, *stage.operators)


def _why_whole(attempt: StageAttempt, tiles_s: float | None, whole_s: float) -> str:
    expected_s = tiles_s if tiles_s is not None else attempt.decision.tiles_s
    if expected_s is None:
        return f"no device can help with this now: this gateway took {whole_s:.2f} s alone"
    return compare_times(max(expected_s, whole_s), whole_s)


def _count_cores(work: Callable[[], T]) -> tuple[T, float]:
    """Return the result, and the number of cores that this process kept busy meanwhile."""
    began, used = now(), time.process_time()
    result = work()
    return result, max(1.0, (time.process_time() - used) / max(now() - began, 1e-6))


def _time_whole(operators: Operators, sample: Image) -> tuple[float, float]:
    """Return the seconds of a sample, and the cores that it kept busy."""
    few = sample[:_FIRST_ROWS]
    run_whole(operators, few, few)  # loads what the operators need
    began = now()
    _, busy = _count_cores(lambda: run_whole(operators, sample, sample))
    return now() - began, busy
