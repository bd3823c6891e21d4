"""The interface of the storage: what a serving gateway and a running job keep across restarts.

`JobStore` is for the server, `JobJournal` for one running job. `job_store.DiskJobStore` and
`job_journal.DiskJobJournal` keep both in the spool folder. A gateway without a spool has neither.

No method blocks unless its docstring says "Blocking": the others return at once, or return a
`concurrent.futures.Future` that the spool's writer thread completes. An event loop waits for
such a future with `asyncio.wrap_future`. Cancelling one has no effect: requested work is always
done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from fogmqtt.core.geometry import Tile
from fogmqtt.images.spec import Image
from fogmqtt.wire.messages import Priority

if TYPE_CHECKING:  # loads SQLite, which a one-off gateway does not need
    from fogmqtt.gateway.storage.written_files import WrittenFiles

Bytes = bytes | bytearray | memoryview


class SpoolEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An accepted image: the content of its note `<job>.json` in the spool."""

    job: str
    #: The file's own name as it is shown, or the submit topic's last levels.
    name: str
    #: The pipeline's text as configured when the image was accepted.
    pipeline: str
    #: Results are published on replies/<reply>; empty: on no topic.
    reply: str = ""
    #: The inbox folder to which the original returns, under done/ or failed/, as it is shown.
    #: Empty: the image came by MQTT.
    inbox: str = ""
    #: What the submitter calls this submission; every answer repeats it.
    tag: str = ""
    #: Where MQTT 5 wants the answer, and what identifies the request there.
    response: str = ""
    correlation: bytes = b""
    #: The trace that the submission belongs to, as W3C Trace Context writes it.
    traceparent: str = ""
    #: What vendors add to it; nothing without it.
    tracestate: str = ""
    #: Where its results go, as configured when the image was accepted; empty in entries of an
    #: early version.
    deliver: str = ""
    #: The name that the pipeline has in the configuration; empty if it has none.
    pipeline_name: str = ""
    #: Size and modification time of the file in the inbox, to recognise it.
    stamp: tuple[int, int] | None = None
    #: The broker's identification of the message, to recognise a repetition; empty for a file.
    origin: str = ""
    #: The pipeline's priority as configured when the image was accepted.
    priority: Priority = 0
    #: Seconds since 1970.
    accepted_at: float = 0.0
    #: The format of the result as configured when the image was accepted, as `images.result_format`
    #: reads it. Unset in entries of an early version.
    format: str | msgspec.UnsetType = msgspec.UNSET
    #: The file's path in the inbox, where `inbox` and `name` do not show it as it is: a path may
    #: have any bytes.
    path: bytes | msgspec.UnsetType = msgspec.UNSET

    #: Where the image came from: inbox, mqtt, http, page, python or retry, and who asked if known.
    source: str = ""
    who: str = ""
    #: Which pages, as a user writes it; empty for the configured ones.
    pages: str = ""
    verify: bool = False
    #: Seconds until the job fails if it has no result by then; None for no limit.
    timeout_s: float | None = None

    @property
    def user(self) -> str:
        """Whose image it is, for fair turns: a reply name, an HTTP client, the inbox."""
        return f"{self.source}/{self.reply or self.who}"

    @property
    def inbox_path(self) -> Path | None:
        """Where the file was in the inbox; None if the image came by MQTT."""
        if not self.inbox:
            return None
        if isinstance(self.path, bytes):
            return Path(os.fsdecode(self.path))
        return Path(self.inbox) / self.name


class FinishedJob(msgspec.Struct, frozen=True):
    """Where the store put what is left of a job."""

    #: The folder of the dead letter; None where none was stored.
    letter: Path | None = None
    #: The original in its inbox's done/ or failed/; None where it did not come from an inbox.
    original: Path | None = None


class TileRecord(msgspec.Struct, frozen=True):
    """Where a finished tile's bytes are in the tile file, and their digest."""

    device: str
    start: int
    length: int
    digest: str


class StageHistory(msgspec.Struct, frozen=True):
    """A stage as the journal database has it."""

    token: str
    kind: str
    plan: bytes
    tiles: Mapping[int, TileRecord]
    #: A tile's index and its halves' indices, in the order of the splits.
    splits: tuple[tuple[int, int, int], ...] = ()


class JobHistory(msgspec.Struct, frozen=True):
    """What earlier runs of the gateway recorded of a job."""

    stages: Mapping[int, StageHistory] = msgspec.field(default_factory=dict)
    #: The result's paths in the outbox; None until they are reserved.
    image_file: str | None = None
    facts_file: str | None = None
    #: The result is in the outbox.
    filed: bool = False
    #: The job is finished, but its spool entry was not removed yet.
    ended: bool = False
    error: str | None = None


class RecordedStage(msgspec.Struct, frozen=True):
    """How an earlier run cut a stage into tiles."""

    tiles: tuple[Tile, ...]
    #: A tile's index and its halves' indices, in the order of the splits.
    splits: tuple[tuple[int, int, int], ...]


class StoredTile(msgspec.Struct, frozen=True):
    """A finished tile from the journal; `data` is the result's bytes as they came by MQTT."""

    tile: int
    device: str
    data: bytes


