"""Measures the cost of a simulated event, and its growth with the fleet.

    python benchmarks/bench_simulator.py [results/simulator.svg]

Fleets of random speed, a hundred equal tiles per device, the real scheduler. The seconds are
those of the whole run. With a file name, the costs are drawn against the number of devices.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fogmqtt.images.drawing import Drawing, Label, Line, Shape, svg
from fogmqtt.simulate.fleet import DeviceSpec, FleetSpec
from fogmqtt.simulate.outcome import simulate
from fogmqtt.simulate.work import even_job

DEVICES = (10, 30, 100, 300, 1000)
TILES_PER_DEVICE = 100
TILE_PIXELS = 800_000
#: Pixels per second of the slowest and the fastest device.
SLOWEST, FASTEST = 1e6, 10e6

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 420, 70, 690, 60, 360


@dataclass(frozen=True)
class Measured:
    """One run."""

    devices: int
    tiles: int
    events: int
    seconds: float
    ratio: float

    @property
    def event_us(self) -> float:
        return self.seconds / self.events * 1e6


def fleet_of(count: int) -> FleetSpec:
    """Devices whose speeds are spread evenly over the logarithm."""
    step = math.log(FASTEST / SLOWEST) / max(1, count - 1)
    # In no order of speed: 7919 is prime.
    speeds = [SLOWEST * math.exp(step * (index * 7919 % count)) for index in range(count)]
    return FleetSpec(
        tuple(DeviceSpec(f"d{i}", one, overhead_ms=0.2) for i, one in enumerate(speeds))
    )


def measure(devices: int) -> Measured:
    tiles = devices * TILES_PER_DEVICE
    fleet, job = fleet_of(devices), even_job("job", tiles, TILE_PIXELS)
    begin = time.perf_counter()
    outcome = simulate(fleet, [job], seed=1)
    seconds = time.perf_counter() - begin
    assert outcome.done
    return Measured(devices, tiles, outcome.events, seconds, outcome.ratio)


def plot(runs: Sequence[Measured]) -> Drawing:
    """Draw the cost per event by devices, and the logarithm from the first run on."""
    top = 1.2 * max(max(run.event_us for run in runs), grown(runs, runs[-1]))

    def x(devices: float) -> float:
        span = math.log(runs[-1].devices / runs[0].devices)
        return _LEFT + (_RIGHT - _LEFT) * math.log(devices / runs[0].devices) / span

    def y(cost_us: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * cost_us / top

    shapes: list[Shape] = [
        Label(_LEFT, 30, "cost of a simulated event", 15),
        Label(_RIGHT, _BOTTOM + 44, "devices (100 tiles each)", 12, anchor="end"),
        Label(_LEFT, _TOP - 10, "µs", 12, anchor="end"),
        Line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, "#333333"),
        Line(_LEFT, _TOP, _LEFT, _BOTTOM, "#333333"),
    ]
    for run in runs:
        shapes.append(Label(x(run.devices), _BOTTOM + 18, str(run.devices), anchor="middle"))
        shapes.append(Label(x(run.devices), y(run.event_us) - 8, f"{run.event_us:.0f}"))
    for before, after in pairwise(runs):
        ends = x(before.devices), x(after.devices)
        shapes.append(Line(ends[0], y(before.event_us), ends[1], y(after.event_us), "#0072b2", 3))
        logs = y(grown(runs, before)), y(grown(runs, after))
        shapes.append(Line(ends[0], logs[0], ends[1], logs[1], "#d55e00", 1.5, dashed=True))
    shapes.append(Label(_RIGHT, y(grown(runs, runs[-1])) - 8, "log n", 12, "#d55e00", "end"))
    return Drawing(_WIDTH, _HEIGHT, shapes)


def grown(runs: Sequence[Measured], run: Measured) -> float:
    """Return the cost of an event if it grew with the logarithm from the first run on."""
    first = runs[0]
    return first.event_us * math.log(run.devices) / math.log(first.devices)


def main() -> None:
    print(
        f"{'devices':>8} {'tiles':>8} {'events':>8} {'seconds':>8} {'µs/event':>9} "
        f"{'log n':>7} {'makespan/bound':>15}"
    )
    runs: list[Measured] = []
    for devices in DEVICES:
        run = measure(devices)
        runs.append(run)
        print(
            f"{run.devices:>8} {run.tiles:>8} {run.events:>8} {run.seconds:>8.2f} "
            f"{run.event_us:>9.1f} {grown(runs, run):>7.1f} {run.ratio:>15.3f}"
        )
    if len(sys.argv) > 1:
        path = Path(sys.argv[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(svg(plot(runs)), "utf-8")
        print(f"drawn: {path}")


if __name__ == "__main__":
    main()
