"""All decisions of one stream: which frames are begun, in which way, in which epoch, and their end.

The same `Arrival`s and `WorkEnd`s lead to the same decisions, so a recording of them can be decided
again. The times in them are seconds of any clock that does not go back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Struct

from fogmqtt.core.streaming.books import Books, Drop
from fogmqtt.core.streaming.cadence import Cadence, EndedFrame, Keep, Order
from fogmqtt.core.streaming.split import SplitChoice, Way


class StreamRules(Struct, frozen=True):
    """What a stream decides by, beside its frames."""

    max_age_s: float
    keep: Keep = "latest"
    order: Order = "strict"


class SourceTotals(Struct, frozen=True):
    """What the source had counted: as `books.ReceivedCounts`."""

    received: int = 0
    given: int = 0
    decimated: int = 0
    superseded: int = 0
    gap: int = 0


class Arrival(Struct, frozen=True):
    """A frame that the source gave, and what else is known at that moment."""

    at: float
    #: Its number among the frames that the source received.
    number: int
    captured_at: float
    #: Height, width and, of colour, 3.
    shape: tuple[int, ...]
    #: How often the source was opened anew.
    reconnects: int
    #: How often the memory of the operators was emptied, since frames are done elsewhere.
    switches: int
    #: The ways in which it can be done now; None: the pipeline cannot take such a frame.
    ways: tuple[Way, ...] | None
    totals: SourceTotals = SourceTotals()


class Verdict(Struct, frozen=True):
    """What becomes of a frame that the source gave."""

    #: Its number among the frames that were begun; 0: it is not begun.
    seq: int = 0
    #: Why it is not begun.
    drop: Drop | None = None
    way: Way | None = None
    #: A new epoch begins with another size or colour, another connection, or an emptied memory.
    epoch: int = 0


class WorkEnd(Struct, frozen=True):
    """What became of the work on a frame: it has a result, or it was `late`, or it failed."""

    at: float
    seq: int
    is_done: bool = False
    late: bool = False


@dataclass(slots=True)
class _Epoch:
    number: int = 0
    made_for: object = None

    def of(self, arrival: Arrival) -> int:
        made_for = arrival.shape, arrival.reconnects, arrival.switches
        if made_for != self.made_for:
            self.number, self.made_for = self.number + 1, made_for
        return self.number


@dataclass(slots=True)
class _UnderWay:
    way: Way
    begun_at: float


@dataclass(slots=True)
class Decisions:
    """The decisions of one stream, in the order in which `arrive` and `end` are called."""

    rules: StreamRules
    _cadence: Cadence = field(init=False)
    _choice: SplitChoice = field(init=False, default_factory=SplitChoice)
    _epoch: _Epoch = field(init=False, default_factory=_Epoch)
    _under_way: dict[int, _UnderWay] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        rules = self.rules
        self._cadence = Cadence(max_age_s=rules.max_age_s, keep=rules.keep, order=rules.order)

    @property
    def books(self) -> Books:
        """The counts since the stream began."""
        return self._cadence.books

    @property
    def in_flight(self) -> int:
        """The frames that are begun and have not ended."""
        return self._cadence.in_flight

    @property
    def epoch(self) -> int:
        """The epoch of the newest frame."""
        return self._epoch.number

    def is_under_way(self, seq: int) -> bool:
        """Whether a frame is begun and has not ended."""
        return self._cadence.is_under_way(seq)

    def deadline(self, captured_at: float) -> float | None:
        """Return when the result of a frame is too old; None if none ever is."""
        return self._cadence.deadline(captured_at)

    def arrive(self, arrival: Arrival) -> Verdict:
        """Decide whether a frame is begun, and how. Without `ways` it is begun, and must `end`."""
        self.books.take(arrival.totals)
        epoch = self._epoch.of(arrival)
        if arrival.ways is None:
            return Verdict(self._cadence.begin(arrival.captured_at, arrival.at), epoch=epoch)
        drop = self._cadence.judge(arrival.captured_at, arrival.at, has_device=bool(arrival.ways))
        if drop is not None:
            return Verdict(drop=drop, epoch=epoch)
        way = self._choice.choose(arrival.ways, arrival.at)
        seq = self._cadence.begin(arrival.captured_at, arrival.at)
        self._under_way[seq] = _UnderWay(way, arrival.at)
        return Verdict(seq, None, way, epoch)

    def end(self, ending: WorkEnd) -> list[EndedFrame]:
        """Take the end of a frame's work. Return the frames that end by it; publish them in order.

        Frames whose end is not `published` have no result to publish.
        """
        begun = self._under_way.pop(ending.seq, None)
        if begun is not None and ending.is_done:
            self._choice.learn(begun.way, ending.at - begun.begun_at)
        elif begun is not None:
            self._choice.fail(begun.way)
        if ending.is_done:
            return self._cadence.finish(ending.seq, ending.at)
        return self._cadence.fail(ending.seq, ending.at, late=ending.late)

    def abandon(self) -> None:
        """The stream ends: what is in flight fails."""
        self._cadence.abandon()
