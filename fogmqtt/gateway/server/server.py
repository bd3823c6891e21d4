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
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import xxhash
from msgspec import UNSET
from msgspec.structs import replace

from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import parse_tile_plan
from fogmqtt.errors import (
    ConfigError,
    FogError,
    ListenerDropped,
    PipelineError,
    TransportError,
    UsageError,
)
from fogmqtt.gateway.app import Gateway, Submission
from fogmqtt.gateway.background import BackgroundTasks, Supervisor
from fogmqtt.gateway.broker_link import Connect
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.status_publisher import EVERY_S, job_status
from fogmqtt.gateway.events import EventSubscription, JobNoticed, JobProgressed
from fogmqtt.gateway.jobs.model import JobRequest, Outcome, new_job_id
from fogmqtt.gateway.server.config_checks import check_outbox, check_pipelines
from fogmqtt.gateway.server.inbox import Inbox
from fogmqtt.gateway.server.inbox_folder import InboxFile
from fogmqtt.gateway.server.inbox_tree import PathLog
from fogmqtt.gateway.server.outbox import Outbox
from fogmqtt.gateway.server.replies import Replies, Reply
from fogmqtt.gateway.storage.api import (
    DeadLetter,
    FailedAttempt,
    JobHistory,
    JobStore,
    SpoolEntry,
)
from fogmqtt.gateway.storage.dead_letters import announcement, make_dead_letter
from fogmqtt.gateway.storage.durable_files import DurableFiles, is_full
from fogmqtt.gateway.storage.job_store import DiskJobStore
from fogmqtt.images.encode import encode as encode_images
from fogmqtt.images.result_format import ResultFormat, format_of_suffix, parse_result_format
from fogmqtt.log import shown_name
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.measuring import as_json
from fogmqtt.transport.base import Receipt, Received
from fogmqtt.wire.messages import JobStatus, encode
from fogmqtt.wire.topics import is_id

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
#: The number of accepted messages that are recognised if the broker repeats them.
_ORIGINS: Final = 4096
#: The longest reply name, in characters. A longer one gets no reply: it may not fit into a topic.
_LONGEST_REPLY: Final = 256


@dataclass(slots=True)
class _Accepted:
    """An accepted image whose job has not ended."""

    entry: SpoolEntry
    history: JobHistory
    #: The result's path in the outbox, and the results to publish by the last level of their topic.
    file: str | None = None
    results: dict[str, bytes] = field(default_factory=dict)
    progress_at: float = float("-inf")


