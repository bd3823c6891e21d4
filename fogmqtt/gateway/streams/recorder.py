"""Records a stream, so that `fog-gateway replay` decides the same and computes the same again.

A recording is a folder: `recording.json` says what the stream is, `log.jsonl` has a line for what
happened in the source, for each frame that it gave, for each end of one, for each that was looked
at for events, and for each picture of events.
`frames/` has the picture of each frame that was begun: the JPEG that the camera sent, or a PNG of
the decoded pixels.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from fogmqtt import __version__
from fogmqtt.config import StreamSettings
from fogmqtt.core.streaming.books import Books
from fogmqtt.core.streaming.cadence import EndedFrame
from fogmqtt.core.streaming.decisions import Arrival, SourceTotals, StreamRules, Verdict, WorkEnd
from fogmqtt.core.streaming.events import StreamEvent
from fogmqtt.core.streaming.recording import (
    EndLine,
    EventsLine,
    FrameLine,
    LastLine,
    Line,
    Remembered,
    SnapshotLine,
    SourceLine,
)
from fogmqtt.core.streaming.source_steps import SourceStep
from fogmqtt.errors import FogError, StreamOutputFailed, reason_of
from fogmqtt.gateway.streams.frame_events import EventsHead
from fogmqtt.gateway.streams.frame_work import FrameHold
from fogmqtt.gateway.streams.outputs import digest_of, digest_of_file
from fogmqtt.gateway.threads import IoThread
from fogmqtt.images.encode import encode
from fogmqtt.images.result_format import ResultFormat
from fogmqtt.operators.api.base import StageOutput
from fogmqtt.streams.settings import Convert

log = logging.getLogger(__name__)

HEAD: Final = "recording.json"
LOG: Final = "log.jsonl"
FRAMES: Final = "frames"
#: The version of these files.
FORMAT: Final = 3

#: Frames that wait to be written, at most. Beyond, the stream begins no frame.
_MOST_WAITING: Final = 4
#: Seconds after which a disk counts as away.
_LONGEST_WRITE_S: Final = 10.0
_PNG: Final = ResultFormat("png", compression=1)


def rules_of(settings: StreamSettings) -> StreamRules:
    """Return what a stream decides by."""
    return StreamRules(settings.max_age_s, settings.keep, settings.order)


class RecordingHead(Struct, frozen=True):
    """What a recording is of."""

    stream: str
    #: The operators, with the names of pipelines resolved.
    pipeline: str
    rules: StreamRules
    convert: Convert
    #: Of result files.
    result_format: str
    #: UTC, in seconds since 1970.
    began_at: float
    #: None: the stream makes no events.
    events: EventsHead | None = None
    fogmqtt: str = __version__
    format: int = FORMAT


class StreamRecorder:
    """Records one stream. It belongs to the event loop; a thread of its own writes.

    A recording that cannot be written, or that reaches its limit, ends, and the stream goes on.
    `warn` gets the reason.
    """

    def __init__(
        self,
        settings: StreamSettings,
        name: str,
        pipeline: str,
        events: EventsHead | None,
        warn: Callable[[str], None],
    ) -> None:
        record = settings.record
        self._warn = warn
        self._thread = IoThread("stream recorder")
        self._waiting = 0
        self._changed = asyncio.Event()
        self._has_ended = False
        head = RecordingHead(
            name,
            pipeline,
            rules_of(settings),
            settings.convert,
            settings.format,
            time.time(),
            events,
        )
        self._files = _Files(Path(record.folder), head, record.max_bytes)
        self._write(self._files.begin)

    @property
    def folder(self) -> Path | None:
        """The folder of the recording; None if it could not be made, or is not there yet."""
        return self._files.folder

    async def room(self) -> None:
        """Wait until a frame more may wait to be written. A disk that hangs ends the recording."""
        while self._waiting >= _MOST_WAITING and not self._has_ended:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), _LONGEST_WRITE_S)
            except TimeoutError:
                self._end(
                    StreamOutputFailed(
                        f"the recording ends here: a frame takes over {_LONGEST_WRITE_S:g} s to be "
                        "written; is the disk away?"
                    )
                )

    def arrived(self, hold: FrameHold, arrival: Arrival, verdict: Verdict) -> None:
        """A frame came, and was decided about."""
        line = FrameLine(arrival, verdict, hold.frame.captured_utc)
        if verdict.way is None:
            self._write(partial(self._files.add, line))
            return
        hold.keep()
        self._waiting += 1

        def written() -> None:
            self._waiting -= 1
            self._changed.set()
            hold.drop()

        self._write(partial(self._files.add_frame, line, hold), written)

    def ended(
        self,
        ending: WorkEnd,
        ended: Sequence[EndedFrame],
        output: StageOutput | None,
        remembered: Remembered,
        reseeds: int,
    ) -> None:
        """The work on a frame ended."""
        line = EndLine(ending, tuple(ended), "", remembered, reseeds)
        self._write(partial(self._files.add_end, line, output))

    def stepped(self, steps: tuple[SourceStep, ...]) -> None:
        """Something happened in the source."""
        self._write(partial(self._files.add, SourceLine(steps)))

    def saw(self, seq: int, events: Sequence[StreamEvent], *, active: bool) -> None:
        """A frame was looked at for events; `seq` 0: all of them end."""
        self._write(partial(self._files.add, EventsLine(seq, tuple(events), active)))

    def drew(self, seq: int, jpeg: bytes) -> None:
        """The picture of a frame's events was made."""
        self._write(partial(self._files.add, SnapshotLine(seq, digest_of_file(jpeg))))

    async def close(self, totals: SourceTotals, books: Books) -> None:
        """The stream ended: write what waits."""
        last = self._write(partial(self._files.add, LastLine(totals, asdict(books))))
        if last is not None:
            await asyncio.wait({last}, timeout=_LONGEST_WRITE_S)
        self._thread.close()

    def _write(
        self, work: Callable[[], None], then: Callable[[], None] = lambda: None
    ) -> asyncio.Future[None] | None:
        """Have the thread write something, after all before it."""
        if self._has_ended:
            then()
            return None

        def done(future: asyncio.Future[None]) -> None:
            then()
            if not future.cancelled() and (problem := future.exception()) is not None:
                self._end(problem)

        writing = self._thread.call(work)
        writing.add_done_callback(done)
        return writing

    def _end(self, problem: BaseException) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        self._changed.set()
        if isinstance(problem, FogError):
            self._warn(str(problem))
        else:
            log.error("a recording ended unexpectedly", exc_info=problem)


