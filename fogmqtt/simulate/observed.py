"""Records a real gateway's scheduler, so that its run can be drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fogmqtt.core.scheduling.actions import (
    Action,
    CancelTile,
    KeepResult,
    Quarantine,
    SendTile,
    SplitTile,
)
from fogmqtt.core.scheduling.events import DeviceLost, Event, JobSubmitted, ResultArrived
from fogmqtt.simulate.record import Outstanding, Record, Span, SpanState

#: (job, tile, attempt, device)
_Lease = tuple[str, int, int, str]


@dataclass(slots=True)
class Observer:
    """Stores what it is shown and interprets it later, so that observing costs next to nothing.

    It is a `Watch`, see `simulate.simulation`; times are seconds of any one clock.
    """

    notes: list[tuple[Event, list[Action], float]] = field(default_factory=list)

    def __call__(self, event: Event, actions: list[Action], now: float) -> None:
        self.notes.append((event, actions, now))

    def record(self, since_s: float, workers: dict[str, int]) -> Record:
        """The record of the run; times count from `since_s`. `workers` are those of each device.

        A tile begins according to the device's own figure and ends when its result arrived, so the
        transfer of the result belongs to it.
        """
        replay = _Replay(since_s, workers)
        for event, actions, now in self.notes:
            replay.on_event(event, now)
            for action in actions:
                replay.perform(action, now)
        return replay.ended(self.notes[-1][2] if self.notes else since_s)


class _Replay:
    """Replays the stored events and actions in their order."""

    def __init__(self, since_s: float, workers: dict[str, int]) -> None:
        self._since_s = since_s
        self._record = Record()
        self._outstanding = Outstanding()
        self._pixels: dict[tuple[str, int], int] = {}
        #: What each device holds, the oldest first: when it was sent, and whether as a hedge.
        self._held: dict[str, dict[_Lease, tuple[float, bool]]] = {name: {} for name in workers}
        #: When each of a device's workers ended its last tile.
        self._free = {name: [-since_s] * count for name, count in workers.items()}

    def on_event(self, event: Event, now: float) -> None:
        self._outstanding.on_event(event)
        match event:
            case JobSubmitted(job, tiles=tiles):
                self._pixels.update(((job, index), size) for index, size in enumerate(tiles))
            case ResultArrived(job, tile, attempt, device, compute_s):
                self._work((job, tile, attempt, device), now, compute_s, SpanState.RUNNING)
            case DeviceLost(device):
                self._lose(device, now)
            case _:
                pass

    def perform(self, action: Action, now: float) -> None:
        self._outstanding.done(action)
        match action:
            case SendTile(job, tile, attempt, device):
                hedge = self._outstanding.begin(action)
                self._held[device][job, tile, attempt, device] = now - self._since_s, hedge
            case SplitTile(job, tile, first, second):
                pixels = self._pixels[job, tile]
                self._pixels[job, first] = (pixels + 1) // 2
                self._pixels[job, second] = pixels // 2
            case CancelTile(job, tile, attempt, device):
                self._cancel((job, tile, attempt, device), now)
            case KeepResult():
                self._record.keep(action)
            case Quarantine(device, seconds):
                self._record.mark(device, now - self._since_s, "quarantine", seconds)
            case _:
                pass

    def ended(self, now: float) -> Record:
        self._record.settle(now - self._since_s)
        return self._record

    def _lose(self, device: str, now: float) -> None:
        self._record.mark(device, now - self._since_s, "crash", float("inf"))
        for lease in self._first(device):
            self._work(lease, now, None, SpanState.CUT)
        self._held[device].clear()

    def _cancel(self, lease: _Lease, now: float) -> None:
        if lease in self._first(lease[3]):
            self._work(lease, now, None, SpanState.WASTED)
        self._held[lease[3]].pop(lease, None)

    def _first(self, device: str) -> list[_Lease]:
        """The tiles that its workers are expected to work on."""
        return list(self._held[device])[: len(self._free[device])]

    def _work(self, lease: _Lease, now: float, took_s: float | None, state: SpanState) -> None:
        """A worker's time. Without the device's own figure it begins when the worker was free."""
        end_s = now - self._since_s
        free = self._free[lease[3]]
        sent_s, hedge = self._held[lease[3]].pop(lease, (end_s - (took_s or 0.0), False))
        begin_s = sent_s if took_s is None else max(sent_s, end_s - took_s)
        worker = _latest(free, begin_s)
        begin_s = min(max(begin_s, free[worker]), end_s)
        free[worker] = end_s
        job, tile, attempt, device = lease
        self._record.spans.append(
            Span(
                device,
                worker,
                job,
                tile,
                attempt,
                self._pixels.get((job, tile), 0),
                hedge,
                begin_s,
                end_s,
                state,
            )
        )


def _latest(free: Iterable[float], begin_s: float) -> int:
    """The worker that was last to be free by then, or else the first to be free at all."""
    ranked = sorted((at_s > begin_s, abs(at_s - begin_s), index) for index, at_s in enumerate(free))
    return ranked[0][2]
