"""Runs a recording of a stream again, and says what comes out differently.

What was decided is decided again in the times of the recording. Each frame that was begun is
decoded and computed again, whole on this machine: a stream's results do not depend on devices. Then
events are made again, of the results or of the motion in the frames.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import msgspec

from fogmqtt.core.streaming.events import StreamEvent
from fogmqtt.core.streaming.recording import (
    EndLine,
    EventsLine,
    FrameLine,
    LastLine,
    Line,
    Redecision,
    Remembered,
    SnapshotLine,
    SourceLine,
)
from fogmqtt.errors import FogError, SourceEnded, UsageError, reason_of
from fogmqtt.gateway.streams.frame_events import EventsHead, FrameEvents
from fogmqtt.gateway.streams.motion import MotionFinder
from fogmqtt.gateway.streams.outputs import PublishedFrame, digest_of, digest_of_file
from fogmqtt.gateway.streams.recorder import FORMAT, FRAMES, HEAD, LOG, RecordingHead
from fogmqtt.gateway.streams.stream_events import drawn, snapshot_of
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator, StageOutput
from fogmqtt.operators.api.memory import FrameMemory, memory_needs
from fogmqtt.operators.api.pipeline import output_spec, parse, run_whole
from fogmqtt.streams.frame import Frame, FrameSource
from fogmqtt.streams.settings import Convert

#: Differences that are kept as text, at most.
_MOST_TEXTS: Final = 20

#: Published frames that wait to be looked at, at most: a stream has half as many.
_MOST_WAITING: Final = 64

_lines: Final = msgspec.json.Decoder(Line)


class OpenPictures(Protocol):
    """Opens a folder of pictures as a source that keeps all frames, in the order of their names."""

    def __call__(self, folder: Path, convert: Convert, /) -> FrameSource: ...


@dataclass(slots=True)
class ReplayReport:
    """What a replay found."""

    #: Frames that the source received and those that it gave.
    received: int = 0
    frames: int = 0
    #: Those that were begun, and results that were compared.
    begun: int = 0
    compared: int = 0
    #: Results that this machine cannot compute again, since devices lost memories of operators.
    not_comparable: int = 0
    #: Frames that were looked at for events again, the events that they made, and their pictures.
    looked_at: int = 0
    events: int = 0
    snapshots: int = 0
    differences: int = 0
    #: The first differences, in words.
    texts: list[str] = field(default_factory=list)
    #: Whether the recording has its end: its stream was not killed, and the limit not reached.
    is_whole: bool = False

    def differ(self, text: str) -> None:
        """Note a difference."""
        self.differences += 1
        if len(self.texts) < _MOST_TEXTS:
            self.texts.append(text)


class Recording:
    """A recording in a folder. Raises UsageError if the folder has none that can be read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / HEAD
        try:
            self.head = msgspec.json.decode(path.read_bytes(), type=RecordingHead)
        except FileNotFoundError:
            raise UsageError(_no_recording(folder)) from None
        except OSError as problem:
            raise UsageError(f"{path}: {reason_of(problem, path)}") from None
        except msgspec.MsgspecError as problem:
            raise UsageError(f"{path}: no recording of a stream: {problem}") from None
        if self.head.format != FORMAT:
            raise UsageError(
                f"{folder}: the recording has format {self.head.format}, and this fogmqtt reads "
                f"{FORMAT}; replay it with fogmqtt {self.head.fogmqtt}"
            )

    def lines(self) -> Iterator[Line]:
        """Yield the lines of the log. One that was cut off at the end is left out.

        Raises UsageError for a line that is none.
        """
        path = self.folder / LOG
        try:
            with path.open("rb") as file:
                for number, text in enumerate(file, 1):
                    if not text.endswith(b"\n"):
                        return
                    yield _line(path, number, text)
        except OSError as problem:
            raise UsageError(f"{path}: {reason_of(problem, path)}") from None


