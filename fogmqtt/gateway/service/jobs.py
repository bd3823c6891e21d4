"""All jobs of a serving gateway for people: those under way, and the history."""

from __future__ import annotations

import asyncio
import logging
import mimetypes
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import xxhash

from fogmqtt.config import GatewayConfig
from fogmqtt.errors import (
    ImageError,
    JobFailed,
    JobTimedOut,
    NoDevice,
    OperatorError,
    UsageError,
)
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.jobs.model import JobHandle, Outcome
from fogmqtt.gateway.jobs.trace import JobTrace
from fogmqtt.gateway.jobs.trace_file import trace_file
from fogmqtt.gateway.service.history import EndedJob, History, order
from fogmqtt.gateway.service.refusals import RequestRefused, no_job
from fogmqtt.gateway.storage.api import FinishedJob, SpoolEntry
from fogmqtt.gateway.storage.durable_files import DurableFiles
from fogmqtt.gateway.threads import IoThread
from fogmqtt.images.pictures import picture
from fogmqtt.images.spec import Image
from fogmqtt.log import one_line
from fogmqtt.wire.service_messages import (
    FailureKind,
    FileFacts,
    JobCard,
    JobFile,
    JobState,
    ListJobs,
    Undelivered,
)

log = logging.getLogger(__name__)

#: The longest side of a thumbnail, in pixels.
THUMBNAIL_SIDE: Final = 320
#: Notices that a card has, the newest.
_NOTICES: Final = 10

#: Ends that may wait for the next update; those beyond are read from the disk.
_JUST_ENDED: Final = 1000
#: Seconds that the end of a cancelled job may take.
_SETTLES_S: Final = 10.0

T = TypeVar("T")


