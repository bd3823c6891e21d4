"""Stages that this gateway does whole, on all its cores: where no fleet is faster.

Cutting, carrying and merging cost more than the work of a cheap operator, on any fleet. A whole is
exact by definition, so it may replace the tiles at any moment, and be dropped as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial

from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import Auto
from fogmqtt.gateway.execution.cost_model import CostModel, HelperDevice, StageTrial
from fogmqtt.gateway.jobs.model import Job
from fogmqtt.gateway.loop import Loop, now
from fogmqtt.images.spec import Image
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.base import StageOutput
from fogmqtt.operators.api.pipeline import Operators, Stage, format_pipeline, run_whole

#: A whole takes several times its image's memory, tiles take little: no more than so many pixels.
WHOLE_PIXELS = 100_000_000
#: Rows that are timed where nobody knows yet how long a kind of work takes here.
_SAMPLE_ROWS = 64

log = logging.getLogger(__name__)

Helpers = Callable[[Stage], Mapping[str, HelperDevice]]


class WholeImage:
    """Decides how stages are done, and does those that are done whole. Owner thread only.

    `helpers` says which devices can do a stage's tiles now.
    """

    def __init__(self, config: GatewayConfig, loop: Loop, helpers: Helpers) -> None:
        self._may = config.gateway.local != "never"
        self._loop = loop
        self._helpers = helpers
        self._prospects = CostModel()

    def consider(self, job: Job, image: Image, then: Callable[[], None]) -> None:
        """Give the job a trial for its next stage; `then` is called when it has one."""
        stage = job.stages[job.position]
        kind, pixels = _kind(stage), image.shape[0] * image.shape[1]

        def decide() -> None:
            job.trial = self._trial(job, stage, kind, pixels)
            then()

        def timed(seconds: float) -> None:
            rows = min(_SAMPLE_ROWS, image.shape[0])
            self._prospects.learn_alone(kind, rows * image.shape[1], seconds)
            decide()

        if not self._possible(job, stage, pixels) or self._prospects.alone_known(kind, pixels):
            decide()
            return

        def cannot(problem: Exception) -> None:
            log.debug("%s cannot be timed on a sample: %s", kind, problem)
            decide()

        self._loop.submit(lambda: _sample_s(_operators(stage), image), timed, cannot, local=True)

    def start(
        self,
        job: Job,
        image: Image,
        then: Callable[[StageOutput], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Do the stage whole. Nobody is called if the job has left the stage by then."""
        stage, original, trial, position = (
            job.stages[job.position],
            job.original,
            job.trial,
            job.position,
        )
        assert original is not None and trial is not None  # noqa: S101, PT018  # considered
        trial.whole = True
        began_at = now()

        def done(made: StageOutput) -> None:
            took_s = now() - began_at
            # Beside tiles it is slower than alone.
            if trial.choice == "alone" or took_s < (trial.prospect.alone_s or 0.0):
                self._prospects.learn_alone(trial.kind, trial.pixels, took_s)
            if not job.ending and job.position == position:
                self.over(job, alone_s=took_s)
                then(made)

        def broken(problem: Exception) -> None:
            if not job.ending and job.position == position:
                failed(problem)

        self._loop.submit(
            lambda: run_whole(_operators(stage), image, original), done, broken, local=True
        )

    def over(self, job: Job, alone_s: float | None = None) -> None:
        """The job's stage is over: by tiles, or by a whole that took `alone_s`."""
        trial, moment = job.trial, now()
        if trial is None:
            return
        job.trial = None
        trial.teach(self._prospects, moment, by_tiles=alone_s is None)
        if alone_s is not None:
            job.report.take_back(trial.mark)
        trial.tell(job.report, moment, alone_s)

    def _trial(self, job: Job, stage: Stage, kind: str, pixels: int) -> StageTrial:
        helpers = self._helpers(stage)
        prospect = self._prospects.look(kind, pixels, helpers)
        possible = self._possible(job, stage, pixels)
        return StageTrial(
            kind,
            pixels,
            prospect,
            prospect.choice() if possible else "tiles",
            helpers,
            now(),
            possible and prospect.worthwhile,
            job.report.mark(),
        )

    def _possible(self, job: Job, stage: Stage, pixels: int) -> bool:
        return (
            self._may
            # A plan of the user's own is kept to, and so is what an earlier life began.
            and isinstance(job.request.tiles, Auto)
            and not job.request.life
            and pixels <= WHOLE_PIXELS
            and all(registry.is_built_in(operator.name) for operator in _operators(stage))
        )


def _operators(stage: Stage) -> Operators:
    return (*stage.gateway_operators, *stage.operators)


def _kind(stage: Stage) -> str:
    return f"{stage.source.channels} {stage.source.dtype} {format_pipeline(_operators(stage))}"


def _sample_s(operators: Operators, image: Image) -> float:
    sample = image[:_SAMPLE_ROWS]
    return min(_timed(partial(run_whole, operators, sample, sample)) for _ in range(2))


def _timed(work: Callable[[], object]) -> float:
    began = now()
    work()
    return now() - began
