"""A serving gateway: takes images from topics and folders, and delivers the results.

    submit topic, inbox folder, retry requests -> accept (spool) -> job -> outbox, replies -> finish

Each accepted image is one coroutine, `_serve`, from acceptance to the end that its store records.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from msgspec import UNSET

from fogmqtt.config import GatewayConfig, StreamSettings
from fogmqtt.core.geometry import parse_tile_plan
from fogmqtt.errors import (
    ConfigError,
    FogError,
    ListenerDropped,
    TransportError,
    UsageError,
)
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.background import BackgroundTasks, Supervisor
from fogmqtt.gateway.broker_link import Connect
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.status_publisher import EVERY_S, in_short, job_status
from fogmqtt.gateway.events import EventSubscription, JobNoticed, JobProgressed
from fogmqtt.gateway.home_assistant.announcer import Announcer
from fogmqtt.gateway.jobs.model import JobRequest, Outcome, new_job_id
from fogmqtt.gateway.server.admission import Admission
from fogmqtt.gateway.server.answers import Answers, failed
from fogmqtt.gateway.server.config_checks import (
    check_deliveries,
    check_outbox,
    check_pipelines,
    check_retention,
)
from fogmqtt.gateway.server.dashboard_process import DashboardProcess
from fogmqtt.gateway.server.deliveries import Deliveries, Delivery
from fogmqtt.gateway.server.inbox import Inbox
from fogmqtt.gateway.server.inbox_folder import InboxFile
from fogmqtt.gateway.server.inbox_tree import PathLog
from fogmqtt.gateway.server.outbox import Outbox
from fogmqtt.gateway.server.replies import Replies, Reply
from fogmqtt.gateway.server.retention import Retention
from fogmqtt.gateway.server.submissions import Submissions
from fogmqtt.gateway.service.acts import FileSubmission
from fogmqtt.gateway.service.service import Service
from fogmqtt.gateway.storage.api import (
    DeadLetter,
    FailedAttempt,
    FinishedJob,
    JobHistory,
    JobStore,
    SpoolEntry,
)
from fogmqtt.gateway.storage.dead_letters import announcement, make_dead_letter, retry_id
from fogmqtt.gateway.storage.durable_files import DurableFiles, is_full
from fogmqtt.gateway.storage.job_store import DiskJobStore
from fogmqtt.images.metadata import Pages
from fogmqtt.log import shown_name
from fogmqtt.streams.frame import FrameSource
from fogmqtt.wire.messages import JobStatus
from fogmqtt.wire.service_messages import Undelivered

log = logging.getLogger(__name__)

#: The reply name of images from the inbox folder.
INBOX_REPLY: Final = "inbox"
#: Seconds until a file that could not be taken is tried again.
PAUSE_S: Final = 5.0
#: The same after many tries.
LONGEST_PAUSE_S: Final = 300.0
#: Files that could not be taken and are remembered.
_MAX_UNTAKEN: Final = 10_000
#: Seconds between two checks for retry requests.
RETRY_S: Final = 1.0
#: Bytes of results that may wait for the broker; beyond it no job begins.
MAX_OWED_BYTES: Final = 256_000_000


@dataclass(slots=True)
class _Accepted:
    """An accepted image whose job has not ended."""

    entry: SpoolEntry
    delivery: Delivery
    progress_at: float = float("-inf")


class Server:
    """Serves the submit topic and the inbox folder with one gateway.

    With `adopts` the spool is that of another gateway: call `adopt` instead of `run`. `dashboard`
    runs beside it.
    `durable_files` is for tests that stop between two changes of the disk. Raises ConfigError, and
    SpoolInUse where another gateway uses the spool.
    """

    def __init__(
        self,
        config: GatewayConfig,
        connect: Connect,
        durable_files: DurableFiles | None = None,
        *,
        adopts: bool = False,
        dashboard: DashboardProcess | None = None,
    ) -> None:
        check_outbox(config)
        check_pipelines(config)
        check_deliveries(config)
        check_retention(config)
        if config.streams:
            from fogmqtt.gateway.streams.streams import check_streams  # few gateways have streams

            check_streams(config)
        self.config = config
        #: The folders that this start makes.
        self._new_folders = [name for name in _folders(config) if not Path(name).exists()]
        self._tiles = parse_tile_plan(config.tiles)
        self._files = durable_files or DurableFiles()
        self._store = self._open_store()
        self.gateway = Gateway(
            config,
            config.gateway.id,
            connect,
            serves=not adopts,
            keeps_jobs=True,
            broker_within_s=config.broker.connect_timeout_s if adopts else None,
            open_source=open_stream_source,
        )
        reserved = self._store.reserved_paths().result() if self._store else set()
        written = self._store.written if self._store else None
        self._outbox = Outbox(config.gateway, self._store, self._files, reserved, written)
        self._replies = Replies(self.gateway.link, config.wire.qos, self._hold_jobs)
        self._answers = Answers(self._replies, self.gateway.topics)
        self._deliveries = Deliveries(
            config,
            self.gateway,
            self._outbox,
            self._replies,
            self._answers,
            self._keep_result,
            self._tell_undelivered,
        )
        if self._store is not None:
            self._deliveries.use_spool(Path(self._spool_folder()), self._files)
        self._background = BackgroundTasks()
        self._dashboard = dashboard
        #: Answers dashboards and programs, and keeps the history; none for another gateway's spool.
        self._service: Service | None = None
        self._announcer: Announcer | None = None
        if not adopts:
            spool = Path(self._spool_folder()) if self._store else None
            self._service = Service(config, self.gateway, self, spool, self._files)
            self._announcer = Announcer(config, self.gateway, self._service)
        self._untaken = _Untaken()
        self._path_log = PathLog()
        self._accepted: dict[str, _Accepted] = {}
        #: Their notes, by job.
        self._entries: dict[str, SpoolEntry] = {}
        #: How many jobs ended well, and how many failed.
        self.done = self.failed = 0
        self._admission = Admission(self.gateway, config.limits.max_waiting)
        self._submissions = Submissions(
            config,
            self.gateway,
            self._store,
            self._admission,
            self._answers,
            self._begin_new,
            self._entries,
        )

    async def run(self) -> None:
        """Serve until cancelled. The next start continues with the images in the spool."""
        inbox: Inbox | None = None
        try:
            unfinished = await self._unfinished()
            if self._service is not None:
                await self._service.load()  # before callbacks, of which it hears
            await self._deliveries.load()
            inbox = await self._open_inbox()
            self._log_folders()
            async with self.gateway:
                await self._serve_all(unfinished, inbox)
        finally:
            if inbox is not None:
                await inbox.close()
            if self._store is not None:
                self._store.close()
            if self._service is not None:
                self._service.close()
            count = 0 if self._store is None else len(self._accepted)
            log.info("%s exits; %d image(s) wait for its next start", self.gateway.id, count)

    async def adopt(self) -> None:
        """Do what another gateway accepted and did not finish, and return when all of it ended.

        It takes no other images. What is interrupted stays in the spool. Raises NoBroker.
        """
        try:
            unfinished = await self._unfinished()
            await self._deliveries.load()
            async with self.gateway, Supervisor() as supervisor:
                supervisor.start(self._report_progress(self.gateway.events("replies")), "replies")
                supervisor.start(self._deliveries.run(), "callbacks")
                try:
                    for entry, history in unfinished:
                        self._continue(entry, history)
                    await self._background.finish()
                    await self._deliveries.tried()
                finally:
                    await self._background.close()
        finally:
            if self._store is not None:
                self._store.close()

    async def _serve_all(
        self, unfinished: list[tuple[SpoolEntry, JobHistory]], inbox: Inbox | None
    ) -> None:
        try:
            async with Supervisor() as supervisor:
                supervisor.start(self._report_progress(self.gateway.events("replies")), "replies")
                for entry, history in unfinished:
                    self._continue(entry, history)
                supervisor.start(self._deliveries.run(), "callbacks")
                if self._store is not None:
                    retention = Retention(self.config.gateway, self._store.written)
                    supervisor.start(retention.run(), "retention")
                supervisor.start(self._submissions.run(), "submissions")
                if self._service is not None:
                    supervisor.start(self._service.run(), "service")
                if self._announcer is not None:
                    supervisor.start(self._announcer.run(), "Home Assistant")
                    supervisor.start(self._announcer.follow_devices(), "Home Assistant's devices")
                if self._dashboard is not None:
                    supervisor.start(self._dashboard.run(), "dashboard")
                if inbox is not None:
                    supervisor.start(self._take_files(inbox), "inbox")
                if self._store is not None:
                    supervisor.start(self._take_retries(self._store), "retries")
                await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            await self._background.close()
            self._report_lost()

    def _open_store(self) -> JobStore | None:
        settings, folder = self.config.gateway, self._spool_folder()
        if not folder:
            return None
        return DiskJobStore(
            Path(folder),
            settings.id,
            keep_s=settings.spool_keep_s,
            max_bytes=settings.spool_max_bytes,
            disk=self._files,
            inbox=Path(settings.inbox) if settings.inbox else None,
        )

    def _spool_folder(self) -> str:
        """Return the folder of accepted images; empty if there is none."""
        settings = self.config.gateway
        # Files that were moved out of the inbox need a folder.
        return settings.spool or (settings.inbox and f"{settings.inbox}/.spool")

    async def _open_inbox(self) -> Inbox | None:
        settings = self.config.gateway
        if not settings.inbox:
            return None
        folder = Path(settings.inbox)
        excluded = [Path(name) for name in (settings.outbox, settings.spool) if name]
        inbox = Inbox(folder, tuple(self.config.pipelines), excluded=excluded)
        try:
            await inbox.start()
        except ConfigError:
            await inbox.close()
            raise
        return inbox

    def _log_folders(self) -> None:
        """Say where images come from and results go to, and what this start has written."""
        settings, folder = self.config.gateway, self._spool_folder()
        if settings.inbox:
            results = _absolute(settings.outbox) if settings.outbox else "the reply topics"
            log.info("watching %s for images; results go to %s", _absolute(settings.inbox), results)
        made = [_absolute(name) for name in self._new_folders if Path(name).exists()]
        kept = "accepted images are in memory only"
        if folder:
            kept = f"accepted images stay in {_absolute(folder)} until they are done"
        log.info("%s; %s", f"made {' and '.join(made)}" if made else "made no folder", kept)

    # Images of an earlier run.

    async def _unfinished(self) -> list[tuple[SpoolEntry, JobHistory]]:
        if self._store is None:
            return []
        unfinished = await asyncio.wrap_future(self._store.unfinished_jobs())
        origins = await asyncio.wrap_future(self._store.recent_origins())
        self._submissions.remember(origins | {entry.origin for entry, _ in unfinished})
        return unfinished

    def _continue(self, entry: SpoolEntry, history: JobHistory) -> None:
        """Continue with an image of an earlier run."""
        if history.filed and not self._deliveries.is_published(entry):
            log.info("%s was done before; its end was not recorded", entry.name)
            self._background.start(self._record_end(entry, None, None), f"end of {entry.name}")
            return
        log.info("%s was accepted before and is not delivered: doing it now", entry.name)
        self._begin(entry, history, run_suffix=_new_suffix())

    # What dashboards and programs submit, as the service's `Intake`.

    def check_room(self) -> None:
        """Raise FogError if no further image is taken now."""
        self._admission.check()

    async def accept_upload(self, submission: FileSubmission, file: Path | bytes) -> None:
        """Move a file, or write its bytes, into the spool and begin its job.

        Raises FogError and OSError.
        """
        self._admission.check()
        chosen = self.config.chosen(submission.pipeline)
        entry = SpoolEntry(
            job=submission.job,
            name=submission.name,
            pipeline=chosen.text,
            priority=submission.priority or chosen.priority,
            format=submission.format or chosen.format,
            deliver=chosen.deliver,
            pipeline_name=chosen.name,
            accepted_at=time.time(),
            source=submission.source,
            who=submission.who,
            pages=submission.pages,
            verify=submission.verify,
            timeout_s=submission.timeout_s,
            traceparent=submission.traceparent,
            tracestate=submission.tracestate,
        )
        if self._store is None:
            data = file if isinstance(file, bytes) else await self._read_upload(file)
            self._begin(entry, JobHistory(), data=data)
            return
        self._admission.spooling()
        try:
            if isinstance(file, bytes):
                await asyncio.wrap_future(self._store.accept_bytes(entry, file))
            else:
                await asyncio.wrap_future(self._store.accept_file(entry, file))
        except (FogError, OSError) as problem:
            raise self._admission.refusal(problem) from None
        finally:
            self._admission.spooled()
        self._admission.taken()
        self._begin(entry, JobHistory())

    async def _read_upload(self, path: Path) -> bytes:
        return await self.gateway.threads.apart(path.read_bytes, "upload")

    async def retry(self, job: str, who: str) -> str:
        """Do a dead letter again, and return the new job. Raises FogError and OSError."""
        if self._store is None:
            raise UsageError("there are no dead letters without a spool: gateway.spool")
        letter = await asyncio.wrap_future(self._store.request_retry(job))
        await self._take_retry(self._store, letter, who)
        return retry_id(job)

    async def retry_callback(self, job: str, callback: str) -> None:
        """Send a callback again that was given up. Raises FogError and OSError."""
        await self._deliveries.retry_callback(job, callback)

    # The inbox folder.

    async def _take_files(self, inbox: Inbox) -> None:
        async for file in inbox.files():
            await self._take_file(inbox, file)
            await self._admission.wait()

    async def _take_file(self, inbox: Inbox, file: InboxFile) -> None:
        """Move a file into the spool, and begin its job."""
        assert self._store is not None  # noqa: S101  # an inbox always has a spool
        asked = file.pipeline or self.config.pipeline
        chosen = self.config.chosen(asked)
        shown, folder = shown_name(file.path.name), shown_name(str(file.path.parent))
        is_shown = Path(folder) / shown == file.path
        entry = SpoolEntry(
            job=new_job_id(),
            name=shown,
            pipeline=chosen.text,
            priority=chosen.priority,
            format=chosen.format,
            deliver=chosen.deliver,
            pipeline_name=chosen.name,
            reply=INBOX_REPLY if self._deliveries.replies_to_inbox(asked) else "",
            inbox=folder,
            stamp=file.stamp,
            accepted_at=time.time(),
            source="inbox",
            path=UNSET if is_shown else os.fsencode(file.path),
        )
        self._admission.spooling()
        try:
            await asyncio.wrap_future(self._store.accept_file(entry, file.path))
        except Exception as problem:  # noqa: BLE001  # one file must not end the server
            path = str(file.path)
            ends_soon = is_full(problem) or isinstance(problem, FogError)
            inbox.retry(file, PAUSE_S if ends_soon else self._untaken.delay_s(path))
            self._path_log.note(
                path, f"cannot be taken: {_reason(self._admission.refusal(problem))}"
            )
            if is_full(problem):
                await asyncio.sleep(PAUSE_S)  # the next file would not fit either
            return
        finally:
            self._admission.spooled()
        self._admission.taken()
        self._untaken.forget(str(file.path))
        self._path_log.forget(str(file.path))
        self._begin(entry, JobHistory())

    # Retry requests.

    async def _take_retries(self, store: JobStore) -> None:
        """Run requested retries, and record ends that a full disk refused."""
        while True:
            store.record_pending_ends()
            pause_s = RETRY_S
            for letter in await self._retry_requests(store):
                if not self._admission.has_room:
                    break
                if not await self._take_retry(store, letter):
                    pause_s = PAUSE_S
            await asyncio.sleep(pause_s)

    async def _retry_requests(self, store: JobStore) -> list[DeadLetter]:
        try:
            return await asyncio.wrap_future(store.retry_requests())
        except OSError as problem:  # such as a network mount that is away for a while
            self.gateway.warn("retry", f"cannot list the requests: {problem.strerror}")
            return []

    async def _take_retry(self, store: JobStore, letter: DeadLetter, who: str = "") -> bool:
        try:
            entry = await asyncio.wrap_future(store.accept_retry(letter, who))
        except (FogError, OSError) as problem:
            self.gateway.warn("retry", f"{letter.entry.job} cannot be retried yet: {problem}")
            return False
        if entry is not None:
            self._begin(entry, JobHistory(), run_suffix=_new_suffix())
        return True

    # From acceptance to the end.

    def _begin_new(self, entry: SpoolEntry, data: bytes | memoryview | None = None) -> None:
        self._begin(entry, JobHistory(), data=data)

    def _begin(
        self,
        entry: SpoolEntry,
        history: JobHistory,
        *,
        data: bytes | memoryview | None = None,
        run_suffix: str = "",
    ) -> None:
        log.info("%s: accepted as %s", entry.name, entry.job)
        accepted = self._accepted[entry.job] = _Accepted(entry, Delivery(entry, history))
        self._entries[entry.job] = entry
        store = self._store
        if self._service is not None:
            self._service.jobs.begin(entry, store.image_path(entry.job) if store else None)
        request = JobRequest(
            name=entry.name,
            # Spool entries of an early version have the pipeline's name.
            pipeline=self.config.chosen(entry.pipeline).text,
            path=store.image_path(entry.job) if store else None,
            data=data,
            pages=_pages(entry.pages) or self.config.gateway.pages,
            verify=entry.verify,
            tiles=self._tiles,
            post=self.config.post,
            user=entry.user,
            priority=entry.priority,
            deliver=partial(self._deliveries.store, accepted.delivery),
            job=entry.job,
            journal=store.open_journal(entry.job, history) if store else None,
            run_suffix=run_suffix,
            timeout_s=entry.timeout_s,
            traceparent=entry.traceparent,
            tracestate=entry.tracestate,
        )
        accepted_status = JobStatus(job=entry.job, state="accepted", pipeline=request.pipeline)
        self._answers.publish(entry, accepted_status)
        self._background.start(self._serve(accepted, request), f"job {entry.job}")

    async def _serve(self, accepted: _Accepted, request: JobRequest) -> None:
        """Run one image's job, reply, and record its end."""
        entry = accepted.entry
        handle = self.gateway.submit(request)
        outcome = await handle.outcome()
        self._log_end(entry, outcome)
        letter = None
        if outcome.error and outcome.retryable and not outcome.cancelled:
            letter = _dead_letter(entry, outcome, outcome.error)
        error = outcome.error
        try:
            await self._deliveries.finish(accepted.delivery, outcome)
        except TransportError as problem:
            self.gateway.warn("reply", str(problem))
            error = error or str(problem)
            letter = letter or _dead_letter(entry, outcome, error)
            self._answers.publish(entry, in_short(failed(entry, error)))
        self.done += error is None
        self.failed += error is not None
        if self._service is not None:
            await self._service.jobs.keep_original(entry)
        finished = await self._record_end(entry, error, letter)
        if self._service is not None:
            await self._service.jobs.end(entry, outcome, error, finished, handle.trace)

    def _keep_result(self, *result: Any) -> None:
        """Keep a result for the history; runs in a thread."""
        if self._service is not None:
            self._service.jobs.keep_result(*result)

    def _tell_undelivered(self, job: str, place: str, what: Undelivered | None) -> None:
        if self._service is not None:
            self._service.undelivered(job, place, what)

    async def _record_end(
        self, entry: SpoolEntry, error: str | None, letter: DeadLetter | None
    ) -> FinishedJob:
        """Return the original to its inbox, with the reason of a failure, and forget the job."""
        self._accepted.pop(entry.job, None)
        self._entries.pop(entry.job, None)
        self._admission.freed()
        if self._store is None:
            return FinishedJob()
        try:
            finished = await asyncio.wrap_future(self._store.finish(entry, error, letter))
        except Exception as problem:  # noqa: BLE001  # the end of one job must end nothing else
            log.warning(
                "%s: cannot put the original back: %s; the next start tries again",
                entry.name,
                _reason(problem),
            )
            return FinishedJob()
        folder = finished.letter
        if letter is not None and folder is not None:
            log.warning("%s: kept in %s; fog-gateway retry %s", entry.name, folder, folder.name)
            topic = self.gateway.topics.gateway(self.gateway.id, "dead")
            self._replies.publish(Reply(topic, announcement(letter, folder)))
        return finished

    def _hold_jobs(self) -> None:
        """Let no job begin while the results for the broker take too much memory."""
        self.gateway.hold_jobs(self._replies.owed_bytes > MAX_OWED_BYTES)

    def _report_lost(self) -> None:
        """Publish that images without a spool are lost when the gateway stops."""
        if self._store is not None:
            return
        for accepted in self._accepted.values():
            reason = "the gateway is stopping; submit it again"
            self._answers.refuse(accepted.entry, reason)

    # Publishing the status of jobs.

    async def _report_progress(self, events: EventSubscription) -> None:
        """Publish progress and notices to the clients that submitted images."""
        with events:
            try:
                async for event in events:
                    if isinstance(event, JobProgressed | JobNoticed):
                        self._report(event)
            except ListenerDropped:
                return  # results and their status do not depend on it; the log names it

    def _report(self, event: JobProgressed | JobNoticed) -> None:
        accepted = self._accepted.get(event.report.job)
        if accepted is None:
            return
        entry = accepted.entry
        if isinstance(event, JobNoticed):
            log.info("%s: %s", entry.name, event.text)
            status = JobStatus(job=entry.job, state="waiting", error=event.text)
            self._answers.publish(entry, status)
        elif now() - accepted.progress_at >= EVERY_S:
            accepted.progress_at = now()
            self._answers.publish(entry, job_status(event.report, "running"))

    def _log_end(self, entry: SpoolEntry, outcome: Outcome) -> None:
        if outcome.error is None:
            log.info("%s: done in %.2f s", entry.name, outcome.report.seconds)
        else:
            log.warning("%s: failed: %s", entry.name, outcome.error)