async def replay(
    recording: Recording,
    open_pictures: OpenPictures,
    publish: Callable[[PublishedFrame], None],
) -> ReplayReport:
    """Run a recording again. `publish` gets each result that was published, in order.

    Raises UsageError if the recording is damaged, or needs operators that are not here.
    """
    head = recording.head
    operators, report = parse(head.pipeline), ReplayReport()
    unseen = {
        line.ending.seq: line.remembered
        for line in recording.lines()
        if isinstance(line, EndLine) and line.remembered != "all"
    }
    _check_pictures(recording)
    computing = _Computing(operators, unseen)
    drawn = {one.seq for one in recording.lines() if isinstance(one, SnapshotLine)}
    events = None if head.events is None else _Events(head.events, drawn)
    pictures = open_pictures(recording.folder / FRAMES, head.convert)
    redecision = Redecision(head.rules)
    try:
        for line in recording.lines():
            for text in redecision.differences(line):
                report.differ(text)
            match line:
                case FrameLine():
                    report.frames += 1
                    if line.file:
                        report.begun += 1
                        await computing.take(line, await _next(pictures, line, report))
                case EndLine():
                    computing.compare(line, report)
                    for one in line.ended:
                        result = computing.pop(one.seq)
                        if one.how == "published" and result is not None:
                            if events is not None:
                                events.keep(result)
                            if result.output is not None:
                                publish(_published(head, result))
                case EventsLine() if events is not None:
                    await events.compare(line, report)
                case SnapshotLine() if events is not None:
                    events.compare_snapshot(line, report)
                case EventsLine() | SnapshotLine():
                    report.differ(f"events of frame with seq {line.seq}: the stream makes none")
                case SourceLine():
                    pass  # it is only decided again
                case LastLine():
                    report.is_whole = True
    finally:
        await pictures.close()
    report.received = redecision.received
    return report


@dataclass(slots=True)
class _Computed:
    """The result of a frame that was computed again."""

    line: FrameLine
    #: The frame itself.
    image: Image
    #: Height and width of the picture that the result is of.
    size: tuple[int, int]
    output: StageOutput | None
    #: Whether the stream's result should be the same.
    is_comparable: bool
    problem: str = ""
    #: The memories that had been lost when the result was there.
    reseeds: int = 0

    @property
    def epoch(self) -> int:
        """The epoch that the result was published with."""
        return self.line.verdict.epoch + self.reseeds


class _Computing:
    """Computes frames again, with what operators remember of those before."""

    def __init__(self, operators: tuple[Operator, ...], unseen: Mapping[int, Remembered]) -> None:
        self._operators = operators
        self._has_memory = memory_needs(operators) is not None
        #: Frames that not all memories have seen.
        self._unseen = unseen
        self._memory, self._count, self._epoch = FrameMemory(), 0, 0
        self._is_exact = True
        self._reseeds = 0
        self._done: dict[int, _Computed] = {}

    async def take(self, line: FrameLine, image: Image | None) -> None:
        """Compute a frame that was begun."""
        seq, epoch = line.verdict.seq, line.verdict.epoch
        if epoch != self._epoch:
            self._memory, self._count, self._epoch = FrameMemory(), 0, epoch
            self._is_exact = True
        if image is None:
            self._is_exact = self._is_exact and not self._has_memory
            return
        if self._has_memory and (seen := self._unseen.get(seq, "all")) != "all":
            self._is_exact = self._is_exact and seen == "nothing"
            return
        done = _Computed(line, image, image.shape[:2], None, self._is_exact)
        try:
            done.size = output_spec(self._operators, Spec.of(image)).size
            done.output = await asyncio.to_thread(self._compute, image)
        except FogError as problem:
            done.problem = str(problem)
            self._is_exact = self._is_exact and not self._has_memory
        self._done[seq] = done

    def _compute(self, image: Image) -> StageOutput:
        if not self._has_memory:
            return run_whole(self._operators, image, image)
        count, self._count = self._count, self._count + 1
        return self._memory.run_whole(self._operators, image, image, count)

    def compare(self, line: EndLine, report: ReplayReport) -> None:
        """Compare a result with the recorded one."""
        if self._has_memory and line.reseeds != self._reseeds:
            self._reseeds, self._is_exact = line.reseeds, False
            for one in self._done.values():
                one.is_comparable = False
        done = self._done.get(line.ending.seq)
        if not line.digest or done is None:
            return
        done.reseeds = line.reseeds
        if not done.is_comparable:
            report.not_comparable += 1
            return
        report.compared += 1
        name = f"frame {done.line.arrival.number} (seq {line.ending.seq})"
        if done.output is None:
            report.differ(f"{name}: no result now: {done.problem}")
        elif (digest := digest_of(done.output)) != line.digest:
            report.differ(f"{name}: the result is {digest} now, {line.digest} in the recording")

    def pop(self, seq: int) -> _Computed | None:
        """Return what was computed of a frame that ended; None if nothing was."""
        return self._done.pop(seq, None)