@dataclass(slots=True)
class ResultFiles:
    """The files of a result: where they are, and what is to be said of them."""

    files: dict[JobFile, FileFacts] = field(default_factory=dict)
    places: dict[JobFile, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Tracked:
    """A job that has not ended."""

    entry: SpoolEntry
    #: The accepted image's file; None if the image is in memory only.
    image: Path | None
    notices: list[str] = field(default_factory=list)
    #: Written by the thread that delivers.
    kept: ResultFiles = field(default_factory=ResultFiles)
    #: By place.
    undelivered: dict[str, Undelivered] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Jobs:
    """The jobs under way and the history. It belongs to the event loop, but `keep_result`.

    `folder` is the history's, and `disk` makes changes in it.
    """

    def __init__(
        self, config: GatewayConfig, gateway: Gateway, folder: Path, disk: DurableFiles
    ) -> None:
        self._gateway = gateway
        self._history = History(folder, config.history, disk)
        self._thread = IoThread("history")
        self._tracked: dict[str, Tracked] = {}
        #: Jobs whose cards changed, and those that left the history, since somebody asked.
        self.changed: set[str] = set()
        self.gone: set[str] = set()
        #: The cards of jobs that ended since the last update.
        self._just_ended: OrderedDict[str, JobCard] = OrderedDict()
        #: Set when a job ends.
        self.one_ended = asyncio.Event()
        #: Whether they are recorded.
        self.is_watched = False

    async def load(self) -> None:
        """Read the history."""
        await self._thread.call(self._history.load)

    def close(self) -> None:
        """End the thread after what was asked of it."""
        self._thread.close()

    def mark(self, job: str) -> None:
        """The card of a job changed."""
        if self.is_watched:
            self.changed.add(job)

    # A job's life.

    def begin(self, entry: SpoolEntry, image: Path | None) -> None:
        """An accepted image begins."""
        self._tracked[entry.job] = Tracked(entry, image)
        self.mark(entry.job)

    def notice(self, job: str, text: str) -> None:
        """Keep a notice for users."""
        if (tracked := self._tracked.get(job)) is not None:
            tracked.notices = [*tracked.notices, one_line(text)][-_NOTICES:]
            self.mark(job)

    async def undelivered(self, job: str, place: str, what: Undelivered | None) -> None:
        """A result did not reach a place; None: it did after all."""
        if (tracked := self._tracked.get(job)) is not None:
            _put(tracked.undelivered, place, what)
        else:
            await self._tell_history(job, {place: what})
        self.mark(job)

    async def _tell_history(self, job: str, changes: dict[str, Undelivered | None]) -> None:
        try:
            await self._thread.call(lambda: self._history.undelivered(job, changes))
        except OSError as problem:
            log.warning("the history of %s does not say where it went: %s", job, problem.strerror)

    def keep_result(
        self,
        entry: SpoolEntry,
        outcome: Outcome,
        image: bytes,
        facts: bytes | None,
        suffix: str,
        filed: tuple[Path, Path | None] | None,
    ) -> None:
        """Keep a result's files, or remember where they are; runs in the thread that delivers.

        `filed` are the paths of image and facts in the outbox; None if they are in the history
        only. Raises ImageError if they cannot be kept.
        """
        tracked = self._tracked.get(entry.job)
        if tracked is None:
            return
        kept, stem = ResultFiles(), Path(entry.name).stem or "image"
        try:
            self._keep(kept, entry.job, "result", image, f"{stem}{suffix}", filed and filed[0])
            if facts is not None:
                self._keep(kept, entry.job, "facts", facts, f"{stem}.json", filed and filed[1])
            if outcome.image is not None:
                self._keep_thumbnail(kept, entry.job, outcome.image)
        except OSError as problem:
            if filed is None and not entry.reply:
                raise ImageError(f"the result cannot be kept: {problem.strerror}") from None
            log.warning("%s is not kept in the history: %s", entry.name, problem.strerror)
        tracked.kept = kept

    def _keep_thumbnail(self, kept: ResultFiles, job: str, image: Image) -> None:
        try:
            data = picture(image, THUMBNAIL_SIDE)
        except Exception as problem:  # noqa: BLE001  # no odd image may fail its own job
            log.info("%s has no thumbnail: %s", job, problem)
            return
        self._keep(kept, job, "thumbnail", data, "thumbnail.jpg", None)

    def _keep(
        self,
        kept: ResultFiles,
        job: str,
        file: JobFile,
        data: bytes,
        name: str,
        path: Path | None,
    ) -> None:
        """Keep a file in the history, or remember its path elsewhere. Raises OSError."""
        if path is None:
            facts = self._history.keep(job, file, data, durable=file == "result")
            kept.places[file] = file.encode()
        else:
            facts = FileFacts(name="", media_type="", bytes=len(data), digest=_digest(data))
            kept.places[file] = str(path.absolute()).encode("utf-8", "surrogateescape")
        kept.files[file] = msgspec.structs.replace(facts, name=name, media_type=_media_type(name))

    async def keep_original(self, entry: SpoolEntry) -> None:
        """Keep the accepted image, which leaves the spool, unless it goes back to an inbox."""
        tracked = self._tracked.get(entry.job)
        if tracked is None or tracked.image is None or entry.inbox_path is not None:
            return
        try:
            await self._thread.call(lambda: self._link_original(entry, tracked))
        except OSError as problem:
            log.warning("the original of %s is not kept: %s", entry.name, problem.strerror)

    def _link_original(self, entry: SpoolEntry, tracked: Tracked) -> None:
        assert tracked.image is not None  # noqa: S101  # asked before
        self._history.link(entry.job, "original", tracked.image)
        tracked.kept.places["original"] = b"original"

    async def end(
        self,
        entry: SpoolEntry,
        outcome: Outcome,
        error: str | None,
        finished: FinishedJob,
        trace: JobTrace,
    ) -> None:
        """A job has ended: its card goes to the history."""
        tracked = self._tracked.get(entry.job)
        if tracked is None:
            return
        card = self._ended_card(tracked, outcome, error)
        work = lambda: self._add(tracked, card, outcome, finished, trace)  # noqa: E731
        try:
            ended, gone = await self._thread.call(work)
            if self.is_watched:
                self.gone.update(gone)
                self._remember_end(ended)
        except OSError as problem:
            log.warning("%s is not in the history: %s", entry.name, problem.strerror)
        del self._tracked[entry.job]
        if tracked.undelivered != card.undelivered:  # it changed while the card was written
            self._just_ended.pop(entry.job, None)
            places = {*tracked.undelivered, *card.undelivered}
            await self._tell_history(entry.job, {p: tracked.undelivered.get(p) for p in places})
        tracked.ended.set()
        self.mark(entry.job)
        self.one_ended.set()

    def _add(
        self,
        tracked: Tracked,
        card: JobCard,
        outcome: Outcome,
        finished: FinishedJob,
        trace: JobTrace,
    ) -> tuple[JobCard, list[str]]:
        """Keep what is known of a job, and return its card and the jobs that had to go."""
        kept, entry = tracked.kept, tracked.entry
        original, letter = finished.original, finished.letter
        report = msgspec.json.format(msgspec.json.encode(outcome.report.as_json()))
        stem = Path(entry.name).stem or "image"
        self._keep(kept, entry.job, "report", report, f"{stem}-report.json", None)
        course = trace_file(self._gateway.id, [trace.snapshot()]).encode()
        self._keep(kept, entry.job, "trace", course, f"{stem}-trace.json", None)
        if original is not None:
            kept.places["original"] = str(original.absolute()).encode("utf-8", "surrogateescape")
        self._describe_original(tracked)
        card = msgspec.structs.replace(card, files=dict(kept.files), retryable=letter is not None)
        ended = EndedJob(
            card=card,
            entry=entry,
            places=dict(kept.places),
            letter=b"" if letter is None else str(letter.absolute()).encode(),
        )
        return card, self._history.add(ended)

    def _remember_end(self, card: JobCard) -> None:
        """Keep the card for the next update, which need not wait for the disk then."""
        self._just_ended[card.id] = card
        if len(self._just_ended) > _JUST_ENDED:
            self._just_ended.popitem(last=False)

    def just_ended(self, job: str) -> JobCard | None:
        """Return the card of a job that ended since the last update, once; None for any other."""
        return self._just_ended.pop(job, None)

    def _describe_original(self, tracked: Tracked) -> None:
        """Add the original's size and digest. Raises OSError."""
        kept, entry = tracked.kept, tracked.entry
        place = kept.places.get("original")
        if place is None:
            return
        path = self._history.folder_of(entry.job) / place.decode("utf-8", "surrogateescape")
        name = Path(entry.name).name
        kept.files["original"] = self._history.digest(path, name, _media_type(name))

    async def settled(self, job: str) -> None:
        """Wait until a job is in the history, or for a while."""
        tracked = self._tracked.get(job)
        if tracked is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLES_S):
                await tracked.ended.wait()

    # Cards.

    def live(self) -> list[JobCard]:
        """Return the cards of the jobs that have not ended, the newest first."""
        cards = [self._live_card(tracked) for tracked in self._tracked.values()]
        return sorted(cards, key=order, reverse=True)

    def live_card(self, job: str) -> JobCard | None:
        """Return the card of a job that has not ended; None if there is no such job."""
        tracked = self._tracked.get(job)
        return None if tracked is None else self._live_card(tracked)

    def tracked(self, job: str) -> Tracked | None:
        """Return a job that has not ended; None if there is no such job."""
        return self._tracked.get(job)

    @property
    def running(self) -> list[str]:
        """The jobs that have not ended, the oldest first."""
        return list(self._tracked)

    async def card(self, job: str) -> JobCard:
        """Return the card of a job. Raises RequestRefused if there is no such job."""
        if (card := self.live_card(job)) is not None:
            return card
        return (await self.ended(job)).card

    async def ended(self, job: str) -> EndedJob:
        """Return a job of the history. Raises RequestRefused if there is no such job."""
        found = await self._thread.call(lambda: self._history.get(job))
        if found is None:
            raise no_job(job)
        return found

    async def newest(self, limit: int) -> list[JobCard]:
        """Return the jobs that have not ended and the newest of the history, the newest first."""
        return (await self.page(ListJobs(id="-", limit=limit)))[0]

    async def page(self, asked: ListJobs) -> tuple[list[JobCard], str]:
        """Return the jobs that a client asks for, and the cursor of the next page or ""."""
        wanted = _filter(asked)
        live = [card for card in self.live() if wanted(card)]
        ids = {card.id for card in live}
        limit = asked.limit + 1
        past = await self._thread.call(
            lambda: self._history.newest(limit, lambda one: one.id not in ids and wanted(one))
        )
        cards = sorted([*live, *past], key=order, reverse=True)[:limit]
        if len(cards) < limit:
            return cards, ""
        return cards[:-1], _cursor(cards[-2])

    async def on_disk(self, work: Callable[[History], T]) -> T:
        """Do work on the history in its thread."""
        return await self._thread.call(lambda: work(self._history))

    def _live_card(self, tracked: Tracked) -> JobCard:
        entry = tracked.entry
        handle = self._gateway.job(entry.job)
        card = self._card(tracked)
        if handle is None or handle.started_at is None:
            return card
        return msgspec.structs.replace(card, **self._progress(handle))

    def _card(self, tracked: Tracked) -> JobCard:
        entry = tracked.entry
        return JobCard(
            id=entry.job,
            name=entry.name,
            pipeline=entry.pipeline,
            pipeline_name=entry.pipeline_name,
            state="waiting",
            notices=tracked.notices,
            source=entry.source or ("inbox" if entry.inbox else "mqtt"),
            who=entry.who,
            priority=entry.priority,
            accepted_at=entry.accepted_at,
            undelivered=dict(tracked.undelivered),
        )

    def _progress(self, handle: JobHandle) -> dict[str, object]:
        """Return the fields of a card that are known of a job whose turn has come."""
        report, stage = handle.report, self._gateway.live_stage(handle.id)
        number, count = handle.stage
        tiles, done, retries, hedges = report.tiles, report.done, report.retries, report.hedges
        if stage is not None:
            progress = stage.progress
            tiles, done = progress.total, progress.done
            retries, hedges = retries + progress.retries, hedges + progress.hedges
        elapsed_s = now() - (handle.started_at or now())
        size = handle.original.spec.size if handle.original is not None else (0, 0)
        state: JobState = "running"
        return {
            "state": state,
            "started_at": round(time.time() - elapsed_s, 3),
            "tiles": tiles,
            "done": done,
            "stage": number,
            "stages": count,
            "left_s": _left_s(report.done, report.tiles, elapsed_s),
            "height": size[0],
            "width": size[1],
            "devices": {device: share.tiles for device, share in report.devices.items()},
            "retries": retries,
            "hedges": hedges,
        }

    def _ended_card(self, tracked: Tracked, outcome: Outcome, error: str | None) -> JobCard:
        report, moment = outcome.report, time.time()
        state: JobState = "done" if error is None else "failed"
        if outcome.cancelled:
            state = "cancelled"
        original, image = outcome.original, outcome.image
        return msgspec.structs.replace(
            self._card(tracked),
            state=state,
            error=one_line(error or ""),
            failure=_failure(outcome, error),
            started_at=round(moment - report.seconds, 3),
            ended_at=round(moment, 3),
            tiles=report.tiles,
            done=report.done,
            height=0 if original is None else original.shape[0],
            width=0 if original is None else original.shape[1],
            result_height=0 if image is None else image.shape[0],
            result_width=0 if image is None else image.shape[1],
            devices={device: share.tiles for device, share in report.devices.items()},
            retries=report.retries,
            hedges=report.hedges,
        )


