"""A serving gateway: where images come from, and where results go."""

from __future__ import annotations

import logging
import shutil
import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import parse_tile_plan
from fogmqtt.errors import ConfigError, FogError, NotConnected, PipelineError, TooLarge, UsageError
from fogmqtt.gateway.broadcast import EVERY_S, status
from fogmqtt.gateway.inbox import DONE, FAILED, LOOK_S, Inbox, free_path
from fogmqtt.gateway.jobs import JobRequest, Outcome, new_job_id
from fogmqtt.gateway.loop import now
from fogmqtt.gateway.report import Report
from fogmqtt.gateway.service import Connect, Gateway
from fogmqtt.gateway.spool import Entry, Spool
from fogmqtt.images import files
from fogmqtt.operators import catalog
from fogmqtt.operators.measuring import as_json
from fogmqtt.operators.pipeline import parse, parse_post
from fogmqtt.wire.messages import JobStatus, encode
from fogmqtt.wire.topics import is_id

log = logging.getLogger(__name__)

#: The reply name of images that came through the inbox folder.
INBOX_REPLY = "inbox"
#: Who asks under a longer name, in characters, hears nothing: it may not even fit into a topic.
LONGEST_REPLY = 256


@dataclass(frozen=True, slots=True)
class _Reply:
    """A message to whoever asked; `ends` is the job that is over when it is sent."""

    topic: str
    payload: bytes
    ends: Entry | None = None
    error: str | None = None


