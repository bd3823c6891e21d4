"""A serving gateway: where images come from, and where results go."""

from __future__ import annotations

import logging
import secrets
import time
from collections import OrderedDict
from pathlib import Path

import xxhash

from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import parse_tile_plan
from fogmqtt.errors import FogError, PipelineError, UsageError
from fogmqtt.gateway.app import Connect, Gateway
from fogmqtt.gateway.jobs.model import JobRequest, new_job_id
from fogmqtt.gateway.loop import now
from fogmqtt.gateway.server.config_checks import check_outbox, check_pipelines
from fogmqtt.gateway.server.inbox import LOOK_S, Inbox, InboxFile
from fogmqtt.gateway.server.outbox import Delivery, Outbox, answerable
from fogmqtt.gateway.server.replies import FinalReply, Replies, Reply
from fogmqtt.gateway.server.retries import RetryWatcher
from fogmqtt.gateway.storage.dead_letters import DeadLetter, announcement
from fogmqtt.gateway.storage.durable_files import DurableFiles, is_full
from fogmqtt.gateway.storage.job_store import JobStore
from fogmqtt.gateway.storage.journal_db import PastJob
from fogmqtt.gateway.storage.spool import Entry, stamp
from fogmqtt.operators.api import registry
from fogmqtt.transport.base import Receipt, Received
from fogmqtt.wire.messages import JobStatus, encode
from fogmqtt.wire.topics import is_id

log = logging.getLogger(__name__)

#: The reply name of images that came through the inbox folder.
INBOX_REPLY = "inbox"
#: Seconds until the inbox is looked at again where a file could not be taken.
PAUSE_S = 5.0
#: Memory of results that wait for a link or for the broker; beyond it no job is begun.
MAX_OWED_BYTES = 256_000_000
#: So many accepted messages are known again if the broker repeats them.
_ORIGINS = 4096


