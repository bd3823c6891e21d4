"""What a recording of a stream says, line by line, and whether the same is decided again.

A recording has what came to the stream, with its times, and what was decided. What came is decided
again, by the same code as in the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Literal

from msgspec import Struct

from fogmqtt.core.streaming.books import End
from fogmqtt.core.streaming.cadence import EndedFrame
from fogmqtt.core.streaming.decisions import (
    Arrival,
    Decisions,
    SourceTotals,
    StreamRules,
    Verdict,
    WorkEnd,
)
from fogmqtt.core.streaming.events import StreamEvent
from fogmqtt.core.streaming.source_steps import SourceDecisions, SourceStep

#: Which memories of the operators have seen a frame: it enters one after the other.
Remembered = Literal["all", "some", "nothing"]


class SourceLine(Struct, frozen=True, tag="source"):
    """What happened in the source before the next line, and what was decided there."""

    steps: tuple[SourceStep, ...]


class FrameLine(Struct, frozen=True, tag="frame"):
    """A frame that the source gave, and what was decided about it."""

    arrival: Arrival
    verdict: Verdict
    #: When it was captured, in seconds since 1970.
    captured_utc: float
    #: The file of its picture, and the digest of the pixels; empty if it was not begun.
    file: str = ""
    digest: str = ""


class EndLine(Struct, frozen=True, tag="end"):
    """The end of the work on a frame, and which frames ended by it."""

    ending: WorkEnd
    ended: tuple[EndedFrame, ...]
    #: Of the result's pixels or facts; empty if there is no result.
    digest: str = ""
    remembered: Remembered = "nothing"
    #: How many memories had been lost by then, and could not be brought back.
    reseeds: int = 0


class EventsLine(Struct, frozen=True, tag="events"):
    """What was looked at for events, and which ones it made."""

    #: The frame; 0: all events end, since no frame follows or none came for long.
    seq: int
    events: tuple[StreamEvent, ...] = ()
    #: Whether something is there after it: motion is `ON`.
    active: bool = False


class SnapshotLine(Struct, frozen=True, tag="snapshot"):
    """The picture of a frame's events was made. Under load, only the newest are."""

    seq: int
    #: Of the JPEG file.
    digest: str


class LastLine(Struct, frozen=True, tag="last"):
    """The stream ended: all counts."""

    totals: SourceTotals
    counts: dict[str, int]


Line = SourceLine | FrameLine | EndLine | EventsLine | SnapshotLine | LastLine


class Redecision:
    """Decides a recording again, line by line."""

    def __init__(self, rules: StreamRules) -> None:
        self._decisions = Decisions(rules)
        self._source = SourceDecisions()
        #: Frames that the source gave.
        self._given = 0

    @property
    def received(self) -> int:
        """The frames that the source received."""
        return self._source.received

    def differences(self, line: Line) -> Iterator[str]:
        """Yield what is decided differently than the line says."""
        match line:
            case SourceLine(steps=steps):
                yield from self._source.differences(steps)
            case FrameLine(arrival=arrival, verdict=recorded):
                self._given += 1
                yield from self._count_differences(arrival)
                verdict = self._decisions.arrive(arrival)
                if verdict != recorded:
                    yield (
                        f"frame {arrival.number}: {_verdict_text(verdict)} now, "
                        f"{_verdict_text(recorded)} in the recording"
                    )
            case EndLine(ending=ending, ended=before):
                if not self._decisions.is_under_way(ending.seq):
                    yield f"frame with seq {ending.seq}: it ended without being under way"
                    return
                now = tuple(self._decisions.end(ending))
                if now != before:
                    yield (
                        f"frame with seq {ending.seq}: {_ended_text(now)} now, "
                        f"{_ended_text(before)} in the recording"
                    )
            case LastLine(counts=counts):
                self._decisions.abandon()
                books = self._decisions.books
                books.take(self._totals())
                now_counted = asdict(books)
                for key in sorted(counts.keys() | now_counted.keys()):
                    found, wanted = now_counted.get(key), counts.get(key)
                    if found != wanted:
                        yield f"count of {key}: {found} now, {wanted} in the recording"

    def _totals(self) -> SourceTotals:
        one = self._source
        return SourceTotals(one.received, self._given, one.decimated, one.superseded, one.gap)

    def _count_differences(self, arrival: Arrival) -> Iterator[str]:
        """Yield which counts of the source are different when a frame is given."""
        now, recorded = self._totals(), arrival.totals
        for key in ("received", "decimated", "superseded", "gap"):
            found, wanted = getattr(now, key), getattr(recorded, key)
            if found != wanted:
                yield (
                    f"frame {arrival.number}, {key} in its source: {found} now, "
                    f"{wanted} in the recording"
                )


def _verdict_text(verdict: Verdict) -> str:
    if verdict.drop is not None:
        return f"dropped as {verdict.drop} (epoch {verdict.epoch})"
    return f"begun as seq {verdict.seq}, {verdict.way or 'impossible'} (epoch {verdict.epoch})"


def _ended_text(ended: tuple[EndedFrame, ...]) -> str:
    words: list[tuple[int, End]] = [(one.seq, one.how) for one in ended]
    return ", ".join(f"{seq} {how}" for seq, how in words) or "none ended"
