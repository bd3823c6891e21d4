"""How much the pure scheduler costs per event, and that it does not grow with the job.

    python benchmarks/bench_scheduler.py

Modelled devices (one worker each, speeds from 1 to 10) accept and answer every tile in virtual
time. The seconds are those of the whole run, the model included.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field

from fogmqtt.core.scheduling.actions import Action, CancelTile, FinishJob, SendTile
from fogmqtt.core.scheduling.events import (
    DeviceJoined,
    Event,
    JobSubmitted,
    ResultArrived,
    Tick,
    TileAccepted,
)
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.scheduler import Scheduler

#: One way over the network.
LATENCY_S = 0.002
#: What a tile takes on the fastest device.
FASTEST_S = 0.010


@dataclass
class Model:
    """Devices in virtual time."""

    devices: int
    now: float = 0.0
    events: int = 0
    hedges: int = 0
    finished: bool = False
    _queue: list[tuple[float, int, Event]] = field(default_factory=list)
    _free_at: dict[str, float] = field(default_factory=dict)
    _cancelled: set[tuple[str, int, int]] = field(default_factory=set)

    def run(self, tiles: int) -> None:
        scheduler = Scheduler(Policy())
        for index in range(self.devices):
            self._feed(scheduler, DeviceJoined(f"d{index}", "boot", workers=1))
        self._feed(scheduler, JobSubmitted("job", "blur", (512 * 512,) * tiles))
        while self._queue and not self.finished:
            self.now, _, event = heapq.heappop(self._queue)
            if not self._is_cancelled(event):
                self._feed(scheduler, event)
        assert self.finished
        self.hedges = scheduler.progress("job").hedges

    def _feed(self, scheduler: Scheduler, event: Event) -> None:
        self._perform(scheduler.handle(event, self.now))
        self.events += 1
        wakeup = scheduler.next_wakeup()
        if wakeup is not None and wakeup <= self.now:
            self._perform(scheduler.handle(Tick(), self.now))

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case SendTile():
                    self._work(action)
                case CancelTile(_, tile, attempt, device):
                    self._cancelled.add((device, tile, attempt))
                case FinishJob():
                    self.finished = True
                case _:
                    pass

    def _work(self, order: SendTile) -> None:
        accepted = TileAccepted(order.job, order.tile, order.attempt, order.device)
        begins = max(self.now + LATENCY_S, self._free_at.get(order.device, 0.0))
        takes = FASTEST_S * (1 + int(order.device[1:]) % 10)
        self._free_at[order.device] = begins + takes
        self._push(self.now + 2 * LATENCY_S, accepted)
        result = ResultArrived(order.job, order.tile, order.attempt, order.device, takes)
        self._push(begins + takes + LATENCY_S, result)

    def _push(self, at: float, event: Event) -> None:
        heapq.heappush(self._queue, (at, len(self._queue) + self.events * 1000, event))

    def _is_cancelled(self, event: Event) -> bool:
        if not isinstance(event, ResultArrived):
            return False
        return (event.device, event.tile, event.attempt) in self._cancelled


def ideal_s(devices: int, tiles: int) -> float:
    """Return the seconds for all tiles if no device ever waits."""
    rate = sum(1 / (FASTEST_S * (1 + index % 10)) for index in range(devices))
    return tiles / rate


def main() -> None:
    print(
        f"{'devices':>8} {'tiles':>8} {'events':>8} {'seconds':>8} {'µs/event':>9} "
        f"{'ratio':>6} {'hedges':>7} {'makespan/ideal':>15}"
    )
    first_us = 0.0
    for devices, tiles in ((100, 1_000), (100, 10_000), (100, 100_000), (1_000, 10_000)):
        model = Model(devices)
        begin = time.perf_counter()
        model.run(tiles)
        seconds = time.perf_counter() - begin
        per_event_us = seconds / model.events * 1e6
        first_us = first_us or per_event_us
        print(
            f"{devices:>8} {tiles:>8} {model.events:>8} {seconds:>8.2f} {per_event_us:>9.1f} "
            f"{per_event_us / first_us:>6.2f} {model.hedges:>7} "
            f"{model.now / ideal_s(devices, tiles):>15.3f}"
        )


if __name__ == "__main__":
    main()