class FailedAttempt(msgspec.Struct, frozen=True):
    """One failed attempt at a tile, as a dead letter keeps it."""

    tile: int
    attempt: int
    device: str
    reason: str
    traceback: str


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed: the content of `dead/<job>/note.json` in the spool."""

    entry: SpoolEntry
    reason: str
    #: Seconds since 1970.
    failed_at: float
    #: Number of finished tiles by device.
    devices: dict[str, int]
    #: The newest failed attempts, with the devices' tracebacks.
    failures: list[FailedAttempt]


class JobJournal(Protocol):
    """The progress of one job.

    A restarted gateway continues with the tiles that are recorded. Recording never fails the
    job: an entry that cannot be written costs only repeated work after a restart.
    """

    def read_pixels(self) -> Image | None:
        """The decoded image that an earlier run stored; None: decode the file.

        Blocking: call from a worker thread.
        """

    def keep_pixels(self, image: Image) -> None:
        """Store a large decoded image for a later run. The caller must not change the image."""

    def recorded_stage(self, position: int, kind: str) -> RecordedStage | None:
        """The stage's tiles as recorded; None where no stage of this kind is recorded.

        `kind` identifies everything that determines a tile's result except its place and its
        pixels.
        """

    def continue_stage(self, position: int) -> Iterator[StoredTile]:
        """Continue the recorded stage: yields its finished tiles without the damaged ones.

        New entries are added to the recorded ones. Blocking: call from a worker thread.
        """

    def begin_stage(self, position: int, kind: str, tiles: Sequence[Tile]) -> None:
        """Record that a stage begins with these tiles. Earlier entries of the stage are void."""

    def keep_tile(self, position: int, tile: int, device: str, data: Bytes) -> None:
        """Record a tile's result; `data` is the result's bytes as they came by MQTT."""

    def split_tile(self, position: int, tile: int, first: int, second: int) -> None:
        """Record that the halves `first` and `second` replace a tile."""

    def revoke_tile(self, position: int, tile: int) -> None:
        """Record that a tile's result no longer counts."""


class JobStore(Protocol):
    """Accepted images, the progress and the ends of their jobs, and dead letters."""

    @property
    def written(self) -> WrittenFiles:
        """The files in the outbox and in done/ that the gateway put there."""

    def unfinished_jobs(self) -> Future[list[tuple[SpoolEntry, JobHistory]]]:
        """The jobs that earlier runs accepted and did not finish, oldest first.

        Call it before anything is accepted: it removes what earlier runs left incomplete.
        """

    def recent_origins(self) -> Future[set[str]]:
        """The `SpoolEntry.origin` of each recently accepted message."""

    def reserved_paths(self) -> Future[set[str]]:
        """The paths in the outbox that unfinished jobs have reserved."""

    def accept_bytes(self, entry: SpoolEntry, data: Bytes) -> Future[None]:
        """Store an image that came by MQTT; done when it survives a power cut.

        Fails with OSError, or with FogError when the spool holds `max_bytes`.
        """

    def accept_file(self, entry: SpoolEntry, path: Path) -> Future[None]:
        """Move an image file into the spool; done when it survives a power cut.

        Fails with OSError, or with FogError when the spool holds `max_bytes`.
        """

    def flush(self) -> Future[None]:
        """Done when everything requested before is done."""

    def image_path(self, job: str) -> Path:
        """The file of an accepted image."""

    def open_journal(self, job: str, history: JobHistory) -> JobJournal:
        """The journal of an accepted job; an empty history for a new one."""

    def reserve_paths(
        self, entry: SpoolEntry, image_file: Path, facts_file: Path | None
    ) -> Future[None]:
        """Record the result's paths in the outbox, which stay the same after a restart.

        A database error is logged: a restart would then write the result under a second name.
        """

    def record_filed(self, entry: SpoolEntry) -> None:
        """Record that the result is in the outbox."""

    def finish(
        self, entry: SpoolEntry, error: str | None, dead_letter: DeadLetter | None = None
    ) -> Future[FinishedJob]:
        """End a job: return the original to its inbox and remove the job from the spool.

        `error` is why the job failed; None: it succeeded. Fails with OSError.
        """

    def record_pending_ends(self) -> None:
        """Write the ends of jobs that a full disk refused, if there are any."""

    def retry_requests(self) -> Future[list[DeadLetter]]:
        """The dead letters that somebody wants to retry, oldest first."""

    def request_retry(self, job: str) -> Future[DeadLetter]:
        """Request a retry of a dead letter, and return it.

        Fails with UsageError for an unknown one, and with OSError.
        """

    def accept_retry(self, dead_letter: DeadLetter, who: str = "") -> Future[SpoolEntry | None]:
        """Accept a dead letter's image again, under the job's next id, for `who`.

        The result is the new entry; None where an earlier call has accepted it. Fails with
        OSError, or with FogError when the spool holds `max_bytes`.
        """

    def close(self) -> None:
        """Finish all requested work and release the folder. Blocking: call it last."""
