"""Random fleets with random faults in virtual time, each judged by a referee.

    python -m tests.fleets                      10 000 of them, on all cores
    python -m tests.fleets --seed 17            one again, with its figures
    python -m tests.fleets --seed 17 --gantt out.svg

A seed says everything: the devices, their faults, the jobs, and what chance does to them.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fogmqtt.core.scheduling.actions import (
    Action,
    FailJob,
    FinishJob,
    KeepResult,
    SendTile,
    SplitTile,
)
from fogmqtt.core.scheduling.events import Event, ResultArrived, Tick, TileAccepted
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.images.drawing import svg
from fogmqtt.simulate.fleet import DeviceSpec, Faults, FleetSpec, LinkSpec, Outage, Step
from fogmqtt.simulate.gantt import Chart, gantt
from fogmqtt.simulate.outcome import SimulationResult, outcome_of
from fogmqtt.simulate.simulation import Simulation
from fogmqtt.simulate.work import JobWork, even_job

#: What a makespan may be of its bound, with faults…
RATIO = 1.25
#: …but for so many of all: a lone device whose result is lost waits for a lease, and nobody knows
#: before that the quickest device will be gone for good.
BEYOND = 0.003
#: The scheduler's own check costs as much as dozens of events.
_CHECK_EVERY = 128
_USUAL = ResultArrived | TileAccepted | Tick


@dataclass(frozen=True)
class Schedule:
    """A fleet with its faults, and what it is to do."""

    seed: int
    fleet: FleetSpec
    jobs: tuple[JobWork, ...]


def draw(seed: int) -> Schedule:
    """What this seed stands for."""
    chance = random.Random(f"schedule {seed}")
    bound_s = chance.uniform(15, 45)
    count = chance.randint(1, 6)
    devices = tuple(_device(chance, index, bound_s, count) for index in range(count))
    outages = ()
    if chance.random() < 0.1:
        outages = (Outage(chance.uniform(0, bound_s), chance.uniform(0.1, 0.02 * bound_s)),)
    return Schedule(seed, FleetSpec(devices, outages), _jobs(chance, devices, bound_s))


def _device(chance: random.Random, index: int, bound_s: float, count: int) -> DeviceSpec:
    return DeviceSpec(
        id=f"d{index}",
        speed=math.exp(chance.uniform(math.log(1e6), math.log(10e6))),
        workers=chance.choice((1, 1, 1, 2)),
        overhead_ms=chance.choice((0.0, 1.0, 5.0)),
        drift=_drift(chance, bound_s, count),
        wander=chance.choice((0.0, 0.0, 0.02)),
        link=_link(chance),
        faults=_faults(chance, index, bound_s, count),
    )


def _drift(chance: random.Random, bound_s: float, count: int) -> tuple[Step, ...]:
    if chance.random() > 0.15:
        return ()
    # A lone device at a tenth would take longer for a tile than it lives between two crashes.
    factor = chance.choice((0.1, 0.5, 2.0) if count > 1 else (0.5, 2.0))
    return (Step(chance.uniform(0, 0.8 * bound_s), factor),)


def _link(chance: random.Random) -> LinkSpec:
    flaws = (0.0, 0.0, 0.0, 0.01)
    return LinkSpec(
        rate_mbps=chance.choice((300.0, 1000.0)),
        latency_ms=chance.uniform(0.2, 20),
        jitter_ms=chance.choice((0.0, 1.0, 10.0)),
        loss=chance.choice((0.0, 0.0, 0.0, 0.005)),
        duplicates=chance.choice(flaws),
        reordering=chance.choice(flaws),
    )


def _faults(chance: random.Random, index: int, bound_s: float, count: int) -> Faults:
    crashes: tuple[Outage, ...] = ()
    every_s = math.inf
    fate = chance.random()
    # The first device stays, or at least comes back: otherwise no job could end.
    if fate < 0.1 and index:
        crashes = (Outage(chance.uniform(0, 0.9 * bound_s)),)
    elif fate < 0.25 and (index or count == 1):
        every_s = chance.uniform(0.5, 2) * bound_s
    straggles = count > 2 and chance.random() < 0.15
    return Faults(
        crashes=crashes,
        crash_every_s=every_s,
        rejoin_after_s=chance.uniform(0.02, 0.2) * bound_s,
        will_after_s=chance.choice((0.01, 0.1, 1.0)),
        stragglers=0.02 if straggles else 0.0,
        straggler_factor=chance.uniform(2, 8),
    )


def _jobs(
    chance: random.Random, devices: Sequence[DeviceSpec], bound_s: float
) -> tuple[JobWork, ...]:
    workers = sum(device.workers for device in devices)
    pixels = bound_s * sum(device.speed * device.workers for device in devices)
    count = chance.choice((1, 1, 1, 2, 3))
    jobs = []
    for index in range(count):
        tiles = max(1, round(chance.uniform(15, 25) * workers / count))
        at_s = 0.0 if index == 0 else chance.uniform(0, 0.5 * bound_s)
        # Tiles of `tiles: auto` can be halved, mostly more often than that.
        size = round(pixels / count / tiles)
        jobs.append(even_job(f"job{index}", tiles, size, at_s=at_s, halvings=3))
    return tuple(jobs)


def _policy(fleet: FleetSpec) -> Policy:
    """The shipped one, and as the manual advises where boards die at random again and again."""
    flaky = any(device.faults.crash_every_s < math.inf for device in fleet.devices)
    return Policy(max_losses=12) if flaky else Policy()


class Referee:
    """Sees every event and every action, and raises AssertionError at the first foul."""

    def __init__(self, schedule: Schedule) -> None:
        self.simulation = Simulation(
            schedule.fleet,
            schedule.jobs,
            schedule.seed,
            policy=_policy(schedule.fleet),
            watch=self._saw,
        )
        self._tiles = {job.id: job.tiles for job in schedule.jobs}
        self._kept: Counter[tuple[str, int]] = Counter()
        self._ended: Counter[str] = Counter()
        self._split: set[tuple[str, int]] = set()
        self._sent: set[tuple[str, int, int, str]] = set()
        self._events = 0

    def run(self) -> SimulationResult:
        """Play to the end. Raises AssertionError."""
        self.simulation.run()
        self.simulation.scheduler.check()
        assert self._ended == dict.fromkeys(self._tiles, 1), f"jobs ended: {self._ended}"
        return outcome_of(self.simulation)

    def _saw(self, event: Event, actions: list[Action], now: float) -> None:
        self._events += 1
        if self._events % _CHECK_EVERY == 0 or not isinstance(event, _USUAL):
            self.simulation.scheduler.check()
        for action in actions:
            match action:
                case SendTile(job, tile, attempt, device):
                    self._sends(job, tile, attempt, device)
                case SplitTile(job, tile):
                    self._splits(job, tile)
                case KeepResult():
                    self._keeps(action, event)
                case FinishJob(job):
                    self._ended[job] += 1
                    done = sum(1 for name, _ in self._kept if name == job)
                    assert done == self._tiles[job], f"{job} ended with {done} tiles at {now}"
                case FailJob(job, reason):
                    raise AssertionError(f"{job} failed at {now:.2f} s: {reason}")
                case _:
                    pass

    def _sends(self, job: str, tile: int, attempt: int, device: str) -> None:
        assert not self._ended[job], f"{job} has ended, and tile {tile} goes to {device}"
        over = (job, tile) in self._kept or (job, tile) in self._split
        assert not over, f"{job}/{tile} is done, and goes to {device}"
        self._sent.add((job, tile, attempt, device))

    def _splits(self, job: str, tile: int) -> None:
        assert (job, tile) not in self._kept, f"{job}/{tile} is done, and split"
        assert (job, tile) not in self._split, f"{job}/{tile} is split twice"
        self._split.add((job, tile))
        self._tiles[job] += 1

    def _keeps(self, action: KeepResult, event: Event) -> None:
        key = (action.job, action.tile)
        self._kept[key] += 1
        assert self._kept[key] == 1, f"{key} was merged twice"
        assert key not in self._split, f"{key} was merged, and its halves stand for it"
        assert isinstance(event, ResultArrived)
        lease = (event.job, event.tile, event.attempt, event.device)
        assert lease in self._sent, f"{lease} was never sent"
        assert lease == (action.job, action.tile, action.attempt, action.device)


def innocent(device: DeviceSpec) -> bool:
    """Whether nothing that it does could be held against it."""
    faults, link = device.faults, device.link
    flawless = not (faults.crashes or faults.stragglers or link.loss or device.drift)
    return flawless and faults.crash_every_s == math.inf


@dataclass(frozen=True)
class Verdict:
    """What the referee found; `foul` is empty where there was none."""

    seed: int
    ratio: float = math.nan
    events: int = 0
    quarantined_s: float = 0.0
    foul: str = ""


def judge(seed: int) -> Verdict:
    """Play one schedule."""
    schedule = draw(seed)
    try:
        outcome = Referee(schedule).run()
    except AssertionError as foul:
        return Verdict(seed, foul=str(foul) or "an invariant does not hold")
    figures = {device.id: device for device in outcome.devices}
    quarantined = [
        figures[device.id].quarantined_s for device in schedule.fleet.devices if innocent(device)
    ]
    return Verdict(seed, outcome.ratio, outcome.events, max(quarantined, default=0.0))


def again(seed: int) -> str:
    """The command that plays a schedule once more."""
    return f"python -m tests.fleets --seed {seed}"


def judge_all(seeds: Sequence[int], processes: int) -> Iterator[Verdict]:
    if processes < 2:
        yield from map(judge, seeds)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(judge, seeds, chunksize=50)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="play this one alone")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--gantt", type=Path, metavar="FILE", help="draw the one (SVG)")
    options = parser.parse_args()
    if options.seed is not None:
        return _one(options.seed, options.gantt)
    return _many(range(options.first, options.first + options.count), options.processes)


def _one(seed: int, picture: Path | None) -> int:
    schedule = draw(seed)
    for device in schedule.fleet.devices:
        print(device)
    print(schedule.fleet.outages)
    for job in schedule.jobs:
        print(f"{job.id}: {job.tiles} tiles of {job.stages[0].tiles[0].pixels} at {job.at_s:.2f} s")
    referee = Referee(schedule)
    try:
        print(referee.run().verdict)
    finally:
        outcome = outcome_of(referee.simulation)
        for figures in outcome.devices:
            print(figures)
        if picture is not None:
            picture.write_text(svg(_picture(seed, schedule, outcome)), "utf-8")
    return 0


def _picture(seed: int, schedule: Schedule, outcome: SimulationResult):  # type: ignore[no-untyped-def]
    lanes = [(device.id, device.workers) for device in schedule.fleet.devices]
    record, title = outcome.record, f"seed {seed}: {outcome.verdict}"
    return gantt(
        Chart(title, lanes, record.spans, record.marks, outcome.makespan_s, outcome.bound_s)
    )


def _many(seeds: range, processes: int) -> int:
    began = time.perf_counter()
    verdicts = list(judge_all(seeds, processes))
    seconds = time.perf_counter() - began
    fouls = [one for one in verdicts if one.foul]
    played = sorted((one for one in verdicts if not one.foul), key=lambda one: one.ratio)
    slow = [one for one in played if one.ratio > RATIO]
    jailed = [one for one in played if one.quarantined_s > 0]
    events = sum(one.events for one in played)
    print(f"{len(verdicts)} schedules, {events} events in {seconds:.1f} s: {len(fouls)} fouls")
    for share in (0.5, 0.9, 0.99, 1.0):
        one = played[min(len(played) - 1, int(share * len(played)))]
        print(f"  ratio at {share:.0%}: {one.ratio:.3f} (seed {one.seed})")
    print(f"  over {RATIO}: {len(slow)}; innocents in quarantine: {len(jailed)}")
    for one in [*fouls[:10], *slow[-10:], *jailed[:10]]:
        what = one.foul or f"ratio {one.ratio:.3f}, quarantine {one.quarantined_s:.1f} s"
        print(f"  seed {one.seed}: {what}\n    {again(one.seed)}")
    return 1 if fouls or jailed or len(slow) > BEYOND * len(verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
