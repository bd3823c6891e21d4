"""The data of a job: its request, its state, its handle and its outcome."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fogmqtt.core.geometry import Auto, TilePlan
from fogmqtt.errors import FogError
from fogmqtt.gateway.jobs.memory_budget import Reservation
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.gateway.jobs.trace import AttemptRecord, JobTrace
from fogmqtt.gateway.storage.api import JobJournal
from fogmqtt.images.metadata import Metadata, Pages
from fogmqtt.images.source import ImageSource
from fogmqtt.images.spec import Image
from fogmqtt.log import shown_name
from fogmqtt.operators.api.base import Facts, Operator
from fogmqtt.operators.api.pipeline import Stage


def new_job_id() -> str:
    """Return a random id, so that a late result of an earlier run of this gateway fits no job."""
    return "j" + secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a job: with an image, or with an error.

    Images are uint8, uint16 or float32 arrays of height x width or height x width x channels.
    """

    job: str
    report: Report
    #: The result, or a picture of the facts. Of a file with several pages, it is that of the first.
    image: Image | None = None
    #: The image that the job came with, decoded; None if the job failed.
    original: Image | None = None
    error: str | None = None
    #: A height x width uint8 mask, 255 where pixels differ from one machine's; None if no pixel
    #: differs, or the job was not verified.
    difference: Image | None = None
    #: The facts of a measuring pipeline; None for any other. Of a file with several pages, they are
    #: a list under the key `pages`.
    facts: Facts | None = None
    #: What raised the error, if a FogError did.
    cause: FogError | None = None
    #: Whether another try may succeed: the error is not in the image itself.
    retryable: bool = False
    #: Whether somebody ended the job; the error says why.
    cancelled: bool = False
    #: The results of all pages, the first one included.
    images: tuple[Image, ...] = ()
    #: What the file said of each page beside its pixels.
    metadata: tuple[Metadata, ...] = ()


#: Encodes and stores a result; runs in a thread of its own. Returns notes for the user, such as
#: metadata that the file does not hold. Raises FogError or OSError.
Deliver = Callable[[Outcome], Sequence[str] | None]


@dataclass(frozen=True, slots=True)
class JobRequest:
    """An image, the pipeline for it, and where the result goes.

    `name` is shown to users; what cannot be shown is escaped, since a file may have any name.

    The image is a file (`path`), a file's bytes (`data`), or decoded already (`image`, an array of
    height x width or height x width x channels).
    """

    name: str
    pipeline: str
    path: Path | None = None
    data: bytes | memoryview | None = None
    image: Image | None = None
    #: Which pages of a file to process: "first", "all", or a number from 1 on.
    pages: Pages = "all"
    tiles: TilePlan = field(default_factory=Auto)
    post: str = ""
    verify: bool = False
    #: Whose request it is: users take turns among jobs of one priority.
    user: str = ""
    #: Each step doubles the job's share of the fleet's time beside other jobs.
    priority: int = 0
    #: Seconds until the job fails if it has no result by then; None for no limit.
    timeout_s: float | None = None
    #: Whether its status is published; nobody else hears of a trial.
    listed: bool = True
    deliver: Deliver | None = None
    job: str = field(default_factory=new_job_id)
    #: Records the job's progress, for a serving gateway with a spool.
    journal: JobJournal | None = None
    #: Not empty if an earlier run of the gateway had this job. It distinguishes late results of
    #: that run, whose tiles may have been cut otherwise.
    run_suffix: str = ""
    #: The trace that the request belongs to, as W3C Trace Context writes it; empty for none.
    traceparent: str = ""
    #: What vendors add to the trace.
    tracestate: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", shown_name(self.name))


@dataclass(slots=True)
class Job:
    """A job under way. It belongs to the event loop."""

    request: JobRequest
    report: Report
    memory: Reservation
    operators: tuple[Operator, ...] = ()
    post: tuple[Operator, ...] = ()
    #: The stages of the present page, and the image of that page.
    stages: tuple[Stage, ...] = ()
    original: ImageSource | None = None
    #: The index of the present stage; it counts on from page to page.
    position: int = 0
    #: How often the present stage was cut again because the broker takes smaller packets only.
    replans: int = 0
    #: The image that enters the present stage.
    entering: ImageSource | None = None
    #: When the job's turn came, and when its progress was last published.
    started_at: float = 0.0
    progress_at: float = float("-inf")
    #: Whether the job's task has run at all; one that is cancelled before that would not run.
    task_started: bool = False
    #: Why the job is to end without a result.
    cancel_reason: str = ""
    #: Called with each attempt of a tile that ended.
    attempt_ended: Callable[[AttemptRecord], None] | None = None
    trace: JobTrace = field(init=False)

    def __post_init__(self) -> None:
        report = self.report
        self.trace = JobTrace(
            report.job,
            report.name,
            report.pipeline,
            traceparent=report.traceparent,
            ended=self.attempt_ended,
        )

    @property
    def id(self) -> str:
        return self.request.job

    @property
    def key(self) -> str:
        """The name of the present stage for the scheduler and in messages."""
        # A late result of an earlier plan must not count for a tile of this one.
        replans = f".{self.replans}" if self.replans else ""
        return f"{self.request.job}.{self.position}{self.request.run_suffix}{replans}"


class JobHandle:
    """A submitted job, for whoever submitted it. It belongs to the event loop."""

    def __init__(self, job: Job, task: asyncio.Task[Outcome]) -> None:
        self._job = job
        self._task = task

    @property
    def id(self) -> str:
        return self._job.id

    @property
    def request(self) -> JobRequest:
        return self._job.request

    @property
    def report(self) -> Report:
        """The job's figures at this moment."""
        return self._job.report

    @property
    def started_at(self) -> float | None:
        """When the job's turn came, on the gateway's clock; None while it waits."""
        return self._job.started_at or None

    @property
    def stage(self) -> tuple[int, int]:
        """The number of the present stage of the page, from 1 on, and how many there are.

        Both are 0 before the image is decoded.
        """
        count = len(self._job.stages)
        return (self._job.position % count + 1, count) if count else (0, 0)

    @property
    def original(self) -> ImageSource | None:
        """The decoded image; None before it is decoded."""
        return self._job.original

    @property
    def entering(self) -> ImageSource | None:
        """The image that enters the present stage: what the stages before it made."""
        return self._job.entering

    @property
    def trace(self) -> JobTrace:
        """Where its tiles are now, and where the time went. It may be read after the end."""
        return self._job.trace

    @property
    def done(self) -> bool:
        """Whether the outcome is known and delivered."""
        return self._task.done()

    def cancel(self, reason: str = "the job was cancelled") -> None:
        """End this job; `reason` becomes the error of its outcome."""
        self._job.cancel_reason = self._job.cancel_reason or reason or "the job was cancelled"
        if self._job.task_started:
            self._task.cancel()

    async def outcome(self) -> Outcome:
        """Wait until the job has ended and its result is delivered."""
        return await asyncio.shield(self._task)
