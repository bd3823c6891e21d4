"""Callbacks: results that are POSTed to URLs, again and again until the receiver has them.

What is to be sent is on disk before its job ends, so a killed gateway sends it after its restart. A
receiver that is away delays no job.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from fogmqtt import __version__
from fogmqtt.config import CallbackSettings
from fogmqtt.errors import FogError
from fogmqtt.gateway.background import Supervisor
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.server.http_post import PostFailed, Receiver, post_file
from fogmqtt.gateway.storage.durable_files import DurableFiles, write
from fogmqtt.gateway.storage.given_up import (
    BODY,
    NOTE,
    CallbackNote,
    GivenUpCallbacks,
    read_notes,
)
from fogmqtt.gateway.threads import Threads
from fogmqtt.log import one_line
from fogmqtt.wire.service_messages import Outlook

log = logging.getLogger(__name__)

#: Seconds until the second try; each further one waits twice as long.
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 300.0
#: Each pause is up to so much shorter or longer.
_JITTER: Final = 0.2
#: Seconds in which one try must end, however slowly the receiver reads.
_TRY_S: Final = 600.0
#: Seconds between two looks for callbacks that are to be tried again.
_LOOK_S: Final = 5.0
_CHANCE: Final = random.SystemRandom()

#: Is told how a callback fares: the note, what went wrong ("" if it was sent after all), and what
#: comes of it.
Report = Callable[[CallbackNote, str, Outlook], None]


@dataclass(slots=True)
class _Pending:
    note: CallbackNote
    #: Whether somebody may think that it is not sent.
    is_late: bool = False
    tries: int = 0
    due_at: float = 0.0


@dataclass(slots=True)
class _Queue:
    """What one receiver is to get."""

    pending: dict[str, _Pending] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Callbacks:
    """Sends callbacks, one after the other to each receiver.

    `store` may be called in any thread, all else belongs to the event loop.
    """

    def __init__(
        self,
        settings: CallbackSettings,
        urls: Mapping[str, str],
        folder: Path,
        disk: DurableFiles,
        threads: Threads,
        report: Report,
        max_bytes: int,
    ) -> None:
        """`folder` holds what is to be sent, at most `max_bytes` (0: no limit)."""
        self._settings = settings
        self._urls = urls
        self._folder = folder
        self._disk = disk
        self._threads = threads
        self._report = report
        self._max_bytes = max_bytes
        self._given_up = GivenUpCallbacks(folder, disk)
        self._queues = {name: _Queue() for name in urls}
        self._one_tried = asyncio.Event()

    def store(self, note: CallbackNote, body: bytes) -> None:
        """Write what is to be sent, so that it survives a power cut. Blocking.

        Raises OSError, and FogError if too much waits already.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        used = sum(path.stat().st_size for path in self._folder.glob(f"*{BODY}"))
        if self._max_bytes and used + len(body) > self._max_bytes:
            raise FogError(
                f"callbacks of {used:,} bytes wait already (gateway.spool_max_bytes = "
                f"{self._max_bytes:,})"
            )
        # The note last: without it there is nothing to send.
        write(self._disk, self._path(note, BODY), body)
        write(self._disk, self._path(note, NOTE), msgspec.json.encode(note))
        self._disk.sync(self._folder)

    def send(self, note: CallbackNote, *, is_late: bool = False) -> None:
        """Send what was stored, `is_late` by an earlier run or after it was given up."""
        queue = self._queues.get(note.callback)
        if queue is None:
            self._report(note, "the configuration has no such callback any more", "again")
            return
        queue.pending[note.name] = _Pending(note, is_late)
        queue.changed.set()

    async def load(self) -> None:
        """Take up what earlier runs left. Call it before anything is stored."""
        for note in await self._threads.apart(self._stored, "callbacks"):
            self.send(note, is_late=True)

    async def retry(self, job: str, callback: str) -> None:
        """Send one again that was given up. Raises UsageError and OSError."""
        work = partial(self._given_up.request_retry, f"{job}.{callback}")
        await self._threads.apart(work, "callbacks")
        await self._take_requested()

    async def tried(self) -> None:
        """Wait until each was tried once."""
        while any(
            not one.tries for queue in self._queues.values() for one in queue.pending.values()
        ):
            self._one_tried.clear()
            await self._one_tried.wait()

    async def run(self) -> None:
        """Send what there is and what comes, until cancelled."""
        async with Supervisor() as supervisor:
            for name, queue in self._queues.items():
                supervisor.start(self._serve(name, queue), f"callback {name}")
            while True:
                await self._take_requested()
                await asyncio.sleep(_LOOK_S)

    async def _take_requested(self) -> None:
        """Take up what was given up and somebody wants to be sent again."""
        take = partial(self._given_up.take_requested, lambda note: note.callback in self._queues)
        try:
            for note in await self._threads.apart(take, "callbacks"):
                log.info("callback %s is tried again", note.name)
                self._report(note, "it was given up", "again")
                self.send(note, is_late=True)
        except OSError as problem:
            log.warning("callbacks cannot be taken up again: %s", problem)

    async def _serve(self, name: str, queue: _Queue) -> None:
        while True:
            if not queue.pending:
                queue.changed.clear()
                await queue.changed.wait()
            pending = min(queue.pending.values(), key=lambda one: one.due_at)
            if (pause_s := pending.due_at - now()) > 0:
                await self._wait(queue, pause_s)
                continue
            if await self._try(name, pending):
                del queue.pending[pending.note.name]
            self._one_tried.set()

    @staticmethod
    async def _wait(queue: _Queue, pause_s: float) -> None:
        """Wait, but not longer than until another one comes."""
        queue.changed.clear()
        try:
            async with asyncio.timeout(pause_s):
                await queue.changed.wait()
        except TimeoutError:
            return

    async def _try(self, name: str, pending: _Pending) -> bool:
        """Send one. Returns whether it is settled: it was sent, or is given up."""
        note, settings = pending.note, self._settings
        receiver = Receiver(self._urls[name], settings.secret_file, settings.timeout_s, settings.ca)
        work = partial(post_file, receiver, self._path(note, BODY), _headers(note))
        pending.tries += 1
        retry_after_s = 0.0
        try:
            async with asyncio.timeout(_TRY_S):
                await self._threads.apart(work, f"callback {name}")
        except TimeoutError:
            problem = f"it did not take the result within {_TRY_S:g} s"
        except PostFailed as failure:
            problem, retry_after_s = one_line(str(failure)), failure.retry_after_s
        except (FogError, OSError) as failure:
            problem = one_line(str(failure))
        else:
            if pending.is_late or pending.tries > 1:
                self._report(note, "", "again")
            await self._forget(note)
            return True
        if time.time() - note.since > settings.keep_s:
            tries = f"{pending.tries} tries" if pending.tries > 1 else "one try"
            given_up = f"given up after {tries}: {problem}"
            await self._keep(note, given_up)
            self._report(note, given_up, "given-up")
            return True
        if pending.tries == 1:
            self._report(note, problem, "again")
        pause_s = min(_FIRST_PAUSE_S * 2 ** (pending.tries - 1), _LONGEST_PAUSE_S)
        pause_s *= _CHANCE.uniform(1 - _JITTER, 1 + _JITTER)
        pending.due_at = now() + max(pause_s, retry_after_s)
        return False

    async def _keep(self, note: CallbackNote, reason: str) -> None:
        """Keep one that is given up, until somebody has it sent again."""
        try:
            await self._threads.apart(partial(self._given_up.keep, note, reason), "callbacks")
        except OSError as problem:
            log.warning("callback %s is tried again after a restart: %s", note.name, problem)

    async def _forget(self, note: CallbackNote) -> None:
        def remove() -> None:
            for suffix in (NOTE, BODY):
                self._disk.remove(self._path(note, suffix))

        try:
            await self._threads.apart(remove, "callbacks")
        except OSError as problem:
            log.warning("callback %s may be sent again: %s", note.name, problem)

    def _stored(self) -> list[CallbackNote]:
        """The notes that earlier runs left, oldest first. Blocking."""
        found = read_notes(self._folder)
        known = {note.name for note in found}
        for path in self._folder.glob(f"*{BODY}"):
            if path.name.removesuffix(BODY) not in known:
                path.unlink(missing_ok=True)  # the gateway was killed before it had the note
        return found

    def _path(self, note: CallbackNote, suffix: str) -> Path:
        return self._folder / f"{note.name}{suffix}"


def _headers(note: CallbackNote) -> dict[str, str]:
    entry = note.entry
    headers = {
        "Content-Type": note.media_type,
        "User-Agent": f"fogmqtt/{__version__}",
        # A callback may come twice: the same for the same job.
        "Idempotency-Key": entry.job,
        "Fogmqtt-Job": entry.job,
        "Fogmqtt-State": note.status.state,
        "Fogmqtt-Name": quote(entry.name),
        "Fogmqtt-Pipeline": quote(entry.pipeline, safe="/ |=,")[:2000],
        "Fogmqtt-Tag": entry.tag,
        "traceparent": entry.traceparent,
        "tracestate": entry.tracestate,
    }
    return {name: value for name, value in headers.items() if value}