class Server:
    """Serves the submit topic and the inbox folder with one gateway.

    `durable_files` is for tests that stop between two changes of the disk. Raises ConfigError.
    """

    def __init__(
        self, config: GatewayConfig, connect: Connect, durable_files: DurableFiles | None = None
    ) -> None:
        check_outbox(config)
        check_pipelines(config)
        self.config = config
        self._tiles = parse_tile_plan(config.tiles)
        self._files = durable_files or DurableFiles()
        self._store = self._open_store()
        self.gateway = Gateway(config, config.gateway.id, connect, serves=True)
        reserved = self._store.reserved_paths().result() if self._store else set()
        self._outbox = Outbox(config.gateway, self._store, self._files, reserved)
        self._replies = Replies(self.gateway.link, config.wire.qos, self._hold_jobs)
        self._background = BackgroundTasks()
        self._untaken = _Untaken()
        self._path_log = PathLog()
        self._accepted: dict[str, _Accepted] = {}
        #: Images on their way to the spool.
        self._spooling = 0
        #: The origins of the newest accepted messages.
        self._origins: OrderedDict[str, None] = OrderedDict()
        #: Set when an image has ended, so that there may be room for another.
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled. The next start continues with the images in the spool."""
        inbox: Inbox | None = None
        try:
            unfinished = await self._unfinished()
            inbox = await self._open_inbox()
            async with self.gateway:
                await self._serve_all(unfinished, inbox)
        finally:
            if inbox is not None:
                await inbox.close()
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
                supervisor.start(self._take_submissions(), "submissions")
                if inbox is not None:
                    supervisor.start(self._take_files(inbox), "inbox")
                if self._store is not None:
                    supervisor.start(self._take_retries(self._store), "retries")
                await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            await self._background.close()
            self._report_lost()

    def _open_store(self) -> JobStore | None:
        settings = self.config.gateway
        # Files that were moved out of the inbox need a folder.
        folder = settings.spool or (settings.inbox and f"{settings.inbox}/.spool")
        if not folder:
            return None
        return DiskJobStore(
            Path(folder),
            settings.id,
            keep_s=settings.spool_keep_s,
            max_bytes=settings.spool_max_bytes,
            disk=self._files,
        )

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
        log.info("watching %s", folder)
        return inbox

    # Images of an earlier run.

    async def _unfinished(self) -> list[tuple[SpoolEntry, JobHistory]]:
        if self._store is None:
            return []
        unfinished = await asyncio.wrap_future(self._store.unfinished_jobs())
        origins = await asyncio.wrap_future(self._store.recent_origins())
        for origin in origins | {entry.origin for entry, _ in unfinished}:
            self._remember(origin)
        return unfinished

    def _continue(self, entry: SpoolEntry, history: JobHistory) -> None:
        """Continue with an image of an earlier run."""
        if history.filed and not self._publishes(entry):
            log.info("%s was done before; its end was not recorded", entry.name)
            self._background.start(self._record_end(entry, None, None), f"end of {entry.name}")
            return
        log.info("%s was accepted before and is not delivered: doing it now", entry.name)
        self._begin(entry, history, run_suffix=_new_suffix())

    # The submit topic.

    async def _take_submissions(self) -> None:
        async for submission in self.gateway.submissions():
            self._take_submission(submission)

    def _take_submission(self, submission: Submission) -> None:
        """Accept or refuse an image, and acknowledge its message in turn."""
        pipeline, message = submission.pipeline, submission.message
        entry = SpoolEntry(
            job=new_job_id(),
            name=f"submit/{pipeline}/{submission.reply}",
            pipeline=self.config.pipelines.get(pipeline, pipeline),
            priority=self.config.priorities.get(pipeline, 0),
            format=self._format_of(pipeline),
            reply=submission.reply,
            origin=_origin(message),
            accepted_at=time.time(),
        )
        if message.receipt and message.receipt.is_repeated and entry.origin in self._origins:
            log.info("%s was accepted already: the broker repeats it", entry.name)
            self._acknowledge(message.receipt)
            return
        try:
            self._check(entry, pipeline, message.retained)
        except FogError as problem:
            self._refuse(entry, message.receipt, problem)
            return
        if self._store is None:
            self._begin(entry, JobHistory(), data=message.payload)
            self._acknowledge(message.receipt)
            return
        self._remember(entry.origin)
        self._spooling += 1
        accepting = asyncio.wrap_future(self._store.accept_bytes(entry, message.payload))
        work = self._accept(entry, message.receipt, accepting)
        self._background.start(work, f"acceptance of {entry.name}")

    def _check(self, entry: SpoolEntry, pipeline: str, retained: bool) -> None:
        """Raise FogError if an image cannot be taken."""
        if not is_id(entry.reply):
            raise UsageError(
                f"{entry.reply[:80]!r} is not a reply name; use 1 to 32 of a-z, 0-9, _ and -"
            )
        if retained:
            raise PipelineError(
                "a retained image would be done again at every start; publish it without retain"
            )
        if pipeline not in self.config.pipelines:
            suggestion = registry.suggestion(pipeline[:80], self.config.pipelines)
            raise PipelineError(f"no pipeline {pipeline[:80]!r} in the configuration; {suggestion}")
        if self._waiting >= self.config.limits.max_waiting:
            raise FogError(
                f"{self._waiting} images are waiting, as many as "
                "limits.max_waiting allows; try again later"
            )

    @property
    def _waiting(self) -> int:
        return self.gateway.waiting + self._spooling

    async def _accept(
        self, entry: SpoolEntry, receipt: Receipt | None, accepting: Awaitable[None]
    ) -> None:
        """Begin a job when its image is on disk."""
        try:
            await accepting
        except (FogError, OSError) as problem:
            # Without an acknowledgement, the broker would stop sending other messages.
            self._origins.pop(entry.origin, None)
            self._refuse(entry, receipt, self._refusal(problem))
            return
        finally:
            self._spooling -= 1
        self._note_room_on_disk()
        self._begin(entry, JobHistory())
        if receipt is not None:
            self.gateway.link.acknowledge(receipt)

    def _refuse(self, entry: SpoolEntry, receipt: Receipt | None, problem: Exception) -> None:
        self.gateway.warn("refused", f"{entry.name[:120]}: {problem}")
        self._publish_status(entry, _failed(entry, str(problem)))
        self._acknowledge(receipt)

    def _acknowledge(self, receipt: Receipt | None) -> None:
        """Acknowledge a message. The broker expects the order in which it sent them."""
        if receipt is None:
            return
        if self._store is None:
            self.gateway.link.acknowledge(receipt)
            return
        flushed = asyncio.wrap_future(self._store.flush())

        async def acknowledge() -> None:
            await flushed
            self.gateway.link.acknowledge(receipt)

        self._background.start(acknowledge(), "acknowledgement")

    def _remember(self, origin: str) -> None:
        self._origins[origin] = None
        if len(self._origins) > _ORIGINS:
            self._origins.popitem(last=False)

    def _refusal(self, problem: Exception) -> Exception:
        """Return the error to publish for an image that the spool did not take."""
        if not is_full(problem):
            return problem
        reason = "the gateway's disk is full; submit it again when there is room"
        if not self.gateway.status.paused:
            log.warning("the disk of the spool is full: no image is taken until there is room")
            self.gateway.status.pause(reason)
        return FogError(reason)

    def _note_room_on_disk(self) -> None:
        if self.gateway.status.paused:
            log.info("the disk of the spool has room again")
            self.gateway.status.pause("")

    # The inbox folder.

    async def _take_files(self, inbox: Inbox) -> None:
        async for file in inbox.files():
            await self._take_file(inbox, file)
            await self._wait_for_room()

    async def _take_file(self, inbox: Inbox, file: InboxFile) -> None:
        """Move a file into the spool, and begin its job."""
        assert self._store is not None  # noqa: S101  # an inbox always has a spool
        name = file.pipeline or self.config.pipeline
        shown, folder = shown_name(file.path.name), shown_name(str(file.path.parent))
        is_shown = Path(folder) / shown == file.path
        entry = SpoolEntry(
            job=new_job_id(),
            name=shown,
            pipeline=self.config.pipelines.get(name, name),
            priority=self.config.priorities.get(name, 0),
            format=self._format_of(name),
            reply=INBOX_REPLY if self.config.gateway.deliver in ("reply", "both") else "",
            inbox=folder,
            stamp=file.stamp,
            accepted_at=time.time(),
            path=UNSET if is_shown else os.fsencode(file.path),
        )
        self._spooling += 1
        try:
            await asyncio.wrap_future(self._store.accept_file(entry, file.path))
        except Exception as problem:  # noqa: BLE001  # one file must not end the server
            path = str(file.path)
            ends_soon = is_full(problem) or isinstance(problem, FogError)
            inbox.retry(file, PAUSE_S if ends_soon else self._untaken.delay_s(path))
            self._path_log.note(path, f"cannot be taken: {_reason(self._refusal(problem))}")
            if is_full(problem):
                await asyncio.sleep(PAUSE_S)  # the next file would not fit either
            return
        finally:
            self._spooling -= 1
        self._note_room_on_disk()
        self._untaken.forget(str(file.path))
        self._path_log.forget(str(file.path))
        self._begin(entry, JobHistory())

    async def _wait_for_room(self) -> None:
        while self._waiting >= self.config.limits.max_waiting:
            self._room.clear()
            await self._room.wait()

    # Retry requests.

    async def _take_retries(self, store: JobStore) -> None:
        """Run requested retries, and record ends that a full disk refused."""
        while True:
            store.record_pending_ends()
            pause_s = RETRY_S
            for letter in await self._retry_requests(store):
                if self._waiting >= self.config.limits.max_waiting:
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

    async def _take_retry(self, store: JobStore, letter: DeadLetter) -> bool:
        try:
            entry = await asyncio.wrap_future(store.accept_retry(letter))
        except (FogError, OSError) as problem:
            self.gateway.warn("retry", f"{letter.entry.job} cannot be retried yet: {problem}")
            return False
        if entry is not None:
            self._begin(entry, JobHistory(), run_suffix=_new_suffix())
        return True

    # From acceptance to the end.

    def _begin(
        self,
        entry: SpoolEntry,
        history: JobHistory,
        *,
        data: bytes | memoryview | None = None,
        run_suffix: str = "",
    ) -> None:
        log.info("%s: accepted as %s", entry.name, entry.job)
        accepted = self._accepted[entry.job] = _Accepted(entry, history)
        store = self._store
        request = JobRequest(
            name=entry.name,
            # Spool entries of an early version have the pipeline's name.
            pipeline=self.config.pipelines.get(entry.pipeline, entry.pipeline),
            path=store.image_path(entry.job) if store else None,
            data=data,
            pages=self.config.gateway.pages,
            tiles=self._tiles,
            post=self.config.post,
            priority=entry.priority,
            deliver=partial(self._deliver, accepted),
            job=entry.job,
            journal=store.open_journal(entry.job, history) if store else None,
            run_suffix=run_suffix,
        )
        accepted_status = JobStatus(job=entry.job, state="accepted", pipeline=request.pipeline)
        self._publish_status(entry, accepted_status)
        self._background.start(self._serve(accepted, request), f"job {entry.job}")

    async def _serve(self, accepted: _Accepted, request: JobRequest) -> None:
        """Run one image's job, reply, and record its end."""
        entry = accepted.entry
        outcome = await self.gateway.submit(request).outcome()
        self._log_end(entry, outcome)
        letter = None
        if outcome.error and outcome.retryable:
            letter = _dead_letter(entry, outcome, outcome.error)
        error = outcome.error
        try:
            await self._reply(accepted, outcome)
        except TransportError as problem:
            error = str(problem)
            self.gateway.warn("reply", error)
            letter = letter or _dead_letter(entry, outcome, error)
            self._publish_status(entry, _failed(entry, error))
        await self._record_end(entry, error, letter)

    def _format_of(self, pipeline: str) -> str:
        """Return the configured format of the results of a pipeline, by the pipeline's name."""
        return self.config.formats.get(pipeline, self.config.gateway.format)

    def _deliver(self, accepted: _Accepted, outcome: Outcome) -> Sequence[str]:
        """Encode and store a result; runs in a thread. Returns notes. Raises ImageError."""
        if not outcome.images or outcome.error:
            return ()
        entry, history, outbox = accepted.entry, accepted.history, self._outbox
        form = self._result_format(entry, history, len(outcome.images))
        encoded = encode_images(outcome.images, form, outcome.metadata)
        image, facts = encoded.data, None if outcome.facts is None else as_json(outcome.facts)
        if outbox.wants(entry):
            path = outbox.put(entry, history, image, facts, suffix=form.suffix)
            accepted.file = str(path)
        if self._publishes(entry):
            accepted.results = {"facts": facts, "image": image} if facts else {"image": image}
        return encoded.notes

    def _result_format(
        self, entry: SpoolEntry, history: JobHistory, page_count: int
    ) -> ResultFormat:
        """Return the format of a result; several pages need a TIFF."""
        form = parse_result_format(entry.format or self.config.gateway.format)
        if history.image_file:  # an earlier run has reserved this name
            reserved = format_of_suffix(Path(history.image_file).suffix)
            form = form if form.kind == reserved.kind else reserved
        return form if page_count == 1 or form.kind == "tiff" else ResultFormat("tiff")

    async def _reply(self, accepted: _Accepted, outcome: Outcome) -> None:
        """Publish the result and then the status, until the broker has both.

        Raises TransportError if the broker does not take them.
        """
        entry = accepted.entry
        if not _is_answerable(entry):
            return
        status = job_status(outcome.report, "failed" if outcome.error else "done", outcome.error)
        results = {} if outcome.error else accepted.results
        replies = [
            Reply(self.gateway.topics.reply(entry.reply, leaf), data)
            for leaf, data in results.items()
        ]
        replies.append(self._status_reply(entry, replace(status, file=accepted.file)))
        await self._replies.deliver(replies)

    async def _record_end(
        self, entry: SpoolEntry, error: str | None, letter: DeadLetter | None
    ) -> None:
        """Return the original to its inbox, with the reason of a failure, and forget the job."""
        self._accepted.pop(entry.job, None)
        self._room.set()
        if self._store is None:
            return
        try:
            folder = await asyncio.wrap_future(self._store.finish(entry, error, letter))
        except Exception as problem:  # noqa: BLE001  # the end of one job must end nothing else
            log.warning(
                "%s: cannot put the original back: %s; the next start tries again",
                entry.name,
                _reason(problem),
            )
            return
        if letter is not None and folder is not None:
            log.warning("%s: kept in %s; fog-gateway retry %s", entry.name, folder, folder.name)
            topic = self.gateway.topics.gateway(self.gateway.id, "dead")
            self._replies.publish(Reply(topic, announcement(letter, folder)))

    def _hold_jobs(self) -> None:
        """Let no job begin while the results for the broker take too much memory."""
        self.gateway.hold_jobs(self._replies.owed_bytes > MAX_OWED_BYTES)

    def _report_lost(self) -> None:
        """Publish that images without a spool are lost when the gateway stops."""
        if self._store is not None:
            return
        for accepted in self._accepted.values():
            reason = "the gateway is stopping; submit it again"
            self._publish_status(accepted.entry, _failed(accepted.entry, reason))

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
            self._publish_status(entry, status)
        elif now() - accepted.progress_at >= EVERY_S:
            accepted.progress_at = now()
            self._publish_status(entry, job_status(event.report, "running"))

    def _publishes(self, entry: SpoolEntry) -> bool:
        """Whether this result is published."""
        return bool(entry.reply) and self.config.gateway.deliver != "outbox"

    def _publish_status(self, entry: SpoolEntry, status: JobStatus) -> None:
        """Publish a job's status to its client; lost while the link is down."""
        if _is_answerable(entry):
            self._replies.publish(self._status_reply(entry, status))

    def _status_reply(self, entry: SpoolEntry, status: JobStatus) -> Reply:
        topic = self.gateway.topics.reply(entry.reply, "status")
        return Reply(topic, encode(status, "base64"))

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


def _reason(problem: Exception) -> str:
    """The text of an error without the path, which the log names once."""
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return str(problem) or type(problem).__name__


def _is_answerable(entry: SpoolEntry) -> bool:
    """Whether the client gave a reply name that fits into a topic."""
    return 0 < len(entry.reply) <= _LONGEST_REPLY


def _failed(entry: SpoolEntry, reason: str) -> JobStatus:
    return JobStatus(job=entry.job, state="failed", error=reason)


def _dead_letter(entry: SpoolEntry, outcome: Outcome, reason: str) -> DeadLetter:
    report = outcome.report
    return make_dead_letter(
        entry,
        reason,
        devices={device: share.tiles for device, share in report.devices.items()},
        failures=[FailedAttempt(**asdict(failure)) for failure in report.failures],
    )


def _origin(message: Received) -> str:
    if message.receipt is None:
        return ""
    digest = xxhash.xxh3_128_hexdigest(message.payload)
    return f"{message.receipt.packet_id}/{message.topic}/{digest}"


def _new_suffix() -> str:
    return f".{secrets.token_hex(3)}"