class _Files:
    """The files of a recording. Only its thread calls the methods, which raise FogError."""

    def __init__(self, parent: Path, head: RecordingHead, max_bytes: int) -> None:
        self.folder: Path | None = None
        self._parent = parent
        self._head = head
        self._max_bytes = self._left = max_bytes
        self._is_over = False
        self._log = Path()

    def begin(self) -> None:
        """Make the folder."""
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._head.began_at))
        try:
            self._left -= _bytes_in(self._parent)
            folder = _new_folder(self._parent / f"{self._head.stream}-{moment}")
            (folder / FRAMES).mkdir()
        except FileExistsError:
            self._is_over = True
            raise StreamOutputFailed(
                f"no recording in {self._parent}: a file is where the folder should be"
            ) from None
        except OSError as problem:
            self._is_over = True
            reason = reason_of(problem, self._parent)
            raise StreamOutputFailed(f"no recording in {self._parent}: {reason}") from None
        self._log = folder / LOG
        self._put(folder / HEAD, msgspec.json.format(msgspec.json.encode(self._head)) + b"\n")
        self.folder = folder

    def add(self, line: Line) -> None:
        """Add a line to the log."""
        self._put(self._log, msgspec.json.encode(line) + b"\n")

    def add_frame(self, line: FrameLine, hold: FrameHold) -> None:
        """Write a frame's picture, and then its line."""
        frame, folder = hold.frame, self._log.parent
        name = f"{line.verdict.seq:08d}{'.jpg' if frame.original else '.png'}"
        self._put(folder / FRAMES / name, frame.original or encode([frame.image], _PNG).data)
        self.add(msgspec.structs.replace(line, file=name, digest=digest_of(frame.image)))

    def add_end(self, line: EndLine, output: StageOutput | None) -> None:
        """Add the line of a frame that ended."""
        digest = "" if output is None else digest_of(output)
        self.add(msgspec.structs.replace(line, digest=digest))

    def _put(self, path: Path, data: bytes) -> None:
        if self._is_over:
            raise StreamOutputFailed(f"the recording in {self._parent} has ended")
        self._left -= len(data)
        if self._left < 0:
            self._is_over = True
            raise StreamOutputFailed(
                f"the recording ends here: {self._parent} has reached record.max_bytes, "
                f"{self._max_bytes}; remove old recordings there, or set more"
            )
        try:
            with path.open("ab") as file:
                file.write(data)
        except OSError as problem:
            self._is_over = True
            reason = reason_of(problem, path)
            raise StreamOutputFailed(f"the recording ends here: {path}: {reason}") from None


def _new_folder(path: Path) -> Path:
    """Make a folder of this name, or with a number after it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        made = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            made.mkdir()
        except FileExistsError:
            number += 1
        else:
            return made


def _bytes_in(folder: Path) -> int:
    """Return how many bytes the files in a folder have; 0 if there is none."""
    found = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # somebody removed it
                found += (Path(parent) / name).lstat().st_size
    return found