class Server:
    """Serves the submit topic and the inbox folder with one gateway."""

    def __init__(self, config: GatewayConfig, connect: Connect) -> None:
        _check_outbox(config)
        _check_pipelines(config)
        self.config = config
        self._tiles = parse_tile_plan(config.tiles)
        self.gateway = Gateway(config, config.gateway.id, connect, self._submitted)
        self._spool = Spool(Path(config.gateway.spool)) if config.gateway.spool else None
        self._inbox: Inbox | None = None
        self._look_at = 0.0
        #: Accepted and not ended, by job.
        self._open: dict[str, Entry] = {}
        #: Two pool threads must not find the same name free.
        self._naming = threading.Lock()
        #: Replies in their order; those that find no link wait here for one.
        self.unsent: deque[_Reply] = deque()
        self.gateway.chores += [self._look, self._send_again]

    def start(self) -> None:
        """Take up what an earlier life accepted, then open the doors."""
        if self.config.gateway.inbox:
            folder = Path(self.config.gateway.inbox)
            self._spool = self._spool or Spool(folder / ".spool")
            self._inbox = Inbox(folder, tuple(self.config.pipelines))
            log.info("watching %s", folder)
        for entry in self._spool.entries() if self._spool else ():
            log.info("%s was accepted before and is not delivered: doing it now", entry.name)
            self._begin(entry, None)
        self.gateway.transport.start()

    def run(self) -> None:
        self.gateway.run(lambda: False)

    def close(self) -> None:
        """Stop; what the spool has is for the next life, what nobody has is told to have failed."""
        for entry in self._open.values() if self._spool is None else ():
            reason = "the gateway is stopping; submit it again"
            self.reply_status(entry, JobStatus(job=entry.job, state="failed", error=reason))
        self.gateway.close()
        if self._spool:
            self._spool.close()

    # Where images come from.

    def _submitted(self, pipeline: str, reply: str, payload: bytes, retained: bool) -> None:
        entry = Entry(
            job=new_job_id(), name=f"submit/{pipeline}/{reply}", pipeline=pipeline, reply=reply
        )
        try:
            self._check(entry, retained)
            if self._spool:
                self._spool.accept_bytes(entry, payload)
        except (FogError, OSError) as problem:
            self.gateway.complain("refused", f"{entry.name[:120]}: {problem}")
            self.reply_status(entry, JobStatus(job=entry.job, state="failed", error=str(problem)))
            return
        self._begin(entry, None if self._spool else payload)

    def _check(self, entry: Entry, retained: bool) -> None:
        if not is_id(entry.reply):
            raise UsageError(
                f"{entry.reply[:80]!r} is no reply name; use 1 to 32 of a-z, 0-9, _ and -"
            )
        if retained:
            raise PipelineError(
                "a retained image would be done again at every start; publish it without retain"
            )
        if entry.pipeline not in self.config.pipelines:
            near = catalog.nearest(entry.pipeline[:80], self.config.pipelines)
            raise PipelineError(f"no pipeline {entry.pipeline[:80]!r} in the configuration; {near}")
        if self.gateway.conductor.waiting >= self.config.limits.max_waiting:
            raise FogError(
                f"{self.gateway.conductor.waiting} images are waiting, as many as "
                "limits.max_waiting allows; try again later"
            )

    def _look(self, moment: float) -> float | None:
        if self._inbox is None or self._spool is None:
            return None
        if moment < self._look_at:
            return self._look_at
        self._look_at = moment + LOOK_S
        room = self.config.limits.max_waiting - self.gateway.conductor.waiting
        for found in self._inbox.look(moment)[: max(0, room)]:
            entry = Entry(
                job=new_job_id(),
                name=_readable(found.path.name),
                pipeline=found.folder or self.config.pipeline,
                reply=INBOX_REPLY if self.config.gateway.deliver in ("reply", "both") else "",
                inbox=str(found.path.parent),
            )
            try:
                self._spool.accept_file(entry, found.path)
            except (FogError, OSError) as problem:
                self.gateway.complain("inbox", f"cannot take {found.path}: {problem}")
                continue
            self._begin(entry, None)
        return self._look_at

    def _begin(self, entry: Entry, data: bytes | None) -> None:
        path = self._spool.image(entry.job) if self._spool and data is None else None
        log.info("%s: accepted as %s", entry.name, entry.job)
        self._open[entry.job] = entry
        request = JobRequest(
            name=entry.name,
            pipeline=self.config.pipelines.get(entry.pipeline, entry.pipeline),
            client=_Delivery(self, entry),
            path=path,
            data=data,
            tiles=self._tiles,
            post=self.config.post,
            job=entry.job,
        )
        self.reply_status(
            entry, JobStatus(job=entry.job, state="accepted", pipeline=request.pipeline)
        )
        self.gateway.submit(request)

    # Where results go.

    def outbox(self, entry: Entry) -> Path | None:
        """The folder for this result, if it goes to one."""
        deliver = self.config.gateway.deliver
        wanted = deliver in ("outbox", "both") or (deliver == "auto" and bool(entry.inbox))
        return Path(self.config.gateway.outbox) if wanted and self.config.gateway.outbox else None

    def replies(self, entry: Entry) -> bool:
        """Whether this result is published."""
        return bool(entry.reply) and self.config.gateway.deliver != "outbox"

    def put(self, path: Path, data: bytes) -> Path:
        """Write a result, under another name where this one is taken. Any thread."""
        with self._naming:
            path = free_path(path)
            files.write_bytes(path, data)
        return path

    def publish_result(self, entry: Entry, leaf: str, data: bytes) -> None:
        """Any thread. Raises TooLarge; without a link it waits for one. `leaf`: image or facts."""
        topic = self.gateway.topics.reply(entry.reply, leaf)
        try:
            self.gateway.transport.publish(topic, data, qos=self.config.wire.qos)
        except NotConnected:
            self.unsent.append(_Reply(topic, data))

    def reply_status(self, entry: Entry, status: JobStatus) -> None:
        """Tell whoever asked how it goes; lost without a link."""
        if not _answerable(entry):
            return
        try:
            self.gateway.transport.publish(
                *self._status_reply(entry, status), qos=self.config.wire.qos
            )
        except NotConnected:
            return  # the end is told in any case

    def finish(self, entry: Entry, status: JobStatus) -> None:
        """Tell whoever asked how it ended; only then is the job forgotten."""
        if not _answerable(entry):
            self.settle(entry, status.error)
            return
        self.unsent.append(_Reply(*self._status_reply(entry, status), entry, status.error))
        self._send_again(now())

    def _status_reply(self, entry: Entry, status: JobStatus) -> tuple[str, bytes]:
        return self.gateway.topics.reply(entry.reply, "status"), encode(status, "base64")

    def settle(self, entry: Entry, error: str | None) -> None:
        """Give the original back to its inbox, with the reason where it failed; forget the job."""
        self._open.pop(entry.job, None)
        if self._spool is None:
            return
        try:
            if entry.inbox:
                _give_back(self._spool.image(entry.job), entry, error)
            self._spool.forget(entry.job)
        except OSError as problem:
            log.warning("%s: cannot put the original back: %s", entry.name, problem)

    def _send_again(self, _moment: float) -> float | None:
        while self.unsent and self.gateway.connected:
            reply = self.unsent[0]
            try:
                self.gateway.transport.publish(reply.topic, reply.payload, qos=self.config.wire.qos)
            except NotConnected:
                break
            except TooLarge as problem:
                self.gateway.complain("reply", str(problem))
            self.unsent.popleft()
            if reply.ends is not None:
                self.settle(reply.ends, reply.error)
        return None


