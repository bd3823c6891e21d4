"""The submit topic and the cancel topic: images of submitters are taken or refused in words.

An image is acknowledged to the broker when it is on disk, and not before.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Iterable, Mapping
from typing import Final, Protocol

import xxhash

from fogmqtt.config import GatewayConfig
from fogmqtt.errors import FogError, PipelineError, UsageError, WireError
from fogmqtt.gateway.app import Cancellation, Gateway, Submission
from fogmqtt.gateway.background import BackgroundTasks
from fogmqtt.gateway.jobs.model import new_job_id
from fogmqtt.gateway.server.admission import Admission
from fogmqtt.gateway.server.answers import Answers
from fogmqtt.gateway.storage.api import JobStore, SpoolEntry
from fogmqtt.operators.api import registry
from fogmqtt.transport.base import TRACESTATE, MessageProperties, Receipt, Received
from fogmqtt.wire.messages import CancelSubmission, Decoder, JobStatus
from fogmqtt.wire.topics import is_id, is_tag

log = logging.getLogger(__name__)

#: The number of accepted messages that are recognised if the broker repeats them.
_ORIGINS: Final = 4096
#: The longest Correlation Data, in bytes; each answer carries it.
_LONGEST_CORRELATION: Final = 4096
_CANCELLED: Final = "cancelled by its submitter"
#: What W3C Trace Context allows; anything else is to be ignored.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)

_STATE: Final = re.compile(r"[!-~][ -~]{0,511}")


class Begin(Protocol):
    """Begins the job of an accepted image."""

    def __call__(self, entry: SpoolEntry, data: bytes | memoryview | None = None) -> None: ...


class Submissions:
    """Takes images and cancellations from the broker, in their order.

    `unended` are the accepted images whose jobs have not ended, by job.
    """

    def __init__(
        self,
        config: GatewayConfig,
        gateway: Gateway,
        store: JobStore | None,
        admission: Admission,
        answers: Answers,
        begin: Begin,
        unended: Mapping[str, SpoolEntry],
    ) -> None:
        self._config = config
        self._gateway = gateway
        self._store = store
        self._admission = admission
        self._answers = answers
        self._begin = begin
        self._unended = unended
        self._background = BackgroundTasks()
        self._cancellations = Decoder(CancelSubmission)
        #: The origins of the newest accepted messages.
        self._origins: OrderedDict[str, None] = OrderedDict()

    def remember(self, origins: Iterable[str]) -> None:
        """Recognise messages that an earlier run accepted."""
        for origin in origins:
            self._remember(origin)

    async def run(self) -> None:
        """Take what comes, until cancelled."""
        try:
            async for item in self._gateway.submissions():
                if isinstance(item, Cancellation):
                    self._background.start(self._cancel(item), "cancellation")
                else:
                    self._take(item)
        finally:
            await self._background.close()

    # Images.

    def _take(self, submission: Submission) -> None:
        """Accept or refuse an image, and acknowledge its message in turn."""
        message = submission.message
        entry = self._entry(submission)
        if message.receipt and message.receipt.is_repeated and entry.origin in self._origins:
            log.info("%s was accepted already: the broker repeats it", entry.name)
            self._acknowledge(message.receipt)
            return
        try:
            self._check(submission)
        except FogError as problem:
            self._refuse(entry, message.receipt, problem)
            return
        if self._store is None:
            self._begin(entry, message.payload)
            self._acknowledge(message.receipt)
            return
        self._remember(entry.origin)
        self._admission.spooling()
        accepting = asyncio.wrap_future(self._store.accept_bytes(entry, message.payload))
        work = self._accept(entry, message.receipt, accepting)
        self._background.start(work, f"acceptance of {entry.name}")

    def _entry(self, submission: Submission) -> SpoolEntry:
        """Return the note of an image; marks that cannot be used are left out."""
        pipeline, message = submission.pipeline, submission.message
        chosen = self._config.chosen(pipeline)
        properties, tag = message.properties, submission.tag
        name = f"submit/{pipeline}/{submission.reply}"
        is_traced = _TRACEPARENT.fullmatch(properties.traceparent) is not None
        return SpoolEntry(
            job=new_job_id(),
            name=f"{name}/{tag}" if tag else name,
            pipeline=chosen.text,
            priority=chosen.priority,
            format=chosen.format,
            deliver=chosen.deliver,
            pipeline_name=chosen.name,
            reply=submission.reply,
            tag=tag if is_tag(tag) else "",
            response=self._response(properties.response_topic, submission.reply),
            correlation=properties.correlation[:_LONGEST_CORRELATION],
            traceparent=properties.traceparent if is_traced else "",
            tracestate=_trace_state(properties) if is_traced else "",
            origin=_origin(message),
            source="mqtt",
            accepted_at=time.time(),
        )

    def _response(self, topic: str, reply: str) -> str:
        try:
            return self._gateway.topics.response(topic, reply) if topic else ""
        except UsageError:
            return ""  # `_check` says so, on the topics of the reply name

    def _check(self, submission: Submission) -> None:
        """Raise FogError if an image cannot be taken."""
        pipeline, properties = submission.pipeline, submission.message.properties
        if not is_id(submission.reply):
            raise UsageError(
                f"{submission.reply[:80]!r} is not a reply name; use 1 to 32 of a-z, 0-9, _ and -"
            )
        if submission.tag and not is_tag(submission.tag):
            raise UsageError(
                f"{submission.tag[:80]!r} is not a tag; use 1 to 64 letters, digits, _, -, . and :"
            )
        if properties.response_topic:
            self._gateway.topics.response(properties.response_topic, submission.reply)
        if len(properties.correlation) > _LONGEST_CORRELATION:
            raise UsageError(
                f"the Correlation Data has {len(properties.correlation)} bytes; "
                f"use {_LONGEST_CORRELATION} at most"
            )
        if submission.message.retained:
            raise PipelineError(
                "a retained image would be done again at every start; publish it without retain"
            )
        if pipeline not in self._config.pipelines:
            suggestion = registry.suggestion(pipeline[:80], self._config.pipelines)
            raise PipelineError(f"no pipeline {pipeline[:80]!r} in the configuration; {suggestion}")
        self._admission.check(self._unfinished(submission.reply))

    def _unfinished(self, reply: str) -> int:
        """Return how many images of a reply name wait or are under way."""
        return sum(one.reply == reply and one.source == "mqtt" for one in self._unended.values())

    async def _accept(
        self, entry: SpoolEntry, receipt: Receipt | None, accepting: Awaitable[None]
    ) -> None:
        """Begin a job when its image is on disk."""
        try:
            await accepting
        except (FogError, OSError) as problem:
            # Without an acknowledgement, the broker would stop sending other messages.
            self._origins.pop(entry.origin, None)
            self._refuse(entry, receipt, self._admission.refusal(problem))
            return
        finally:
            self._admission.spooled()
        self._admission.taken()
        self._begin(entry)
        if receipt is not None:
            self._gateway.link.acknowledge(receipt)

    def _refuse(self, entry: SpoolEntry, receipt: Receipt | None, problem: Exception) -> None:
        self._gateway.warn("refused", f"{entry.name[:120]}: {problem}")
        self._answers.refuse(entry, str(problem))
        self._acknowledge(receipt)

    def _acknowledge(self, receipt: Receipt | None) -> None:
        """Acknowledge a message. The broker expects the order in which it sent them."""
        if receipt is None:
            return
        if self._store is None:
            self._gateway.link.acknowledge(receipt)
            return
        flushed = asyncio.wrap_future(self._store.flush())

        async def acknowledge() -> None:
            await flushed
            self._gateway.link.acknowledge(receipt)

        self._background.start(acknowledge(), "acknowledgement")

    def _remember(self, origin: str) -> None:
        self._origins[origin] = None
        if len(self._origins) > _ORIGINS:
            self._origins.popitem(last=False)

    # Cancellations.

    async def _cancel(self, cancellation: Cancellation) -> None:
        """End the jobs that a message names, if its sender's reply name submitted them."""
        reply, message = cancellation.reply, cancellation.message
        if not is_id(reply) or message.retained:
            self._gateway.warn("cancellation", f"of {reply[:80]!r} is ignored")
            return
        try:
            wanted = self._cancellations.decode(message.payload)
        except WireError as problem:
            self._tell(
                cancellation, CancelSubmission(), f"the cancellation is not understood: {problem}"
            )
            return
        if not (wanted.job or wanted.tag):
            self._tell(cancellation, wanted, 'name a "job" or a "tag" to cancel')
            return
        if self._store is not None:
            # Images that came before may be on their way to the disk still.
            await asyncio.wrap_future(self._store.flush())
        named = [entry.job for entry in self._unended.values() if _is_named(entry, reply, wanted)]
        jobs = [job for job in named if self._gateway.cancel(job, _CANCELLED)]
        for job in jobs:
            log.info("%s cancels %s", reply, job)
            if message.properties.response_topic:
                status = JobStatus(job=job, state="failed", error=_CANCELLED)
                self._answers.tell(self._asker(cancellation, wanted), status)
        if not jobs:
            name = f"job {wanted.job!r}" if wanted.job else f"job with the tag {wanted.tag!r}"
            self._tell(
                cancellation,
                wanted,
                f"{self._gateway.id} has no unfinished {name} of {reply!r}; it has ended, or "
                "another gateway has it",
            )

    def _tell(self, cancellation: Cancellation, wanted: CancelSubmission, reason: str) -> None:
        """Answer that there is nothing to cancel."""
        self._gateway.warn("cancellation", f"of {cancellation.reply[:80]}: {reason}")
        entry = self._asker(cancellation, wanted)
        status = JobStatus(job=entry.job, state="unknown", gateway=self._gateway.id, error=reason)
        self._answers.tell(entry, status)

    def _asker(self, cancellation: Cancellation, wanted: CancelSubmission) -> SpoolEntry:
        """Return where the answer to a cancellation goes."""
        properties = cancellation.message.properties
        return SpoolEntry(
            job=wanted.job[:80],
            name="",
            pipeline="",
            reply=cancellation.reply,
            tag=wanted.tag if is_tag(wanted.tag) else "",
            response=self._response(properties.response_topic, cancellation.reply),
            correlation=properties.correlation[:_LONGEST_CORRELATION],
        )


def _is_named(entry: SpoolEntry, reply: str, wanted: CancelSubmission) -> bool:
    """Whether a cancellation means this image. Those of the inbox have no submitter."""
    is_own = entry.reply == reply and not entry.inbox
    same_job = not wanted.job or entry.job == wanted.job
    return is_own and same_job and (not wanted.tag or entry.tag == wanted.tag)


def _trace_state(properties: MessageProperties) -> str:
    """Return what vendors add to a trace; one that is not allowed is ignored."""
    found = dict(properties.user).get(TRACESTATE, "")
    return found if _STATE.fullmatch(found) else ""


def _origin(message: Received) -> str:
    if message.receipt is None:
        return ""
    digest = xxhash.xxh3_128_hexdigest(message.payload)
    return f"{message.receipt.packet_id}/{message.topic}/{digest}"
