"""A file in Chrome's JSON trace format, for ui.perfetto.dev and chrome://tracing.

A process has tracks, a track has slices that follow or contain each other, and a flow is an arrow
from slice to slice. Times are seconds from any zero.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_US: Final = 1e6
#: Two slices may touch; seconds by which rounding may let them overlap.
_TOUCH_S: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Track:
    """A row of slices: the numbers of its process and of itself."""

    process: int
    number: int


class ChromeTrace:
    """Collects events. Names and arguments are for people."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._flows = 0

    def name_process(self, process: int, name: str) -> None:
        """Name a process; they are shown in the order of their numbers."""
        self._name("process", process, None, name)

    def name_track(self, track: Track, name: str) -> None:
        """Name a track; those of a process are shown in the order of their numbers."""
        self._name("thread", track.process, track.number, name)

    def add_slice(
        self,
        track: Track,
        name: str,
        begin_s: float,
        seconds: float,
        *,
        category: str,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a slice, after those that contain it."""
        self._events.append(
            {
                "ph": "X",
                "name": name,
                "cat": category,
                "pid": track.process,
                "tid": track.number,
                "ts": _us(begin_s),
                # The end is rounded, not the length: slices that touch still touch.
                "dur": max(0.0, round(_us(begin_s + seconds) - _us(begin_s), 3)),
                "args": dict(args or {}),
            }
        )

    def add_instant(self, track: Track, name: str, at_s: float, *, of_all: bool = False) -> None:
        """Add a fault at a moment, of a process or of all."""
        self._events.append(
            {
                "ph": "i",
                "name": name,
                "cat": "fault",
                "s": "g" if of_all else "p",
                "pid": track.process,
                "tid": track.number,
                "ts": _us(at_s),
            }
        )

    def add_flow(self, name: str, steps: Sequence[tuple[Track, float]]) -> None:
        """Draw arrows from slice to slice. Each step is a moment within a slice of its track."""
        self._flows += 1
        for index, (track, at_s) in enumerate(steps):
            last = index == len(steps) - 1
            self._events.append(
                {
                    "ph": "f" if last else ("t" if index else "s"),
                    "name": name,
                    "cat": "flow",
                    "id": self._flows,
                    "pid": track.process,
                    "tid": track.number,
                    "ts": _us(at_s),
                    # Binds to the slice around this moment, not to the next one.
                    **({"bp": "e"} if last else {}),
                }
            )

    def as_json(self, other: Mapping[str, Any]) -> str:
        """Return the file. `other` is kept as its metadata."""
        return json.dumps(
            {"traceEvents": self._events, "displayTimeUnit": "ms", "otherData": dict(other)}
        )

    def _name(self, kind: str, process: int, track: int | None, name: str) -> None:
        about = {"pid": process, **({} if track is None else {"tid": track})}
        order = process if track is None else track
        for what, args in (("name", {"name": name}), ("sort_index", {"sort_index": order})):
            self._events.append({"ph": "M", "name": f"{kind}_{what}", **about, "args": args})


class Lanes:
    """Gives slices that may overlap a lane each, so that none overlaps another in its lane."""

    def __init__(self) -> None:
        self._free_at: list[float] = []

    def take(self, begin_s: float, end_s: float) -> int:
        """Return the first lane that is free. Ask in the order of `begin_s`."""
        for lane, free_at in enumerate(self._free_at):
            if free_at <= begin_s + _TOUCH_S:
                self._free_at[lane] = end_s
                return lane
        self._free_at.append(end_s)
        return len(self._free_at) - 1


def _us(seconds: float) -> float:
    return round(seconds * _US, 3)