def _put(places: dict[str, Undelivered], place: str, what: Undelivered | None) -> None:
    if what is None:
        places.pop(place, None)
    else:
        places[place] = what


def _failure(outcome: Outcome, error: str | None) -> FailureKind:
    """Return the kind of a failure; "" for a job that is done or was cancelled.

    `error` is the outcome's, or says that its result did not reach its submitter.
    """
    if error is None or outcome.cancelled:
        return ""
    match outcome.cause:
        case NoDevice():
            return "no-device"
        case JobTimedOut():
            return "timeout"
        case ImageError():
            return "image"
        case OperatorError() | UsageError():
            return "pipeline"
        case JobFailed():
            return "devices"
        case None if outcome.image is not None or outcome.facts is not None:
            return "delivery"
        case _:
            return "gateway"


def _left_s(done: int, tiles: int, elapsed_s: float) -> float | None:
    if not done or done > tiles:
        return None
    return round(elapsed_s * (tiles - done) / done, 2)


def _filter(asked: ListJobs) -> Callable[[JobCard], bool]:
    text, after = asked.text.lower(), _parse_cursor(asked.after)

    def wanted(card: JobCard) -> bool:
        if after is not None and order(card) >= after:
            return False
        if asked.state is not None and card.state != asked.state:
            return False
        return not text or any(
            text in one.lower() for one in (card.name, card.pipeline, card.pipeline_name)
        )

    return wanted


def _cursor(card: JobCard) -> str:
    return f"{card.accepted_at!r}~{card.id}"


def _parse_cursor(text: str) -> tuple[float, str] | None:
    if not text:
        return None
    at, _, job = text.partition("~")
    try:
        return float(at), job
    except ValueError:
        raise RequestRefused("invalid", f"{text[:80]!r} is no cursor of a page of jobs") from None


def _media_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _digest(data: bytes) -> str:
    return xxhash.xxh3_64_hexdigest(data)
