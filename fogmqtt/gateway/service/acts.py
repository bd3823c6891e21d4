"""Requests that change something: uploads become jobs, jobs are cancelled, retried and repeated.

Each act writes one line to the log with who did it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from fogmqtt.config import GatewayConfig
from fogmqtt.errors import PipelineError, UsageError
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.jobs.model import new_job_id
from fogmqtt.gateway.service.jobs import Jobs
from fogmqtt.gateway.service.refusals import RequestRefused
from fogmqtt.gateway.service.uploads import Uploads
from fogmqtt.gateway.threads import IoThread
from fogmqtt.images.result_format import parse_result_format
from fogmqtt.log import one_line, shown_name
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.pipeline import parse
from fogmqtt.wire import service_messages as msg

log = logging.getLogger(__name__)

#: Where an image may say that it comes from.
_SOURCES: Final = frozenset({"http", "page", "python", "mqtt"})


@dataclass(frozen=True, slots=True)
class FileSubmission:
    """An image file that a client submits, as the gateway's intake takes it."""

    job: str
    name: str
    #: A configured name, or the text of a pipeline.
    pipeline: str
    source: str
    who: str
    format: str = ""
    pages: str = ""
    priority: int = 0
    verify: bool = False
    #: Seconds until the job fails if it has no result by then; None for no limit.
    timeout_s: float | None = None
    traceparent: str = ""
    tracestate: str = ""


class Intake(Protocol):
    """Takes image files for good: the server."""

    def check_room(self) -> None:
        """Raise FogError if no further image is taken now."""

    async def accept_upload(self, submission: FileSubmission, file: Path | bytes) -> None:
        """Move a file, or write its bytes, into the spool and begin its job.

        Raises FogError and OSError.
        """

    async def retry(self, job: str, who: str) -> str:
        """Do a dead letter again, and return the new job. Raises FogError and OSError."""

    async def retry_callback(self, job: str, callback: str) -> None:
        """Send a callback again that was given up. Raises FogError and OSError."""


