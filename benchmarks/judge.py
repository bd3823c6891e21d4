"""Judges measured figures by those that were written down."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

#: A figure may be this many times the worst of those from which the one written down was taken.
WORSE = 1.15
#: The same on another kind of processor. Between two kinds the same code's ratios differed by 1.5.
WORSE_ELSEWHERE = 2.0
ATTEMPTS = 3
#: The share of the cores that other programs may use where wall times are judged.
MOST_OTHERS = 0.1
#: The difference of these shares, then and now, up to which ratios of CPU time are judged: on a
#: busy machine processes find more work each time they wake, which changes the ratios.
MOST_DIFFERENCE = 0.25


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
    #: The worst of several measurements, of figures that are medians.
    worst: dict[str, float] = field(default_factory=dict)

    def add(self, other: Measured) -> None:
        self.figures |= other.figures
        self.beside |= other.beside
        self.others = max(self.others, other.others)
        self.systems |= other.systems
        self.remarks += other.remarks


def median(runs: Sequence[Measured]) -> Measured:
    """Return the last of several measurements of the same figures, with the medians of those."""
    seen = {key: [one.figures[key] for one in runs] for key in runs[-1].figures}
    return replace(
        runs[-1],
        figures={key: statistics.median(figures) for key, figures in seen.items()},
        worst={key: max(figures) for key, figures in seen.items()},
        others=max(one.others for one in runs),
    )


@dataclass(frozen=True)
class Written:
    """A figure that was written down."""

    figure: float
    #: What other programs used of the machine then, 0 to 1.
    others: float
    #: The worst of those from which it was taken.
    worst: float
    #: How many times the worst a figure may be here.
    worse: float = WORSE

    @property
    def most(self) -> float:
        """The figure that is just not too much worse."""
        return self.worse * self.worst


class Verdict:
    """The best of each figure over the attempts, and whether any is too much worse.

    A figure is judged only on a machine as busy as when it was written down.
    """

    def __init__(self, written: Mapping[str, Written]) -> None:
        self._written = written
        self._best: dict[str, float] = {}
        self._seen: set[str] = set()

    def add(self, measured: Measured) -> None:
        """Take the figures of an attempt that can be judged."""
        self._seen |= measured.figures.keys() & self._written.keys()
        for key in self._seen & measured.figures.keys():
            if self._comparable(key, measured.others):
                self._best[key] = min(measured.figures[key], self._best.get(key, float("inf")))

    def _comparable(self, key: str, others: float) -> bool:
        then = self._written[key].others
        if "cpu" in key:
            return abs(others - then) <= MOST_DIFFERENCE
        return max(others, then) <= MOST_OTHERS

    @property
    def worse(self) -> dict[str, float]:
        """The figures that are too much worse in all attempts in which they were judged."""
        return {key: best for key, best in self._best.items() if best > self._written[key].most}

    @property
    def not_judged(self) -> set[str]:
        """The figures that no attempt could judge."""
        return self._seen - self._best.keys()


def attempts(measure: Callable[[], Measured], verdict: Verdict) -> Iterator[Measured]:
    """Measure until no figure is worse, up to ATTEMPTS times, and yield what each attempt saw."""
    for _ in range(ATTEMPTS):
        measured = measure()
        verdict.add(measured)
        yield measured
        if not verdict.worse:
            return
