"""What happens to the frames in a source, step by step, and what is decided about them there.

The process of a source and the replay of a recording take the same steps with the same class, so
the same frames are left out again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct

from fogmqtt.core.streaming.cadence import Decimator

#: `opened`: the source is open; `frame`: one came, and may be over the limit of frames a second;
#: `no_key`: one came that is left out, since only key frames are kept; `damaged`: one came that is;
#: `offered`: one waits now; `taken`: the one that waits was asked for; `given`: the stream has it;
#: `undecodable`: it cannot be decoded; `lost`: the source is lost, with the frame that waits;
#: `gone`: its process is, with what it had; `replaced`: a pushed frame, before the process had it;
#: `unused`: nobody waited any more for one that was given.
Step = Literal[
    "opened",
    "frame",
    "no_key",
    "damaged",
    "offered",
    "taken",
    "given",
    "undecodable",
    "lost",
    "gone",
    "replaced",
    "unused",
]
#: What is decided: the frame is one too many, or it takes the place of one that waits.
Decided = Literal["", "decimated", "supersedes"]


class SourceStep(Struct, frozen=True, array_like=True):
    """One step, and what was decided in it."""

    what: Step
    #: Of `opened`: the limit of frames a second. Of `frame`: its time by the source's clock.
    value: float = 0.0
    decided: Decided = ""


@dataclass(slots=True)
class SourceDecisions:
    """The decisions in a source, and the counts of its frames."""

    received: int = 0
    given: int = 0
    decimated: int = 0
    superseded: int = 0
    gap: int = 0
    _decimator: Decimator = field(default_factory=lambda: Decimator(0))
    #: Whether a frame waits, and whether one is taken that was not given yet.
    _waits: bool = False
    _is_taken: bool = False

    def take(self, what: Step, value: float = 0.0) -> Decided:
        """Take a step, and return what is decided."""
        match what:
            case "opened":
                self._decimator = Decimator(value)
            case "frame":
                return self._came(value)
            case "offered":
                return self._offered()
            case "taken":
                self._waits, self._is_taken = False, True
            case "given":
                self._is_taken = False
                self.given += 1
            case "unused":
                self.given -= 1
                self.superseded += 1
            case _:
                self._left_out(what)
        return ""

    def differences(self, steps: Iterable[SourceStep]) -> Iterable[str]:
        """Take recorded steps. Yield what is decided differently now."""
        for step in steps:
            number = self.received
            decided = self.take(step.what, step.value)
            if decided != step.decided:
                yield (
                    f"frame {number}, in its source: {decided or 'kept'} now, "
                    f"{step.decided or 'kept'} in the recording"
                )

    def _came(self, seconds: float) -> Decided:
        if self._decimator.takes(seconds):
            return ""
        self.received += 1
        self.decimated += 1
        return "decimated"

    def _offered(self) -> Decided:
        supersedes, self._waits = self._waits, True
        self.received += 1
        self.superseded += supersedes
        return "supersedes" if supersedes else ""

    def _left_out(self, what: Step) -> None:
        match what:
            case "no_key":
                self.received += 1
                self.decimated += 1
            case "replaced":
                self.received += 1
                self.superseded += 1
            case "damaged":
                self.received += 1
                self.gap += 1
            case "undecodable":
                self._is_taken = False
                self.gap += 1
            case "lost" | "gone":
                self.gap += self._waits
                self._waits = False
                if what == "gone":
                    self.gap += self._is_taken
                    self._is_taken = False