class Acts:
    """Does the requests that change something. It belongs to the event loop."""

    def __init__(
        self,
        config: GatewayConfig,
        gateway: Gateway,
        intake: Intake,
        jobs: Jobs,
        uploads: Uploads,
        thread: IoThread,
    ) -> None:
        self._config = config
        self._gateway = gateway
        self._intake = intake
        self._jobs = jobs
        self._uploads = uploads
        self._thread = thread
        #: Jobs whose images are on their way into the spool, and have idempotency keys.
        self._accepting: set[str] = set()

    async def do(self, client: str, request: msg.Request) -> msg.Answer:
        """Do a request. Raises RequestRefused for one that this gateway does not know."""
        match request:
            case msg.SubmitFile():
                return await self._submit_file(client, request)
            case msg.OpenUpload():
                return await self._open(client, request)
            case msg.PutPiece(upload=upload, offset=offset, data=data):
                put = self._thread.call(lambda: self._uploads.put(client, upload, offset, data))
                return msg.Upload(id=request.id, upload=upload, received=await put)
            case msg.SubmitUpload():
                return await self._submit(client, request)
            case msg.DropUpload(upload=upload):
                await self._thread.call(lambda: self._uploads.drop(client, upload))
                return msg.Done(id=request.id)
            case msg.CancelJob():
                return await self._cancel(client, request)
            case msg.RetryJob():
                return await self._retry(client, request)
            case msg.RetryCallback():
                return await self._retry_callback(client, request)
            case msg.RepeatJob():
                return await self._repeat(client, request)
            case _:
                kind = type(request).__name__
                raise RequestRefused("other-version", f"this gateway does not know {kind}")

    # Uploads.

    async def _submit_file(self, client: str, request: msg.SubmitFile) -> msg.JobAnswer:
        await self._check(request.pipeline, request.format, request.pages)
        self._intake.check_room()
        self._uploads.check_file(request.data, request.digest)
        job = new_job_id()
        return await self._accept(client, request, request, request.data, request.digest, job)

    async def _open(self, client: str, request: msg.OpenUpload) -> msg.Upload:
        await self._check(request.pipeline, request.format, request.pages)
        self._intake.check_room()
        upload = new_job_id().replace("j", "u", 1)
        opened = self._thread.call(lambda: self._uploads.open(client, upload, request))
        return msg.Upload(id=request.id, upload=upload, received=await opened)

    async def _submit(self, client: str, request: msg.SubmitUpload) -> msg.JobAnswer:
        upload, digest = request.upload, request.digest
        one = await self._thread.call(lambda: self._uploads.complete(client, upload, digest))
        try:
            answer = await self._accept(
                client, request, one.request, one.path, digest, new_job_id()
            )
        except BaseException:
            await self._thread.call(lambda: self._uploads.drop(client, upload))
            raise
        if answer.repeated:
            await self._thread.call(lambda: self._uploads.drop(client, upload))
        else:
            self._uploads.accepted(upload)
        return answer

    async def _accept(
        self,
        client: str,
        request: msg.Request,
        asked: msg.ImageSubmission,
        file: Path | bytes,
        digest: str,
        job: str,
    ) -> msg.JobAnswer:
        """Make a file a job, unless its idempotency key has one."""
        earlier = await self._earlier(asked, digest, job)
        if earlier is not None:
            return msg.JobAnswer(id=request.id, job=earlier, repeated=True)
        who = request.who or asked.who
        submission = self._submission(client, asked, job, who)
        with self._claimed(asked.idempotency_key, job):
            await self._intake.accept_upload(submission, file)
        self._log(f"submit {submission.name!r} as {job}", who, client)
        return msg.JobAnswer(id=request.id, job=await self._jobs.card(job))

    async def _earlier(
        self, asked: msg.ImageSubmission, digest: str, job: str
    ) -> msg.JobCard | None:
        """Return the job that has a submission's key; None gives the key to `job`."""
        key, claim = asked.idempotency_key, lambda: self._uploads.claim(asked, digest, job)
        if not key:
            return None
        earlier = await self._thread.call(claim)
        if earlier in self._accepting:
            raise RequestRefused(
                "busy", "a request with this idempotency key is being taken", retry_after_s=1.0
            )
        if earlier:
            with suppress(RequestRefused):
                return await self._jobs.card(earlier)
            # It never began, or left the history.
            self._uploads.forget_key(key)
            await self._thread.call(claim)
        return None

    @contextmanager
    def _claimed(self, key: str, job: str) -> Iterator[None]:
        """Mark a job as being accepted; its key is free again if that fails."""
        self._accepting.add(job)
        try:
            yield
        except BaseException:
            self._uploads.forget_key(key)
            raise
        finally:
            self._accepting.discard(job)

    def _submission(
        self, client: str, asked: msg.ImageSubmission, job: str, who: str
    ) -> FileSubmission:
        source = asked.source if asked.source in _SOURCES else "mqtt"
        return FileSubmission(
            job=job,
            name=_plain_name(asked.name),
            pipeline=asked.pipeline or self._config.pipeline,
            source=source,
            who=one_line(who or client),
            format=asked.format,
            pages=asked.pages,
            priority=asked.priority,
            verify=asked.verify,
            timeout_s=asked.timeout_s,
            traceparent=asked.traceparent,
            tracestate=asked.tracestate,
        )

    # Jobs.

    async def _cancel(self, client: str, request: msg.CancelJob) -> msg.JobAnswer:
        card = await self._jobs.card(request.job)
        reason = one_line(request.reason) or f"{one_line(request.who) or client} cancelled it"
        if self._gateway.cancel(request.job, reason):
            self._log(f"cancel {request.job}", request.who, client)
            await self._jobs.settled(request.job)
            card = await self._jobs.card(request.job)
        return msg.JobAnswer(id=request.id, job=card)

    async def _retry(self, client: str, request: msg.RetryJob) -> msg.JobAnswer:
        await self._jobs.ended(request.job)
        self._intake.check_room()
        job = await self._intake.retry(request.job, one_line(request.who or client))
        self._log(f"retry {request.job} as {job}", request.who, client)
        return msg.JobAnswer(id=request.id, job=await self._jobs.card(job))

    async def _retry_callback(self, client: str, request: msg.RetryCallback) -> msg.JobAnswer:
        await self._jobs.ended(request.job)
        await self._intake.retry_callback(request.job, request.callback)
        self._log(f"retry callback {request.callback} of {request.job}", request.who, client)
        return msg.JobAnswer(id=request.id, job=await self._jobs.card(request.job))

    async def _repeat(self, client: str, request: msg.RepeatJob) -> msg.JobAnswer:
        await self._check(request.pipeline, "", "")
        self._intake.check_room()
        ended = await self._jobs.ended(request.job)
        original = await self._jobs.on_disk(lambda history: history.path(request.job, "original"))
        if original is None or "original" not in ended.card.files:
            raise RequestRefused(
                "not-found", f"the original image of {request.job} is not there any more"
            )
        job = new_job_id()
        copy = await self._thread.call(lambda: self._uploads.copy_of(original, job))
        submission = FileSubmission(
            job=job,
            name=ended.entry.name,
            pipeline=request.pipeline or self._config.pipeline,
            source="page",
            who=one_line(request.who or client),
            pages=ended.entry.pages,
            priority=request.priority,
        )
        try:
            await self._intake.accept_upload(submission, copy)
        finally:
            await self._thread.call(lambda: self._uploads.discard(copy))
        self._log(f"repeat {request.job} as {job}", request.who, client)
        return msg.JobAnswer(id=request.id, job=await self._jobs.card(job))

    # Checks.

    async def _check(self, pipeline: str, form: str, pages: str) -> None:
        """Raise PipelineError or UsageError for what no job can be made of."""
        if form:
            parse_result_format(form)
        if pages not in ("", "all", "first") and not (pages.isascii() and pages.isdigit()):
            raise UsageError(f"pages={pages[:20]!r}: expected all, first or a number")
        text = self._config.chosen(pipeline).text
        if not text:
            return
        # Operators are imported, and plug-ins may take their time.
        await self._gateway.threads.apart(lambda: _parse(text, self._config), "pipeline")

    def _log(self, act: str, who: str, client: str) -> None:
        log.info("act: %s, by %s (%s)", one_line(act), one_line(who) or "unknown", client)


def _parse(text: str, config: GatewayConfig) -> None:
    """Raise PipelineError for a text that is no pipeline; it names a similar configured name."""
    try:
        parse(text)
    except PipelineError:
        if len(text.split()) == 1 and "=" not in text:
            raise PipelineError(_no_pipeline(text[:80], config)) from None
        raise


def _no_pipeline(word: str, config: GatewayConfig) -> str:
    """Say that a word is no pipeline: with the most similar one, or where all are."""
    if why := registry.refusal(word):
        return why
    said = f"no pipeline or operator is called {one_line(word)!r}"
    near = registry.suggestion(word, [*config.pipelines, *registry.names()])
    if near.startswith("did you mean"):
        return f"{said}; {near}"
    named = ", ".join(config.pipelines) or "none"
    skipped = "".join(f"; {problem}" for problem in registry.problems())
    return f"{said}; configured: {named}; GET /api/operators lists operators{skipped}"


def _plain_name(name: str) -> str:
    """Return the last part of a name, as it is shown: a name never becomes a path."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return shown_name(last)[:200].strip(". ") or "image"