class _Untaken:
    """How long to wait before a file that could not be taken is tried again: longer each time."""

    def __init__(self) -> None:
        self._delays: dict[str, float] = {}

    def delay_s(self, path: str) -> float:
        """The seconds until the next try of this file."""
        if len(self._delays) >= _MAX_UNTAKEN:
            self._delays.clear()
        delay = self._delays[path] = min(2 * self._delays.get(path, PAUSE_S / 2), LONGEST_PAUSE_S)
        return delay

    def forget(self, path: str) -> None:
        """Forget a file that was taken."""
        self._delays.pop(path, None)


def open_stream_source(name: str, settings: StreamSettings) -> FrameSource:
    """Open the source of a configured stream."""
    from fogmqtt.gateway.streams.streams import source_settings
    from fogmqtt.streams.open import open_source  # few gateways have streams

    return open_source(name, source_settings(settings), records=bool(settings.record.folder))


def _folders(config: GatewayConfig) -> tuple[str, ...]:
    settings = config.gateway
    return tuple(name for name in (settings.inbox, settings.spool) if name)


def _absolute(folder: str) -> str:
    return shown_name(str(Path(folder).absolute()))


def _reason(problem: Exception) -> str:
    """The text of an error without the path, which the log names once."""
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return str(problem) or type(problem).__name__


def _pages(text: str) -> Pages | None:
    """Return the pages that an upload asked for; None if it did not."""
    if text in ("all", "first"):
        return "all" if text == "all" else "first"
    return int(text) if text else None


def _dead_letter(entry: SpoolEntry, outcome: Outcome, reason: str) -> DeadLetter:
    report = outcome.report
    return make_dead_letter(
        entry,
        reason,
        devices={device: share.tiles for device, share in report.devices.items()},
        failures=[FailedAttempt(**asdict(failure)) for failure in report.failures],
    )


def _new_suffix() -> str:
    return f".{secrets.token_hex(3)}"
