"""Judges measured figures by those that were written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

#: A figure may be this many times the one written down.
WORSE = 1.15
ATTEMPTS = 3
#: The share of the cores that other programs may use while wall times are judged.
MOST_OTHERS = 0.1


@dataclass(frozen=True)
class Goal:
    """A figure: what it is, in words, and the value that it must not exceed."""

    title: str
    #: None for a figure that has no goal of its own; it still may not grow worse.
    must: float | None


@dataclass
class Measured:
    """Figures by their key in GOALS."""

    figures: dict[str, float] = field(default_factory=dict)
    #: The figure that each peer reaches where ours is the key's.
    beside: dict[str, dict[str, float]] = field(default_factory=dict)
    #: What other programs used of the machine meanwhile, 0 to 1.
    others: float = 0.0
    #: 24 MP in wall and CPU time, by pipeline and system.
    systems: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    #: Why something was not measured.
    remarks: list[str] = field(default_factory=list)

    def add(self, other: Measured) -> None:
        self.figures |= other.figures
        self.beside |= other.beside
        self.others = max(self.others, other.others)
        self.systems |= other.systems
        self.remarks += other.remarks


class Verdict:
    """The best of each figure over the attempts, and whether any is too much worse."""

    def __init__(self, written: Mapping[str, float]) -> None:
        self._written = written
        self._best: dict[str, float] = {}
        self._seen: set[str] = set()

    def add(self, measured: Measured) -> None:
        """Take the figures that can be judged, given what else used the machine."""
        self._seen |= measured.figures.keys() & self._written.keys()
        for key in self._seen & measured.figures.keys():
            if "cpu" in key or measured.others <= MOST_OTHERS:
                self._best[key] = min(measured.figures[key], self._best.get(key, float("inf")))

    @property
    def worse(self) -> dict[str, float]:
        """The figures that are too much worse in all attempts in which they were judged."""
        return {key: best for key, best in self._best.items() if best > WORSE * self._written[key]}

    @property
    def not_judged(self) -> set[str]:
        """The figures that other programs disturbed in every attempt."""
        return self._seen - self._best.keys()


def attempts(measure: Callable[[], Measured], verdict: Verdict) -> Iterator[Measured]:
    """Measure until no figure is worse, up to ATTEMPTS times, and yield what each attempt saw."""
    for _ in range(ATTEMPTS):
        measured = measure()
        verdict.add(measured)
        yield measured
        if not verdict.worse:
            return