class Server:
    """Serves the submit topic and the inbox folder with one gateway.

    `disk` is for tests that stop the world between two changes. Raises ConfigError.
    """

    def __init__(
        self, config: GatewayConfig, connect: Connect, disk: DurableFiles | None = None
    ) -> None:
        check_outbox(config)
        check_pipelines(config)
        self.config = config
        self._tiles = parse_tile_plan(config.tiles)
        self._disk = disk or DurableFiles()
        self._archive = self._open_archive()
        self.gateway = Gateway(config, config.gateway.id, connect, self._submitted)
        self.outbox = Outbox(config.gateway, self._archive, self._disk)
        self._replies = Replies(
            self.gateway,
            config.wire.qos,
            over=lambda farewell: self._settle(farewell.entry, farewell.error),
            failed=lambda entry, reason: self._status(entry, _failed(entry, reason)),
        )
        self._inbox: Inbox | None = None
        self._look_at = 0.0
        #: What is to be kept of jobs that failed, until they are settled.
        self._letters: dict[str, DeadLetter] = {}
        #: Accepted and not ended, by job.
        self._open: dict[str, Entry] = {}
        #: On their way to the spool: files, and how many images in all.
        self._taking: set[Path] = set()
        self._spooling = 0
        #: What the broker called the newest accepted messages.
        self._origins: OrderedDict[str, None] = OrderedDict()
        self.gateway.conductor.held = lambda: self._replies.owed_bytes > MAX_OWED_BYTES
        self.gateway.periodic_tasks.append(self._look)
        if self._archive:
            room = lambda: self._waiting < config.limits.max_waiting  # noqa: E731
            retries = RetryWatcher(self._archive, self.gateway, room, self._begin_again)
            self.gateway.periodic_tasks.append(retries.look)

    def start(self) -> None:
        """Take up what an earlier life accepted, then open the doors."""
        if self.config.gateway.inbox:
            folder = Path(self.config.gateway.inbox)
            self._inbox = Inbox(folder, tuple(self.config.pipelines))
            log.info("watching %s", folder)
        if self._archive:
            unfinished = self._archive.unfinished()
            for origin in self._archive.origins() | {entry.origin for entry, _ in unfinished}:
                self._remember(origin)
            for entry, past in unfinished:
                self._take_up(entry, past)
        self.gateway.transport.start()

    def run(self) -> None:
        self.gateway.run(lambda: False)

    def close(self) -> None:
        """Stop; what the spool has is for the next life, what nobody has is told to have failed."""
        for entry in self._open.values() if self._archive is None else ():
            self.say(entry, _failed(entry, "the gateway is stopping; submit it again"))
        self.gateway.close()
        if self._archive:
            self._archive.close()

    def _open_archive(self) -> JobStore | None:
        settings = self.config.gateway
        # What is taken out of the inbox must be somewhere.
        folder = settings.spool or (settings.inbox and f"{settings.inbox}/.spool")
        if not folder:
            return None
        return JobStore(
            Path(folder),
            settings.id,
            keep_s=settings.spool_keep_s,
            max_bytes=settings.spool_max_bytes,
            disk=self._disk,
        )

    # Where images come from.

    def _submitted(self, pipeline: str, reply: str, message: Received) -> None:
        entry = Entry(
            job=new_job_id(),
            name=f"submit/{pipeline}/{reply}",
            pipeline=self.config.pipelines.get(pipeline, pipeline),
            priority=self.config.priorities.get(pipeline, 0),
            reply=reply,
            origin=_origin(message),
            accepted_at=time.time(),
        )
        if message.receipt and message.receipt.again and entry.origin in self._origins:
            log.info("%s was accepted already: the broker repeats it", entry.name)
            self._acknowledge(message.receipt)
            return
        try:
            self._check(entry, pipeline, message.retained)
        except FogError as problem:
            self._refuse(entry, message.receipt, problem)
            return
        if self._archive is None:
            self._begin(entry, PastJob(), data=message.payload)
            self._acknowledge(message.receipt)
            return
        self._spooling += 1
        self._remember(entry.origin)
        self.gateway.loop.watch(
            self._archive.accept_bytes(entry, message.payload),
            lambda _: self._accepted(entry, message.receipt),
            lambda problem: self._not_spooled(entry, message.receipt, problem),
        )

    def _check(self, entry: Entry, pipeline: str, retained: bool) -> None:
        if not is_id(entry.reply):
            raise UsageError(
                f"{entry.reply[:80]!r} is no reply name; use 1 to 32 of a-z, 0-9, _ and -"
            )
        if retained:
            raise PipelineError(
                "a retained image would be done again at every start; publish it without retain"
            )
        if pipeline not in self.config.pipelines:
            near = registry.suggestion(pipeline[:80], self.config.pipelines)
            raise PipelineError(f"no pipeline {pipeline[:80]!r} in the configuration; {near}")
        if self._waiting >= self.config.limits.max_waiting:
            raise FogError(
                f"{self._waiting} images are waiting, as many as "
                "limits.max_waiting allows; try again later"
            )

    @property
    def _waiting(self) -> int:
        return self.gateway.conductor.waiting + self._spooling

    def _accepted(self, entry: Entry, receipt: Receipt | None) -> None:
        """It is on disk: from now on no message of the broker's is needed."""
        self._spooling -= 1
        self._there_is_room()
        self._begin(entry, PastJob())
        if receipt is not None:
            self.gateway.transport.acknowledge(receipt)

    def _not_spooled(self, entry: Entry, receipt: Receipt | None, problem: Exception) -> None:
        # Not acknowledged, it would hold up everything else that the broker has for us.
        self._spooling -= 1
        self._origins.pop(entry.origin, None)
        self._refuse(entry, receipt, self._why(problem))

    def _refuse(self, entry: Entry, receipt: Receipt | None, problem: Exception) -> None:
        self.gateway.complain("refused", f"{entry.name[:120]}: {problem}")
        self.say(entry, _failed(entry, str(problem)))
        self._acknowledge(receipt)

    def _acknowledge(self, receipt: Receipt | None) -> None:
        """In its turn: the broker wants to hear of messages in the order in which it sent them."""
        if receipt is None:
            return
        if self._archive is None:
            self.gateway.transport.acknowledge(receipt)
            return
        self.gateway.loop.watch(
            self._archive.passed(),
            lambda _: self.gateway.transport.acknowledge(receipt),
            lambda problem: log.error("the spool's thread failed: %s", problem),
        )

    def _remember(self, origin: str) -> None:
        self._origins[origin] = None
        if len(self._origins) > _ORIGINS:
            self._origins.popitem(last=False)

    def _why(self, problem: Exception) -> Exception:
        """What is said of an image that the spool did not take."""
        if not is_full(problem):
            return problem
        reason = "the gateway's disk is full; submit it again when there is room"
        if not self.gateway.voice.paused:
            log.warning("the disk of the spool is full: no image is taken until there is room")
            self._pause(reason)
        return FogError(reason)

    def _there_is_room(self) -> None:
        if self.gateway.voice.paused:
            log.info("the disk of the spool has room again")
            self._pause("")

    def _pause(self, reason: str) -> None:
        self.gateway.voice.paused = reason
        self.gateway.introduce()

    def _look(self, moment: float) -> float | None:
        if self._inbox is None:
            return None
        if moment < self._look_at:
            return self._look_at
        self._look_at = moment + LOOK_S
        room = self.config.limits.max_waiting - self._waiting
        found = [one for one in self._inbox.look(moment) if one.path not in self._taking]
        for one in found[: max(0, room)]:
            self._take(one)
        return self._look_at

    def _take(self, found: InboxFile) -> None:
        if self._archive is None:
            return
        name = found.folder or self.config.pipeline
        try:
            entry = Entry(
                job=new_job_id(),
                name=_readable(found.path.name),
                pipeline=self.config.pipelines.get(name, name),
                priority=self.config.priorities.get(name, 0),
                reply=INBOX_REPLY if self.config.gateway.deliver in ("reply", "both") else "",
                inbox=str(found.path.parent),
                stamp=stamp(found.path),
                accepted_at=time.time(),
            )
        except OSError:
            return  # it went away between two looks
        self._spooling += 1
        self._taking.add(found.path)
        self.gateway.loop.watch(
            self._archive.accept_file(entry, found.path),
            lambda _: self._taken(entry, found.path),
            lambda problem: self._not_taken(found.path, problem),
        )

    def _taken(self, entry: Entry, path: Path) -> None:
        self._taking.discard(path)
        self._accepted(entry, None)

    def _not_taken(self, path: Path, problem: Exception) -> None:
        self._spooling -= 1
        self._taking.discard(path)
        self._look_at = now() + PAUSE_S
        self.gateway.complain("inbox", f"cannot take {path}: {self._why(problem)}")

    def _take_up(self, entry: Entry, past: PastJob) -> None:
        if past.filed and not self.replies_to(entry):
            log.info("%s was done before, all but told", entry.name)
            self._open[entry.job] = entry
            self._settle(entry, None)
            return
        log.info("%s was accepted before and is not delivered: doing it now", entry.name)
        self._begin(entry, past, life=f".{secrets.token_hex(3)}")

    def _begin(
        self, entry: Entry, past: PastJob, *, data: bytes | None = None, life: str = ""
    ) -> None:
        log.info("%s: accepted as %s", entry.name, entry.job)
        self._open[entry.job] = entry
        archive = self._archive
        request = JobRequest(
            name=entry.name,
            # Notes of before carry the pipeline's name.
            pipeline=self.config.pipelines.get(entry.pipeline, entry.pipeline),
            client=Delivery(self, entry, past),
            path=archive.spool.image(entry.job) if archive else None,
            data=data,
            tiles=self._tiles,
            post=self.config.post,
            priority=entry.priority,
            job=entry.job,
            journal=archive.journal(entry.job, past) if archive else None,
            life=life,
        )
        self.say(entry, JobStatus(job=entry.job, state="accepted", pipeline=request.pipeline))
        self.gateway.submit(request)

    def _begin_again(self, entry: Entry) -> None:
        self._begin(entry, PastJob(), life=f".{secrets.token_hex(3)}")

    # Where results go.

    def replies_to(self, entry: Entry) -> bool:
        """Whether this result is published."""
        return bool(entry.reply) and self.config.gateway.deliver != "outbox"

    def say(self, entry: Entry, said: JobStatus) -> None:
        """Tell whoever asked how it goes; lost without a link."""
        if answerable(entry):
            self._replies.say(self._status(entry, said))

    def record_failure(self, letter: DeadLetter) -> None:
        """The job failed: this is to be kept of it when it is settled."""
        if self._archive:
            self._letters[letter.entry.job] = letter

    def finish(self, entry: Entry, said: JobStatus, results: dict[str, bytes]) -> None:
        """Tell whoever asked how it ended; the job is forgotten when the broker has all of it."""
        if not answerable(entry):
            self._settle(entry, said.error)
            return
        topic = self.gateway.topics.reply
        messages = [Reply(topic(entry.reply, leaf), data) for leaf, data in results.items()]
        messages.append(self._status(entry, said))
        self._replies.owe(FinalReply(entry, messages, said.error))

    def _status(self, entry: Entry, said: JobStatus) -> Reply:
        return Reply(self.gateway.topics.reply(entry.reply, "status"), encode(said, "base64"))

    def _settle(self, entry: Entry, error: str | None) -> None:
        """Give the original back to its inbox, with the reason where it failed; forget the job."""
        self._open.pop(entry.job, None)
        self.gateway.conductor.admit()
        letter = self._letters.pop(entry.job, None)
        if self._archive:
            self.gateway.loop.watch(
                self._archive.settle(entry, error, letter),
                lambda kept: self._announce(letter, kept),
                lambda problem: log.warning(
                    "%s: cannot put the original back: %s", entry.name, problem
                ),
            )

    def _announce(self, letter: DeadLetter | None, kept: Path | None) -> None:
        if letter is None or kept is None:
            return
        log.warning("%s: kept in %s; fog-gateway retry %s", letter.entry.name, kept, kept.name)
        topic = self.gateway.topics.gateway(self.gateway.id, "dead")
        self._replies.say(Reply(topic, announcement(letter, kept)))


def _failed(entry: Entry, reason: str) -> JobStatus:
    return JobStatus(job=entry.job, state="failed", error=reason)


def _origin(message: Received) -> str:
    if message.receipt is None:
        return ""
    digest = xxhash.xxh3_128_hexdigest(message.payload)
    return f"{message.receipt.mid}/{message.topic}/{digest}"


def _readable(name: str) -> str:
    """A file's name as text: a file system may hold bytes that are none."""
    return name.encode("utf-8", "backslashreplace").decode()
