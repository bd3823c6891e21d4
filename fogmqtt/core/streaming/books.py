"""What became of the frames of a stream: every frame that came is counted once.

received = dropped + begun + at most one that waits at the source
begun = published + late + failed + in flight
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, Protocol, get_args

#: Why a frame was never begun. `decimated`: over `fps`, or no key frame; `superseded`: a newer one
#: came before it was asked for; `gap`: damaged, or lost with its source; `too_late`: it would have
#: been older than `max_age_s` at its end; `no_device`: nobody could do it.
Drop = Literal["decimated", "superseded", "gap", "too_late", "no_device"]
#: How a frame ended that was begun. `late`: a newer one was out, or it was older than `max_age_s`.
End = Literal["published", "late", "failed"]

DROPS: tuple[Drop, ...] = get_args(Drop)


class ReceivedCounts(Protocol):
    """What a source counts; `fogmqtt.streams.frame.SourceCounts` is one."""

    @property
    def received(self) -> int: ...
    @property
    def given(self) -> int: ...
    @property
    def decimated(self) -> int: ...
    @property
    def superseded(self) -> int: ...
    @property
    def gap(self) -> int: ...


@dataclass(slots=True)
class Books:
    """The counts of one stream since it began."""

    received: int = 0
    decimated: int = 0
    superseded: int = 0
    gap: int = 0
    too_late: int = 0
    no_device: int = 0
    begun: int = 0
    published: int = 0
    late: int = 0
    failed: int = 0
    in_flight: int = 0
    #: Frames that the source gave.
    given: int = 0

    def take(self, source: ReceivedCounts) -> None:
        """Take over what the source counted."""
        self.received, self.given = source.received, source.given
        self.decimated, self.superseded = source.decimated, source.superseded
        self.gap = source.gap

    def drop(self, why: Drop) -> None:
        """Count a frame that the source gave and that is not begun."""
        setattr(self, why, getattr(self, why) + 1)

    def begin(self) -> None:
        self.begun += 1
        self.in_flight += 1

    def end(self, how: End) -> None:
        self.in_flight -= 1
        setattr(self, how, getattr(self, how) + 1)

    @property
    def dropped(self) -> int:
        """The frames that were never begun."""
        return sum(self.drops().values())

    def drops(self) -> dict[str, int]:
        """The frames that were never begun, by reason."""
        return {why: getattr(self, why) for why in DROPS}

    def problems(self) -> list[str]:
        """What does not balance; empty if all does. Call it after `take`, with no frame in hand."""
        found = []
        waiting = self.received - self.dropped - self.begun
        if waiting not in (0, 1):
            found.append(f"{waiting} received frames are neither dropped nor begun")
        if self.given != self.too_late + self.no_device + self.begun:
            found.append("frames that were given are neither dropped nor begun")
        if self.begun != self.published + self.late + self.failed + self.in_flight:
            found.append("frames that were begun have not ended, and are not in flight")
        return [f"{text}: {asdict(self)}" for text in found]
