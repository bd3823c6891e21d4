"""The one picture that waits in a stream's process, and the count of those that do not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fogmqtt.core.streaming.source_steps import Decided, SourceDecisions, SourceStep, Step
from fogmqtt.streams.clocks import Moment
from fogmqtt.streams.messages import Form, Tally

if TYPE_CHECKING:
    import av

#: Seconds that a source may send packets before its first picture: key frames of some cameras are
#: 40 s apart.
_FIRST_PICTURE_S = 60.0
#: A source that gave so many damaged pictures in a row is as good as frozen.
_MANY_DAMAGED = 3


class Damaged(Exception):
    """A picture cannot be decoded."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that waits. `decode` is called if somebody asks for its pixels.

    It raises Damaged.
    """

    moment: Moment
    codec: str
    decode: Callable[[], av.VideoFrame]
    #: The file, if the camera sends files.
    original: bytes = b""


class NewestPicture:
    """One place for a picture. A newer one takes it, or waits for it if `keeps_all`.

    A thread reads the source and calls `offer` and the others; one gives pictures away and calls
    `take`; one receives commands and calls `want`.
    """

    def __init__(self, *, keeps_all: bool, records: bool = False) -> None:
        self._keeps_all = keeps_all
        #: The steps since the last tally; None if nobody wants them.
        self._steps: list[SourceStep] | None = [] if records else None
        self._decisions = SourceDecisions()
        self._changed = threading.Condition()
        self._picture: Picture | None = None
        self._number = 0
        self._wanted: Form | None = None
        self._had_picture = False
        self._opened_at = self._packet_at = self._picture_at = self._given_at = 0.0
        self._damaged_in_a_row = 0
        #: Seconds of decoding since the last picture that was given.
        self._decode_s = 0.0
        #: Seconds in which no picture is expected, since the source is asked rarely.
        self._pause_s = 0.0
        #: What to say when there is nothing left to give, if the source is at an end.
        self._end: str | None = None

    def tally(self) -> Tally:
        """Return the counts, all of the same moment, and the steps since the last call."""
        with self._changed:
            return self._tally()

    @property
    def alive_at(self) -> float:
        """When the source last showed that it is not frozen; 0 before its first packet."""
        with self._changed:
            is_slowed = self._keeps_all and self._picture is not None
            if is_slowed or self._end is not None:
                return time.monotonic()
            if self._damaged_in_a_row >= _MANY_DAMAGED:
                return max(self._given_at, self._opened_at)
            if self._had_picture:
                return self._picture_at + self._pause_s
            return min(self._packet_at, self._opened_at + _FIRST_PICTURE_S)

    def opened(self, *, fps: float = 0.0, pause_s: float = 0.0) -> None:
        """The source is open. `passes` lets `fps` pictures a second through; 0: all.

        The source sends nothing for up to `pause_s` seconds between pictures.
        """
        with self._changed:
            self._step("opened", fps)
            self._opened_at = self._packet_at = time.monotonic()
            self._had_picture, self._pause_s, self._end = False, pause_s, None
            self._damaged_in_a_row = 0

    def packet_came(self) -> None:
        """Something arrived, which may become a picture later."""
        self._packet_at = time.monotonic()

    def passes(self, seconds: float) -> bool:
        """Whether a picture of this time is wanted. If not, it is counted; it is not decoded."""
        with self._changed:
            is_wanted = self._step("frame", seconds) != "decimated"
            if not is_wanted:
                self._picture_at = time.monotonic()
            return is_wanted

    def no_key(self) -> None:
        """A picture was left out, since only key frames are kept."""
        with self._changed:
            self._step("no_key")
            self._picture_at = time.monotonic()

    def decoded(self, seconds: float) -> None:
        """Decoding took so long, for a picture that is given or for one that it needs."""
        with self._changed:
            self._decode_s += seconds

    def taken_decode_s(self) -> float:
        """Return the seconds of decoding since the last call."""
        with self._changed:
            seconds, self._decode_s = self._decode_s, 0.0
            return seconds

    def damaged(self) -> None:
        """A picture is damaged."""
        with self._changed:
            self._step("damaged")
            self._damaged_in_a_row += 1

    def offer(self, picture: Picture) -> None:
        """Take a picture. Blocks while another one waits if all are kept."""
        with self._changed:
            while self._keeps_all and self._picture is not None:
                self._changed.wait()
            self._picture, self._number = picture, self._decisions.received
            self._step("offered")
            self._had_picture = True
            self._picture_at = time.monotonic()
            self._changed.notify_all()

    def end(self, reason: str) -> None:
        """The source gives no more; an empty reason means that it was read whole."""
        with self._changed:
            self._end = reason
            self._changed.notify_all()

    def want(self, form: Form) -> None:
        """Ask for the newest picture."""
        with self._changed:
            self._wanted = form
            self._changed.notify_all()

    def take(self, timeout_s: float) -> tuple[int, Picture, Form] | None:
        """Return number, picture and form when a picture is wanted and there; None after a time.

        Also None as soon as the source is at an end and nothing is left to give.
        """
        with self._changed:
            self._changed.wait_for(self._is_ready, timeout_s)
            if self._wanted is None or self._picture is None:
                return None
            taken = self._number, self._picture, self._wanted
            self._picture = None
            self._step("taken")
            self._changed.notify_all()
            return taken

    def taken_end(self) -> str | None:
        """Return the reason of the end, once, if nothing is left to give; None otherwise."""
        with self._changed:
            if self._end is None or (self._picture is not None and not self._end):
                return None
            reason, self._end = self._end, None
            if self._picture is not None:  # it is old when the source is back
                self._picture = None
                self._step("lost")
            return reason

    def was_given(self) -> Tally:
        """The picture that was taken is given away: nothing is wanted until the next `want`."""
        with self._changed:
            self._step("given")
            self._given_at, self._damaged_in_a_row = time.monotonic(), 0
            self._wanted = None
            return self._tally()

    def was_damaged(self) -> None:
        """The picture that was taken is damaged: the next one is wanted."""
        with self._changed:
            self._step("undecodable")
            self._damaged_in_a_row += 1

    def _is_ready(self) -> bool:
        if self._end is not None and (self._end or self._picture is None):
            return True
        return self._wanted is not None and self._picture is not None

    def _step(self, what: Step, value: float = 0.0) -> Decided:
        decided = self._decisions.take(what, value)
        if self._steps is not None:
            self._steps.append(SourceStep(what, value, decided))
        return decided

    def _tally(self) -> Tally:
        one, steps = self._decisions, tuple(self._steps or ())
        if self._steps is not None:
            self._steps.clear()
        return Tally(one.received, one.given, one.decimated, one.superseded, one.gap, steps)
