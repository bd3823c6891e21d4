"""What happened in a simulation: who worked on what and when, faults, and kept results."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from fogmqtt.core.scheduling.actions import Action, CancelTile, KeepResult, SendTile
from fogmqtt.core.scheduling.events import (
    BrokerLost,
    DeviceJoined,
    DeviceLost,
    Event,
    TileFailed,
    TileRejected,
)

#: Job and tile; all attempts at one tile share it.
TileKey = tuple[str, int]


class SpanState(Enum):
    """What became of a worker's time."""

    KEPT = "kept"
    #: Another copy was faster, or the answer was lost.
    WASTED = "wasted"
    #: The device crashed.
    CUT = "cut"
    RUNNING = "running"


@dataclass(slots=True)
class Span:
    """One worker busy with one tile, in seconds of virtual time."""

    device: str
    worker: int
    job: str
    tile: int
    attempt: int
    pixels: int
    #: It was sent while another device had the tile.
    hedge: bool
    begin_s: float
    end_s: float = math.inf
    state: SpanState = SpanState.RUNNING

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s


@dataclass(frozen=True, slots=True)
class EventMark:
    """An event of a device, or of the broker if `device` is empty."""

    device: str
    at_s: float
    what: str
    for_s: float = 0.0


@dataclass(slots=True)
class Record:
    """Everything that happened, in order of time."""

    spans: list[Span] = field(default_factory=list)
    marks: list[EventMark] = field(default_factory=list)
    #: The number of messages and results by what became of them.
    counts: Counter[str] = field(default_factory=Counter)
    _kept: set[tuple[str, int, int, str]] = field(default_factory=set)

    def mark(self, device: str, at_s: float, what: str, for_s: float = 0.0) -> None:
        self.marks.append(EventMark(device, at_s, what, for_s))

    def keep(self, kept: KeepResult) -> None:
        self._kept.add((kept.job, kept.tile, kept.attempt, kept.device))

    def settle(self, now: float) -> None:
        """Set the state of every span; a running one ends now."""
        for span in self.spans:
            if span.end_s > now:
                span.end_s = now
            elif span.state is SpanState.RUNNING:
                kept = (span.job, span.tile, span.attempt, span.device) in self._kept
                span.state = SpanState.KEPT if kept else SpanState.WASTED


class Outstanding:
    """The devices that hold each tile as far as the gateway knows: tells a hedge from a retry."""

    def __init__(self) -> None:
        self._holders: dict[TileKey, set[str]] = {}
        self._held: dict[str, set[TileKey]] = {}

    def on_event(self, event: Event) -> None:
        """Remove what an event ends."""
        match event:
            case DeviceLost(device) | DeviceJoined(device):
                for key in self._held.pop(device, set()):
                    self._holders[key].discard(device)
            case BrokerLost():
                self._holders.clear()
                self._held.clear()
            case TileFailed(job, tile, _, device) | TileRejected(job, tile, _, device):
                self._end((job, tile), device)
            case _:
                pass

    def done(self, action: Action) -> None:
        """Remove what an action ends."""
        match action:
            case CancelTile(job, tile, _, device) | KeepResult(job, tile, _, device):
                self._end((job, tile), device)
            case _:
                pass

    def begin(self, order: SendTile) -> bool:
        """A tile is sent. Returns whether another device has it."""
        key = (order.job, order.tile)
        holders = self._holders.setdefault(key, set())
        hedged = bool(holders)
        holders.add(order.device)
        self._held.setdefault(order.device, set()).add(key)
        return hedged

    def _end(self, key: TileKey, device: str) -> None:
        holders = self._holders.get(key)
        if holders is None:
            return
        holders.discard(device)
        self._held.get(device, set()).discard(key)
        if not holders:
            del self._holders[key]
