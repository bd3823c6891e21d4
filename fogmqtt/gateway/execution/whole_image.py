"""Stages that this gateway does whole, on all its cores: where no fleet is faster.

Cutting, carrying and merging cost more than the work of a cheap operator, on any fleet. A whole
image is exact by definition, so its result may replace the tiles at any moment.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final

from fogmqtt.core.geometry import Auto, Rect
from fogmqtt.errors import FogError
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.registry import DeviceRegistry
from fogmqtt.gateway.execution.cost_model import CostModel, StageTrial
from fogmqtt.gateway.execution.dispatcher import Dispatcher
from fogmqtt.gateway.jobs.model import Job
from fogmqtt.gateway.threads import Threads
from fogmqtt.images.source import ImageSource, as_array
from fogmqtt.images.spec import Image
from fogmqtt.operators.api import registry as operator_registry
from fogmqtt.operators.api.base import Made
from fogmqtt.operators.api.pipeline import Operators, Stage, whole, written

#: A whole image takes several times its memory, tiles take little: no more pixels than these.
WHOLE_PIXELS: Final = 100_000_000
#: Rows that are timed where nobody knows yet how long a kind of work takes here.
_SAMPLE_ROWS: Final = 64
#: Seconds between two checks of whether tiles come as fast as they should.
_CHECK_S: Final = 0.05

log = logging.getLogger(__name__)


class WholeImage:
    """Decides how stages are done, and does those that are done whole."""

    def __init__(
        self, threads: Threads, registry: DeviceRegistry, dispatcher: Dispatcher, *, allowed: bool
    ) -> None:
        self._threads = threads
        self._registry = registry
        self._dispatcher = dispatcher
        self._allowed = allowed
        self._costs = CostModel()

    async def trial(self, job: Job, stage: Stage, image: ImageSource) -> StageTrial:
        """Decide how a stage is to be done: by tiles, whole, or both until one is ready."""
        kind, pixels = _kind(stage), image.spec.height * image.spec.width
        possible = self._possible(job, stage, pixels)
        if possible and not self._costs.alone_known(kind, pixels):
            await self._time_sample(kind, _operators(stage), image)
        able = self._registry.able(self._dispatcher.ready_devices(), stage)
        estimate = self._costs.look(kind, pixels, able)
        return StageTrial(
            kind,
            pixels,
            estimate,
            estimate.choice() if possible else "tiles",
            able,
            now(),
            possible and estimate.worthwhile,
            job.report.mark(),
        )

    async def compute(self, job: Job, stage: Stage, image: ImageSource, trial: StageTrial) -> Made:
        """Do the stage whole, at once or as soon as its tiles are late."""
        while trial.choice == "tiles" and not trial.is_late(now()):
            await asyncio.sleep(_CHECK_S)
        trial.whole = True
        began_at = now()
        original = job.original
        assert original is not None  # noqa: S101  # set before the first stage
        made = await self._threads.image(
            lambda: whole(_operators(stage), as_array(image), as_array(original))
        )
        took_s = now() - began_at
        # Beside tiles it is slower than alone.
        if trial.choice == "alone" or took_s < (trial.prospect.alone_s or 0.0):
            self._costs.learn_alone(trial.kind, trial.pixels, took_s)
        trial.alone_s = took_s
        return made

    def learn(self, job: Job, trial: StageTrial, *, by_tiles: bool) -> None:
        """Remember how fast everybody was: the stage is over, by tiles or whole."""
        moment = now()
        trial.teach(self._costs, moment, by_tiles=by_tiles)
        if not by_tiles:
            job.report.take_back(trial.mark)
        trial.tell(job.report, moment, None if by_tiles else trial.alone_s)

    async def _time_sample(self, kind: str, operators: Operators, image: ImageSource) -> None:
        rows = min(_SAMPLE_ROWS, image.spec.height)
        sample = image.read(Rect(0, 0, rows, image.spec.width))
        try:
            seconds = await self._threads.image(partial(_sample_s, operators, sample))
        except FogError as problem:
            log.debug("%s cannot be timed on a sample: %s", kind, problem)
            return
        self._costs.learn_alone(kind, rows * image.spec.width, seconds)

    def _possible(self, job: Job, stage: Stage, pixels: int) -> bool:
        return (
            self._allowed
            # A plan of the user's own is kept to, and so is what an earlier run began.
            and isinstance(job.request.tiles, Auto)
            and not job.request.run_suffix
            and pixels <= WHOLE_PIXELS
            and all(operator_registry.is_ours(operator.name) for operator in _operators(stage))
        )


def _operators(stage: Stage) -> Operators:
    return (*stage.narrowing, *stage.operators)


def _kind(stage: Stage) -> str:
    return f"{stage.source.channels} {stage.source.dtype} {written(_operators(stage))}"


def _sample_s(operators: Operators, sample: Image) -> float:
    return min(_whole_s(operators, sample) for _ in range(2))


def _whole_s(operators: Operators, sample: Image) -> float:
    began = now()
    whole(operators, sample, sample)
    return now() - began
