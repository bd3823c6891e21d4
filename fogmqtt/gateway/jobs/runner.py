"""Jobs under way: from request through stages to the outcome. Owner thread only."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import Rect
from fogmqtt.core.scheduling import actions as act
from fogmqtt.core.scheduling.events import Event, JobCancelled, JobSubmitted
from fogmqtt.errors import FogError, ImageError
from fogmqtt.gateway.execution import stage_run
from fogmqtt.gateway.execution.whole_image import Helpers, WholeImage
from fogmqtt.gateway.jobs import ingest
from fogmqtt.gateway.jobs.finalize import finalize
from fogmqtt.gateway.jobs.model import Job, JobRequest, Outcome
from fogmqtt.gateway.jobs.queue import JobQueue
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.gateway.loop import Loop, now
from fogmqtt.gateway.storage import job_journal
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.base import StageOutput
from fogmqtt.operators.api.pipeline import run_whole
from fogmqtt.operators.api.results import TileResult
from fogmqtt.wire.topics import LOCAL

log = logging.getLogger(__name__)

#: A client hears of progress at most this often.
PROGRESS_S = 0.1
#: Seconds between two looks at whether tiles come as fast as they should.
LOOK_S = 0.05

T = TypeVar("T")


class JobRunner:
    """Owns the jobs. `feed` hands an event to the scheduler.

    `limits`, `workers` and `needs` are asked when a stage begins, which is not before
    `settles_at`, None while that is not known: a fleet whose retained topics are still coming in,
    or that cannot be judged yet, cannot be planned for. `helpers` is asked then, too. `forget`
    hears of a stage whose tiles are not wanted any more.
    """

    def __init__(
        self,
        config: GatewayConfig,
        loop: Loop,
        feed: Callable[[Event], None],
        *,
        limits: Callable[[], stage_run.MessageLimits],
        workers: Callable[[], int],
        settles_at: Callable[[], float | None],
        needs: Callable[[stage_run.StageRun], frozenset[str]],
        helpers: Helpers,
        forget: Callable[[str], None],
    ) -> None:
        self._config = config
        self._loop = loop
        self._feed = feed
        self._limits = limits
        self._workers = workers
        self._settles_at = settles_at
        self._needs = needs
        self._forget = forget
        self._alone = WholeImage(config, loop, helpers)
        self._intake = ingest.Ingest(config.limits, loop)
        #: Whether no job may be begun for now; whoever changes that calls `admit`.
        self.held: Callable[[], bool] = lambda: False
        self._backlog = JobQueue(config.limits.max_jobs)
        self._jobs: dict[str, Job] = {}
        self._by_key: dict[str, Job] = {}
        self._unsettled: list[Callable[[], None]] = []

    @property
    def idle(self) -> bool:
        return not self._jobs and not self._backlog.waiting

    @property
    def waiting(self) -> int:
        """Requests that no work was done for yet."""
        return self._backlog.waiting

    def jobs(self) -> tuple[Job, ...]:
        return tuple(self._jobs.values())

    @property
    def wants_local(self) -> bool:
        """Whether some job's tiles should be done by this machine, too."""
        return any(job.trial is not None and job.trial.wants_local for job in self._by_key.values())

    def job(self, key: str) -> Job | None:
        """The job whose stage at work goes by this key."""
        return self._by_key.get(key)

    def submit(self, request: JobRequest) -> None:
        self._backlog.add(request)
        self.admit()

    def tick(self) -> float | None:
        """Do what is due; returns when to look again."""
        wakeups = (self._begin_settled(), self._give_up_late())
        return min((wakeup for wakeup in wakeups if wakeup is not None), default=None)

    def _begin_settled(self) -> float | None:
        """Begin the stages that waited for the fleet to be known."""
        if not self._unsettled:
            return None
        settles_at = self._settles_at()
        if settles_at is None or now() < settles_at:
            return settles_at
        begin, self._unsettled = self._unsettled, []
        for stage in begin:
            stage()
        return None

    def _give_up_late(self) -> float | None:
        """Do a stage here, too, where its tiles take longer than that."""
        moment = now()
        watched = False
        for job in tuple(self._by_key.values()):
            if job.trial is None or job.run is None or not job.trial.may_alone or job.trial.whole:
                continue
            if job.trial.is_late(moment):
                self._start_whole(job, job.run.image)
            else:
                watched = True
        return moment + LOOK_S if watched else None

    def cancel_all(self, reason: str) -> None:
        """End every job without a result."""
        self._backlog.clear()
        for job in self.jobs():
            self.fail(job, reason)

    def fail(self, job: Job, reason: str, *, mendable: bool = False) -> None:
        """End a job without a result; no other job is touched."""
        if job.ending:
            return
        if job.key in self._by_key and not job.finished:
            self._feed(JobCancelled(job.key))
        mendable = mendable or job.original is not None
        self._end(job, Outcome(job.id, job.report, None, job.original, reason, mendable=mendable))

    # What the scheduler decided.

    def keep(self, job: Job, kept: act.KeepResult, given: TileResult) -> None:
        """Merge a result."""
        run = job.run
        if run is None:
            return
        core = run.tile(kept.tile).core
        job.report.credit(kept.device, core)
        if job.trial is not None:
            job.trial.credit(kept.device, core.pixels, now())
        job.report.done += 1
        if kept.tile in job.pasting:
            job.pasting[kept.tile] = given  # two threads must not write the same pixels
        else:
            self._paste(job, run, kept.tile, given)

    def split(self, split: act.SplitTile) -> None:
        """Two halves stand for a tile from now on."""
        job = self.job(split.job)
        if job is not None and job.run is not None:
            job.run.split(split.tile, split.first, split.second)
            job.report.tiles += 1
            if job.request.journal is not None:
                job.request.journal.split(job.position, split.tile, split.first, split.second)

    def revoke(self, job: Job, revoked: act.RevokeResult) -> None:
        """What was kept does not count any more; another result will be pasted over it."""
        if job.run is None:
            return
        job.report.uncredit(revoked.device, job.run.tile(revoked.tile).core)
        job.report.done -= 1

    def finished(self, job: Job) -> None:
        """Every tile has its result; what is left is to merge."""
        job.finished = True
        self._merge_if_pasted(job)

    # The way of a job, step by step.

    def admit(self) -> None:
        """Begin what waits, as far as it may."""
        while not self.held() and (request := self._backlog.take()) is not None:
            report = Report(request.job, request.name, request.pipeline)
            job = Job(request, report, started_at=now())
            self._jobs[job.id] = job
            self._take_in(job)

    def _take_in(self, job: Job) -> None:
        prepared = self._intake.prepare(job.request)
        self._follow(job, prepared, lambda prepared: self._prepared(job, prepared))

    def _prepared(self, job: Job, prepared: ingest.IngestedJob) -> None:
        job.operators = prepared.operators
        job.stages = prepared.stages
        job.post = prepared.post
        job.original = prepared.image
        job.report.pixels = prepared.image.shape[0] * prepared.image.shape[1]
        for note in prepared.notes:
            job.request.client.notice(job.id, note)
        self._next_stage(job, prepared.image)

    def _next_stage(self, job: Job, made: StageOutput) -> None:
        self._by_key.pop(job.key, None)
        job.run = None
        job.position += 1
        if isinstance(made, dict) or job.position == len(job.stages):
            self._submit(job, lambda: finalize(job, made), lambda out: self._end(job, out))
            return
        job.measured = made
        if not job.stages[job.position].tiled:
            self._whole_stage(job, made)
        else:
            self._unsettled.append(lambda: self._begin(job, made))
            self.tick()

    def _whole_stage(self, job: Job, image: Image) -> None:
        stage, original = job.stages[job.position], job.original
        assert original is not None  # noqa: S101  # set before the first stage
        self._submit(
            job,
            lambda: run_whole(stage.operators, image, original),
            lambda done: self._next_stage(job, done),
        )

    def _begin(self, job: Job, image: Image) -> None:
        if not job.ending:
            self._alone.consider(job, image, lambda: self._go(job, image))

    def _go(self, job: Job, image: Image) -> None:
        if job.ending or job.trial is None:
            return
        if job.trial.choice != "tiles":
            self._start_whole(job, image)
        if job.trial.choice != "alone":
            self._cut(job, image)

    def _start_whole(self, job: Job, image: Image) -> None:
        self._alone.start(
            job,
            image,
            lambda made: self._did_whole(job, made),
            lambda problem: self._not_whole(job, problem),
        )

    def _did_whole(self, job: Job, made: StageOutput) -> None:
        """What tiles were done of the stage are not needed."""
        if job.key in self._by_key and not job.finished:
            self._feed(JobCancelled(job.key))
        self._forget(job.key)
        job.pasting.clear()
        job.report.credit(LOCAL, Rect(0, 0, *job.stages[job.position].source.size))
        job.report.tiles += 1
        job.report.done += 1
        self._tell(job)
        self._next_stage(job, made)

    def _not_whole(self, job: Job, problem: Exception) -> None:
        if job.trial is not None and job.trial.choice == "alone":
            self.fail(job, _told(job, problem))
        else:
            log.warning("job %s cannot be done whole, and is done by tiles: %s", job.id, problem)

    def _cut(self, job: Job, image: Image) -> None:
        if job.original is None:
            return
        key, position, original = job.key, job.position, job.original
        limits, workers, sample = self._limits(), self._workers(), self._config.verify.sample

        def work() -> stage_run.StageRun:
            run = stage_run.begin(
                key,
                job.stages[position],
                image,
                original,
                plan=job.request.tiles,
                limits=limits,
                workers=workers,
                sample=sample,
            )
            if job.request.journal is None:
                return run
            return job_journal.take_up(
                run, job.request.journal, position, limits=limits, sample=sample
            )

        self._submit(job, work, lambda run: self._begun(job, run))

    def _begun(self, job: Job, run: stage_run.StageRun) -> None:
        job.run = run
        job.finished = False
        if job.trial is not None:
            job.trial.began_at = now()
        job.report.tiles += len(run.known) - len(run.halved)
        job.report.mosaic.clear()
        self._by_key[job.key] = job
        for tile, device in run.done.items():
            job.report.credit(device, run.tile(tile).core)
            job.report.done += 1
        job.needs = self._needs(run)
        self._feed(
            JobSubmitted(
                job.key,
                run.kind,
                run.work,
                job.needs,
                run.check_tiles,
                done=frozenset(run.done) | run.halved,
                # A later life knows halves by their indices, and nothing of our twins.
                halves=() if job.request.journal and run.check_tiles else run.halves_pixels,
                priority=job.request.priority,
            )
        )
        job.request.client.progress(job.report)

    def _paste(self, job: Job, run: stage_run.StageRun, index: int, given: TileResult) -> None:
        job.pasting[index] = None
        tile = run.tile(index)
        self._submit(
            job,
            lambda: run.merger.paste(tile, given),
            lambda _: self._pasted(job, run, index),
        )

    def _pasted(self, job: Job, run: stage_run.StageRun, index: int) -> None:
        newer = job.pasting.pop(index)
        if newer is not None:
            self._paste(job, run, index, newer)
            return
        is_last = job.report.done == job.report.tiles and not job.pasting
        if now() - job.told_at >= PROGRESS_S or is_last:
            self._tell(job)
        self._merge_if_pasted(job)

    def _tell(self, job: Job) -> None:
        job.told_at = now()
        job.report.seconds = job.told_at - job.started_at
        job.request.client.progress(job.report)

    def _merge_if_pasted(self, job: Job) -> None:
        run = job.run
        if job.finished and not job.pasting and run is not None:
            self._submit(job, run.merger.finish, lambda made: self._merged(job, made))

    def _merged(self, job: Job, made: StageOutput) -> None:
        self._alone.over(job)
        self._next_stage(job, made)

    def _end(self, job: Job, outcome: Outcome) -> None:
        job.ending = True
        job.report.seconds = now() - job.started_at
        self._by_key.pop(job.key, None)
        job.run = None
        client = job.request.client
        self._loop.submit(
            lambda: client.deliver(outcome),
            lambda _: self._ended(job, outcome),
            lambda problem: self._ended(job, replace(outcome, error=_told(job, problem))),
        )

    def _ended(self, job: Job, outcome: Outcome) -> None:
        del self._jobs[job.id]
        self._backlog.ended(job.request)
        job.request.client.ended(outcome)
        self.admit()

    def _submit(self, job: Job, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Pool work for a job, as `_follow` sees it."""
        self._follow(job, self._loop.begin(work), then)

    def _follow(self, job: Job, future: Future[T], then: Callable[[T], None]) -> None:
        """What it raises ends the job, and nothing else.

        It does not matter any more once the job has left the stage.
        """
        position = job.position

        def go_on(result: T) -> None:
            if not job.ending and job.position == position:
                then(result)

        def failed(problem: Exception) -> None:
            if job.position == position:
                self.fail(job, _told(job, problem), mendable=not isinstance(problem, ImageError))

        self._loop.watch(future, go_on, failed)


def _told(job: Job, problem: Exception) -> str:
    if isinstance(problem, FogError):
        return str(problem)
    if isinstance(problem, OSError):
        return f"{job.request.name}: {problem}"
    log.error("job %s: unexpected", job.id, exc_info=problem)
    return f"{job.request.name}: {type(problem).__name__}: {problem}"