class _Events:
    """Makes the events of a recording again."""

    def __init__(self, head: EventsHead, drawn: Set[int]) -> None:
        self._decided = FrameEvents(head.events, head.kind)
        self._finder = MotionFinder(head.motion) if head.motion.sensitivity else None
        #: Published frames that were not looked at yet. Where motion was found too slowly, some
        #: never are.
        self._waiting: deque[_Computed] = deque(maxlen=_MOST_WAITING)
        #: Whether all that was looked at so far is known here.
        self._is_exact = True
        #: The frames of which there is a picture in the recording, and those that were made again.
        self._drawn = drawn
        self._digests: dict[int, str] = {}

    def keep(self, done: _Computed) -> None:
        """A frame was published: it may be looked at."""
        self._waiting.append(done)

    async def compare(self, line: EventsLine, report: ReplayReport) -> None:
        """Look at a frame again, and compare the events with the recorded ones."""
        name = f"events of frame with seq {line.seq}" if line.seq else "events at an end"
        found = self._decided.finish() if not line.seq else await self._look(line.seq)
        if found is None or not self._is_exact:
            self._is_exact = False
            return
        report.looked_at += bool(line.seq)
        report.events += len(found)
        now, recorded = _events_text(found), _events_text(line.events)
        if tuple(found) != line.events:
            report.differ(f"{name}: {now} now, {recorded} in the recording")
        if self._decided.active != line.active:
            report.differ(
                f"{name}: motion is {_on(self._decided.active)} now, "
                f"{_on(line.active)} in the recording"
            )

    def compare_snapshot(self, line: SnapshotLine, report: ReplayReport) -> None:
        """Compare the picture of a frame's events with the recorded one."""
        now = self._digests.pop(line.seq, None)
        if now is None and not self._is_exact:
            return
        report.snapshots += 1
        if now != line.digest:
            report.differ(
                f"picture of the events of frame with seq {line.seq}: it is {now or 'not made'} "
                f"now, {line.digest} in the recording"
            )

    async def _look(self, seq: int) -> list[StreamEvent] | None:
        """Return the events of a frame; None if this machine does not have what made them."""
        if all(one.line.verdict.seq != seq for one in self._waiting):
            return None
        while (done := self._waiting.popleft()).line.verdict.seq != seq:
            pass  # it was left out
        facts, size = done.output if done.is_comparable else None, done.size
        if self._finder is not None:
            facts = await asyncio.to_thread(self._finder.find, done.image, done.epoch)
            size = done.image.shape[0], done.image.shape[1]
        if not isinstance(facts, dict):
            return None
        found = self._decided.take(facts, size, done.epoch, done.line.captured_utc)
        snapshot = snapshot_of(seq, done.image, size, found)
        if snapshot is not None and seq in self._drawn:
            self._digests[seq] = digest_of_file(await asyncio.to_thread(drawn, snapshot))
        return found


def _on(is_active: bool) -> str:
    return "ON" if is_active else "OFF"


def _events_text(events: Sequence[StreamEvent]) -> str:
    return ", ".join(f"{one.event_type} {one.label} {one.id}" for one in events) or "none"


async def _next(pictures: FrameSource, line: FrameLine, report: ReplayReport) -> Image | None:
    """Return a frame's pixels; None if they are not those of the recording."""
    name = f"frame {line.arrival.number} ({line.file})"
    try:
        frame: Frame = await pictures.next_frame()
    except SourceEnded:
        report.differ(f"{name}: it cannot be decoded here")
        return None
    image = frame.image.copy()
    frame.release()
    if (digest := digest_of(image)) != line.digest:
        report.differ(f"{name}: its pixels are {digest} now, {line.digest} in the recording")
        return None
    return image


def _published(head: RecordingHead, done: _Computed) -> PublishedFrame:
    line, output = done.line, done.output
    return PublishedFrame(
        head.stream,
        line.verdict.seq,
        line.arrival.number,
        line.arrival.captured_at,
        line.captured_utc,
        "arrival",
        done.epoch,
        None if isinstance(output, dict) else output,
        output if isinstance(output, dict) else None,
        done.size,
    )


def _check_pictures(recording: Recording) -> None:
    """Raise UsageError if pictures are missing, or others are there: they are read in order."""
    folder = recording.folder / FRAMES
    named = {one.file for one in recording.lines() if isinstance(one, FrameLine) and one.file}
    try:
        there = {path.name for path in folder.iterdir()}
    except OSError as problem:
        raise UsageError(f"{folder}: {reason_of(problem, folder)}") from None
    if missing := sorted(named - there):
        raise UsageError(
            f"{folder}: {_some(missing)} of the recording is missing; copy the folder again"
        )
    # The picture that was written when the stream was killed has no line.
    if others := sorted(name for name in there - named if named and name < max(named)):
        raise UsageError(f"{folder}: {_some(others)} is not of the recording; remove it")


def _some(names: Sequence[str]) -> str:
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")


def _line(path: Path, number: int, text: bytes) -> Line:
    try:
        return _lines.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise UsageError(f"{path}:{number}: this line is damaged: {problem}") from None


def _no_recording(folder: Path) -> str:
    """Return what to say of a folder without a recording: maybe it has several."""
    found = sorted(path.parent.name for path in folder.glob(f"*/{HEAD}"))
    if not found:
        return f"{folder} has no recording; give a folder that --record or record.folder made"
    return f"{folder} has {len(found)} recording(s); give one of them, such as {folder / found[-1]}"
