"""Runs jobs, from the request to the delivered result. `JobRunner.process` is the whole sequence.

    submit -> decode -> for each stage: plan -> cut -> send -> result -> paste -> merge
           -> verify and post-process -> deliver

Each job is one coroutine. Cancelling a job cancels its coroutine. An exception ends its own job and
no other.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import Rect
from fogmqtt.errors import FogError, ImageError, JobTimedOut, NoDevice, TooLarge
from fogmqtt.gateway.background import race
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.registry import DeviceRegistry
from fogmqtt.gateway.devices.settling import Settling
from fogmqtt.gateway.events import EventBus, JobAccepted, JobEnded, JobProgressed
from fogmqtt.gateway.execution import stage_run
from fogmqtt.gateway.execution.dispatcher import Dispatcher
from fogmqtt.gateway.execution.resume import resume_stage
from fogmqtt.gateway.execution.stage_run import StageRun
from fogmqtt.gateway.execution.whole_image import StageAttempt, WholeImage
from fogmqtt.gateway.jobs.decode import Decoders, open_bytes
from fogmqtt.gateway.jobs.finalize import finalize, join_pages
from fogmqtt.gateway.jobs.ingest import IngestedJob, IngestedPage, ingest
from fogmqtt.gateway.jobs.memory_budget import MemoryBudget
from fogmqtt.gateway.jobs.model import Job, JobHandle, JobRequest, Outcome
from fogmqtt.gateway.jobs.queue import JobQueue
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.gateway.metrics import JobEnd, Metrics
from fogmqtt.gateway.threads import Threads
from fogmqtt.images.source import ArrayImage, ImageSource, as_array
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.base import StageOutput
from fogmqtt.operators.api.pipeline import Stage, format_pipeline, run_whole
from fogmqtt.wire.topics import LOCAL

log = logging.getLogger(__name__)

#: Seconds between two events about a job's progress.
PROGRESS_S: Final = 0.1
#: Seconds that a delivery may take. A slow disk needs less.
DELIVERY_S: Final = 120.0
#: The number of workers for an automatic plan while no device is online.
WORKERS_UNKNOWN: Final = 4
#: The number of deliveries that may hang; beyond it, further deliveries fail at once.
MAX_HUNG_DELIVERIES: Final = 16

T = TypeVar("T")


class JobRunner:
    """Runs jobs, each as a task. It belongs to the event loop."""

    def __init__(
        self,
        config: GatewayConfig,
        threads: Threads,
        registry: DeviceRegistry,
        settling: Settling,
        dispatcher: Dispatcher,
        whole_image: WholeImage,
        events: EventBus,
        decoders: Decoders,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._threads = threads
        self._registry = registry
        self._settling = settling
        self._dispatcher = dispatcher
        self._whole_image = whole_image
        self._bus = events
        self._decoders = decoders
        self._metrics = metrics
        self._memory = MemoryBudget()
        self._sample = config.verify.sample
        self.queue = JobQueue(config.limits.max_jobs)
        self._jobs: dict[str, tuple[JobHandle, asyncio.Task[Outcome]]] = {}
        #: Jobs whose delivery has not returned.
        self._deliveries: set[str] = set()

    def submit(self, request: JobRequest) -> JobHandle:
        """Take a job. It begins when its turn comes."""
        report = Report(
            request.job, request.name, request.pipeline, traceparent=request.traceparent
        )
        job = Job(
            request,
            report,
            self._memory.reservation(),
            attempt_ended=self._metrics.attempt_ended,
        )
        report.listed = request.listed
        task = asyncio.get_running_loop().create_task(self._run(job), name=f"job {job.id}")
        handle = JobHandle(job, task)
        self._jobs[job.id] = handle, task
        self._bus.emit(JobAccepted(report))
        return handle

    def job(self, job: str) -> JobHandle | None:
        """Return a job that has not ended; None if there is no such job."""
        entry = self._jobs.get(job)
        return None if entry is None else entry[0]

    def jobs(self) -> tuple[JobHandle, ...]:
        """Return the jobs that have not ended, in the order in which they were submitted."""
        return tuple(handle for handle, _ in self._jobs.values())

    async def decode(
        self, file: Path | bytes, name: str, *, max_pixels: int | None = None
    ) -> Image:
        """Decode the first page of an image file, when there is memory for it, to look at it.

        Raises ImageError, also for more than `max_pixels`, FogError and OSError.
        """
        memory = self._memory.reservation()

        def work() -> Image:
            number = open_bytes(file) if isinstance(file, bytes) else os.open(file, os.O_RDONLY)
            try:
                limit = max_pixels or self._config.limits.max_pixels
                read = self._decoders.read(number, name, max_pixels=limit, reserve=memory.take)
            finally:
                os.close(number)
            return read[0].image

        try:
            return await self._threads.apart(work, "decode")
        finally:
            memory.release()

    async def close(self, reason: str) -> None:
        """End every job without a result."""
        jobs = list(self._jobs.values())
        for handle, _ in jobs:
            handle.cancel(reason)
        self._decoders.close()
        await asyncio.gather(*(task for _, task in jobs), return_exceptions=True)

    # The steps of a job.

    async def process(self, job: Job) -> Outcome:
        """Do all steps up to the outcome. Raises FogError, and what operators raise."""
        ingested = await self.ingest(job)
        outcomes = [await self.process_page(job, page) for page in ingested.pages]
        return join_pages(outcomes, [page.metadata for page in ingested.pages])

    async def process_page(self, job: Job, page: IngestedPage) -> Outcome:
        """Do all stages of one page of the file; most files have one."""
        job.original, job.stages, entering = page.image, page.stages, page.image
        # There is at least one stage, and only the last one may return facts.
        for stage in job.stages:
            job.entering = entering
            with job.trace.span(f"stage {format_pipeline(stage.operators)}"):
                output = await self.run_stage(job, stage, entering)
            job.position += 1
            job.report.end_stage()
            if not isinstance(output, dict):
                entering = ArrayImage(output)
        return await self.finalize(job, output)

    async def ingest(self, job: Job) -> IngestedJob:
        """Decode the pages of the file, and split the pipeline into stages for each."""
        work = partial(ingest, job.request, self._config.limits, self._decoders, job.memory)
        with job.trace.span("decode"):
            ingested = await self._threads.apart(work, "ingest")
        job.operators, job.post = ingested.operators, ingested.post
        specs = [page.image.spec for page in ingested.pages]
        job.report.pixels = sum(spec.height * spec.width for spec in specs)
        job.report.stages = sum(len(page.stages) for page in ingested.pages)
        for note in ingested.notes:
            self._bus.notice(job.report, note)
        return ingested

    async def run_stage(self, job: Job, stage: Stage, image: ImageSource) -> StageOutput:
        """Do one stage: whole on this gateway, by tiles on the fleet, or both until one is done."""
        if not stage.tiled:
            return await self._run_whole(job, stage, image)
        with job.trace.span("plan"):
            await self._settling.wait(stage)
            attempt = await self._whole_image.plan(job, stage, image)
        if not attempt.by_tiles:
            job.trace.whole_stage(job.key, stage.source.size, is_done=False)
        won = await race(
            f"job {job.id}",
            self.run_tiles(job, stage, image, attempt) if attempt.by_tiles else None,
            self._whole_image.compute(job, stage, image, attempt) if attempt.may_be_whole else None,
        )
        self._whole_image.learn(job, attempt, by_tiles=won.by_tiles)
        if not won.by_tiles:
            self._credit_whole(job, stage)
        return won.result

    async def run_tiles(
        self, job: Job, stage: Stage, image: ImageSource, attempt: StageAttempt
    ) -> StageOutput:
        """Do one stage by tiles, cut again if the broker turns out to take smaller packets only."""
        while True:
            limits, before = self._dispatcher.limits(), job.report.snapshot()
            try:
                return await self._run_plan(job, stage, image, attempt)
            except TooLarge as problem:
                now_bytes = self._dispatcher.limits().message_bytes
                if now_bytes >= limits.message_bytes:
                    raise
                log.info("%s is cut into tiles of at most %d bytes: %s", job.id, now_bytes, problem)
            job.report.restore(before)
            job.replans += 1

    async def _run_plan(
        self, job: Job, stage: Stage, image: ImageSource, attempt: StageAttempt
    ) -> StageOutput:
        """Plan, cut, send, paste the results, and merge."""
        with job.trace.span("cut into tiles"):
            run = await self._on_image(job, self._planner(job, stage, image))
        attempt.done_pixels = 0
        self._count_planned(job, run)
        needs = self._registry.compatibility.needs(stage)
        helped = attempt.decision.helped
        scheduled = self._dispatcher.scheduled(job, run, needs, helped=helped)
        with job.trace.span("tiles"), scheduled as active:
            self._bus.emit(JobProgressed(job.report))
            async for kept in active.results():
                tile = run.tile(kept.tile)
                attempt.credit(tile.core.pixels)
                paste = partial(run.merger.paste, tile, kept.result)
                began_at = now()
                await self._threads.tile(paste, light=run.is_light(tile))
                active.trace.pasted(kept.tile, began_at)
                active.pasted[kept.tile] = active.pasted.get(kept.tile, 0) + 1
                self._publish_progress(job)
        with job.trace.span("merge"):
            return await self._on_image(job, run.merger.finish)

    async def _run_whole(self, job: Job, stage: Stage, image: ImageSource) -> StageOutput:
        """Do a stage that cannot be cut."""
        job.trace.whole_stage(job.key, stage.source.size, is_done=False)
        with job.trace.span("whole image"):
            output = await self._on_image(job, partial(_run_whole_stage, job, stage, image))
        job.trace.whole_stage(job.key, stage.source.size, is_done=True)
        return output

    async def finalize(self, job: Job, output: StageOutput) -> Outcome:
        """Verify, draw facts, and post-process. What the facts do not list is said."""
        outcome = await self._on_image(job, partial(finalize, job, output))
        if outcome.facts is not None and "note" in outcome.facts:
            self._bus.notice(job.report, f"facts: {outcome.facts['note']}")
        return outcome

    async def deliver(self, job: Job, outcome: Outcome) -> Outcome:
        """Call the request's `deliver`. A delivery that fails or hangs makes the job fail."""
        deliver = job.request.deliver
        if deliver is None:
            return outcome
        if len(self._deliveries) >= MAX_HUNG_DELIVERIES:
            reason = f"{job.request.name}: {len(self._deliveries)} deliveries hang; check the disk"
            return replace(outcome, error=reason, retryable=True)
        self._deliveries.add(job.id)

        def work() -> Sequence[str]:
            try:
                return deliver(outcome) or ()
            finally:
                self._deliveries.discard(job.id)

        try:
            async with asyncio.timeout(DELIVERY_S) as limit:
                with job.trace.span("deliver"):
                    notes = await self._threads.apart(work, "delivery")
        except Exception as problem:  # noqa: BLE001  # a delivery ends its own job at most
            reason = _describe(job, problem)
            if limit.expired():
                reason = f"{job.request.name}: not delivered within {DELIVERY_S:g} s"
            return replace(outcome, error=reason, retryable=True)
        for note in notes:
            self._bus.notice(job.report, note)
        return outcome

    # Around the steps.

    async def _run(self, job: Job) -> Outcome:
        """Wait for the job's turn, do it, and return how it ended."""
        job.task_started = True
        if job.cancel_reason:
            outcome = replace(_failed(job, job.cancel_reason), cancelled=True)
        else:
            outcome = await self._outcome(job)
        job.memory.release()
        job.trace.end()
        self._count(job, outcome)
        del self._jobs[job.id]
        self._bus.emit(JobEnded(job.report, outcome.error))
        return outcome

    def _count(self, job: Job, outcome: Outcome) -> None:
        """Count how a job ended."""
        pipeline, seconds = job.request.pipeline, job.report.seconds
        if outcome.error is None:
            self._metrics.job_ended(pipeline, "done", seconds)
        else:
            how: JobEnd = "cancelled" if outcome.cancelled else "failed"
            self._metrics.job_ended(pipeline, how, seconds)

    async def _outcome(self, job: Job) -> Outcome:
        limit = asyncio.timeout(job.request.timeout_s)
        try:
            async with limit, self.queue.turn(job.request.priority, job.request.user):
                job.started_at = now()
                job.trace.add_span("wait for its turn", job.trace.submitted_at)
                outcome = await self.process(job)
                job.report.seconds = now() - job.started_at
                return await self.deliver(job, outcome)
        except asyncio.CancelledError:
            failed = _failed(job, job.cancel_reason or "the job was cancelled")
            return replace(failed, cancelled=True)
        except Exception as problem:  # noqa: BLE001  # ends this job and no other
            if limit.expired():
                late = self._timed_out(job)
                return _failed(job, str(late), late)
            return _failed(job, _describe(job, problem), problem)

    async def _on_image(self, job: Job, work: Callable[[], T]) -> T:
        """Do work on the whole image beside the event loop."""
        return await self._threads.image(work, job.report.pixels)

    def _planner(self, job: Job, stage: Stage, image: ImageSource) -> Callable[[], StageRun]:
        """Return a function that cuts a stage for the present fleet and broker; for a thread."""
        limits, sample = self._dispatcher.limits(), self._sample
        workers = self._registry.workers() or WORKERS_UNKNOWN
        key, position, original, journal = job.key, job.position, job.original, job.request.journal
        assert original is not None  # noqa: S101  # set when the image was decoded

        def plan() -> StageRun:
            run = stage_run.plan_stage(
                key,
                stage,
                image,
                original,
                plan=job.request.tiles,
                limits=limits,
                workers=workers,
                sample=sample,
            )
            if journal is None:
                return run
            return resume_stage(run, journal, position, limits=limits, sample=sample)

        return plan

    def _count_planned(self, job: Job, run: StageRun) -> None:
        """Count the tiles, and the tiles that an earlier run of the gateway finished."""
        report = job.report
        report.tiles += len(run.planned_tiles) - len(run.halved)
        report.mosaic.clear()
        for tile, device in run.done.items():
            report.credit(device, run.tile(tile).core)
            report.done += 1

    def _credit_whole(self, job: Job, stage: Stage) -> None:
        job.trace.whole_stage(job.key, stage.source.size, is_done=True)
        job.report.credit(LOCAL, Rect(0, 0, *stage.source.size))
        job.report.tiles += 1
        job.report.done += 1
        self._publish_progress(job)

    def _publish_progress(self, job: Job) -> None:
        moment, report = now(), job.report
        if moment - job.progress_at >= PROGRESS_S or report.done == report.tiles:
            job.progress_at = moment
            report.seconds = moment - job.started_at
            self._bus.emit(JobProgressed(report))

    def _timed_out(self, job: Job) -> JobTimedOut:
        report, online = job.report, self._registry.present()
        waited = self._config.gateway.local == "never" and not online and not report.done
        kind = NoDevice if waited else JobTimedOut
        return kind(
            f"{report.name}: not done after {job.request.timeout_s:g} s (--timeout): "
            f"{report.done} of {report.tiles} tiles; devices online: {', '.join(online) or 'none'}"
        )


def _run_whole_stage(job: Job, stage: Stage, image: ImageSource) -> StageOutput:
    assert job.original is not None  # noqa: S101  # set when the image was decoded
    return run_whole(stage.operators, as_array(image), as_array(job.original))


def _failed(job: Job, reason: str, problem: Exception | None = None) -> Outcome:
    """Return the outcome of a job without a result."""
    if job.started_at:
        job.report.seconds = now() - job.started_at
    never_decoded = job.original is None
    retryable = not (never_decoded and isinstance(problem, ImageError | JobTimedOut | None))
    cause = problem if isinstance(problem, FogError) else None
    return Outcome(job.id, job.report, error=reason, cause=cause, retryable=retryable)


def _describe(job: Job, problem: Exception) -> str:
    if isinstance(problem, FogError):
        return str(problem)
    if isinstance(problem, OSError):
        return f"{job.request.name}: {problem}"
    text = "job %s failed unexpectedly"
    log.error(text, job.id, exc_info=problem, extra={"job": job.id})
    return f"{job.request.name}: {type(problem).__name__}: {problem}"
