"""Decides which frames of a stream are begun, and which results are published.

A frame is begun when there is room for it, if its result can be there before it is `max_age_s` old.
The result of a frame is published unless a newer one is out. So the age of what is published does
not grow, however long there are more frames than the fleet can do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

from fogmqtt.core.streaming.books import Books, Drop, End

#: `latest` and `keys`: a newer frame replaces one that waits, and what is too old is dropped.
#: `all`: no frame is dropped; each waits for those before it.
Keep = Literal["latest", "all", "keys"]
Order = Literal["strict", "any"]

#: A frame may come so much of a period early: cameras jitter.
_EARLY = 0.125
#: The weight of the newest time that a frame took.
_NEWEST = 0.25
#: The part of the expected seconds that is left after `max_age_s` without a measurement.
_RELAX = 0.5

T = TypeVar("T")


class Decimator:
    """Lets so many frames a second through at most, evenly. `fps` 0 lets all through."""

    def __init__(self, fps: float) -> None:
        self._period_s = 1 / fps if fps > 0 else 0.0
        self._due_at: float | None = None

    def takes(self, at: float) -> bool:
        """Whether the frame of this time is let through. A time that jumped back begins anew."""
        period_s, due_at = self._period_s, self._due_at
        early_s = _EARLY * period_s
        if due_at is None or at < due_at - period_s - 2 * early_s:
            self._due_at = at + period_s
            return True
        if at < due_at - early_s:
            return False
        # Of a steady source every n-th frame is taken, although each comes a little early or late.
        self._due_at = max(due_at + period_s, at + period_s - early_s)
        return True


class Slot(Generic[T]):
    """Room for one frame: a newer one takes its place."""

    def __init__(self) -> None:
        self._item: T | None = None

    def put(self, item: T) -> T | None:
        """Put a frame, and return the one that it replaces."""
        replaced, self._item = self._item, item
        return replaced

    def take(self) -> T | None:
        """Take the frame out; None if there is none."""
        item, self._item = self._item, None
        return item


class FrameTime:
    """How long a frame takes from its beginning to its end, by those before it.

    Without new measurements the expectation falls, so that a fleet that became faster is tried.
    """

    def __init__(self, relax_s: float) -> None:
        self._relax_s = relax_s
        self._seconds: float | None = None
        self._learned_at = 0.0

    def learn(self, seconds: float, now: float) -> None:
        known = self._seconds
        self._seconds = seconds if known is None else known + _NEWEST * (seconds - known)
        self._learned_at = now

    def expected_s(self, now: float) -> float:
        """Return the seconds that a frame is expected to take; 0 while nothing is known."""
        if self._seconds is None:
            return 0.0
        periods = max(0.0, (now - self._learned_at) / self._relax_s - 1)
        return float(self._seconds * _RELAX**periods)


class EndedFrame(NamedTuple):
    """A frame that was begun, and how it ended."""

    seq: int
    how: End


@dataclass(slots=True)
class _Begun:
    captured_at: float
    begun_at: float
    #: Its result is there, and waits for those of the frames before it.
    is_done: bool = False


class Cadence:
    """The decisions of one stream. Times are seconds of any clock that does not go back.

    `seq` numbers the frames that were begun, from 1 on.
    """

    def __init__(self, *, max_age_s: float, keep: Keep = "latest", order: Order = "strict") -> None:
        self.books = Books()
        self._max_age_s = max_age_s
        self._drops = keep != "all"
        self._order = order
        self._service = FrameTime(max_age_s)
        self._in_flight: dict[int, _Begun] = {}
        #: The newest frame whose result is out.
        self._published = 0

    @property
    def in_flight(self) -> int:
        """The frames that are begun and have not ended, those included that wait for others."""
        return len(self._in_flight)

    def is_under_way(self, seq: int) -> bool:
        """Whether a frame is begun and has not ended."""
        return seq in self._in_flight

    def expected_s(self, now: float) -> float:
        """Return the seconds that a frame that is begun now is expected to take."""
        return self._service.expected_s(now)

    def deadline(self, captured_at: float) -> float | None:
        """Return when the result of a frame is too old; None if none ever is."""
        return captured_at + self._max_age_s if self._drops else None

    def judge(self, captured_at: float, now: float, *, has_device: bool) -> Drop | None:
        """Return why a frame is not to be begun now, and count it; None if it is to be begun."""
        if not self._drops:
            return None
        why: Drop | None = None
        if now + self.expected_s(now) > captured_at + self._max_age_s:
            why = "too_late"
        elif not has_device:
            why = "no_device"
        if why is not None:
            self.books.drop(why)
        return why

    def begin(self, captured_at: float, now: float) -> int:
        """Begin a frame, and return its `seq`."""
        self.books.begin()
        seq = self.books.begun
        self._in_flight[seq] = _Begun(captured_at, now)
        return seq

    def finish(self, seq: int, now: float) -> list[EndedFrame]:
        """A result is there. Return the frames that end by it, in order.

        Publish those that are `published`, now.
        """
        begun = self._in_flight[seq]
        self._service.learn(now - begun.begun_at, now)
        if self._drops:
            how: End = "late" if self._is_late(seq, begun, now) else "published"
            return [self._end(seq, how)]
        begun.is_done = True
        return self._end_in_order()

    def fail(self, seq: int, now: float, *, late: bool = False) -> list[EndedFrame]:
        """There will be no result: of an error, or because it was `late`."""
        begun = self._in_flight[seq]
        if late:
            self._service.learn(max(now - begun.begun_at, self._service.expected_s(now)), now)
        ended = [self._end(seq, "late" if late else "failed")]
        return ended if self._drops else ended + self._end_in_order()

    def abandon(self) -> None:
        """The stream ends: what is in flight fails."""
        for seq in list(self._in_flight):
            self._end(seq, "failed")

    def _is_late(self, seq: int, begun: _Begun, now: float) -> bool:
        if now > begun.captured_at + self._max_age_s:
            return True
        return self._order == "strict" and seq < self._published

    def _end_in_order(self) -> list[EndedFrame]:
        """End the results that wait for no frame before them."""
        ended = []
        for seq, begun in list(self._in_flight.items()):
            if begun.is_done:
                ended.append(self._end(seq, "published"))
            elif self._order == "strict":
                break
        return ended

    def _end(self, seq: int, how: End) -> EndedFrame:
        del self._in_flight[seq]
        self.books.end(how)
        if how == "published":
            self._published = max(seq, self._published)
        return EndedFrame(seq, how)