def _answerable(entry: Entry) -> bool:
    return 0 < len(entry.reply) <= LONGEST_REPLY


@dataclass(slots=True)
class _Delivery:
    """The client of a serving gateway's job: topics and folders."""

    server: Server
    entry: Entry
    file: str | None = None
    said_at: float = field(default=float("-inf"))

    def progress(self, report: Report) -> None:
        if now() - self.said_at >= EVERY_S:
            self.said_at = now()
            self.server.reply_status(self.entry, status(report, "running"))

    def notice(self, job: str, text: str) -> None:
        log.info("%s: %s", self.entry.name, text)
        self.server.reply_status(self.entry, JobStatus(job=job, state="waiting", error=text))

    def deliver(self, outcome: Outcome) -> None:
        if outcome.image is None or outcome.error:
            return
        suffix = f".{self.server.config.gateway.format}"
        data = files.encode_file(outcome.image, suffix)
        facts = None if outcome.facts is None else as_json(outcome.facts)
        outbox = self.server.outbox(self.entry)
        if outbox:
            outbox.mkdir(parents=True, exist_ok=True)
            stem = (
                Path(self.entry.name).stem
                if self.entry.inbox
                else f"{self.entry.reply}-{outcome.job}"
            )
            path = self.server.put(outbox / f"{stem}{suffix}", data)
            self.file = str(path)
            if facts:
                self.file = str(self.server.put(path.with_suffix(".json"), facts))
        if self.server.replies(self.entry):
            if facts:
                self.server.publish_result(self.entry, "facts", facts)
            self.server.publish_result(self.entry, "image", data)

    def ended(self, outcome: Outcome) -> None:
        if outcome.error is None:
            log.info("%s: done in %.2f s", self.entry.name, outcome.report.seconds)
        else:
            log.warning("%s: failed: %s", self.entry.name, outcome.error)
        said = status(outcome.report, "failed" if outcome.error else "done", outcome.error)
        self.server.finish(self.entry, replace(said, file=self.file))


def _readable(name: str) -> str:
    """A file's name as text: a file system may hold bytes that are none."""
    return name.encode("utf-8", "backslashreplace").decode()


def _same(inbox: str, outbox: str) -> bool:
    return bool(inbox and outbox) and Path(inbox).resolve() == Path(outbox).resolve()


def _check_outbox(config: GatewayConfig) -> None:
    gateway = config.gateway
    if _same(gateway.inbox, gateway.outbox):
        raise ConfigError(
            f"gateway.outbox: {gateway.outbox} is the inbox, so that every result would be the "
            "next image; name another folder"
        )
    needed = gateway.deliver in ("outbox", "both") or (gateway.deliver == "auto" and gateway.inbox)
    if needed and not gateway.outbox:
        raise ConfigError(
            f"gateway.outbox: {gateway.deliver!r} delivery needs a folder for results; name one, "
            "or set gateway.deliver: reply"
        )


def _check_pipelines(config: GatewayConfig) -> None:
    """A typing error is found at the start, not with the first image."""
    known = {f"pipelines.{name}": text for name, text in config.pipelines.items()}
    known["pipeline"] = config.pipelines.get(config.pipeline, config.pipeline)
    for key, text in known.items():
        try:
            parse(text)
        except PipelineError as problem:
            raise ConfigError(f"{key}: {problem}") from None
    try:
        parse_post(config.post)
    except PipelineError as problem:
        raise ConfigError(str(problem)) from None


def _give_back(image: Path, entry: Entry, error: str | None) -> None:
    folder = Path(entry.inbox) / (FAILED if error else DONE)
    folder.mkdir(parents=True, exist_ok=True)
    path = free_path(folder / entry.name)
    shutil.move(image, path)
    if error:
        path.with_name(f"{path.name}.txt").write_text(f"{error}\n", encoding="utf-8")
