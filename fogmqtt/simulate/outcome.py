"""The figures of a simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.simulate.fleet import FleetSpec
from fogmqtt.simulate.lower_bound import Capacity, bound_s
from fogmqtt.simulate.record import Record, Span, SpanState
from fogmqtt.simulate.simulation import LONGEST_S, JobRun, Simulation, Watch
from fogmqtt.simulate.work import JobWork


@dataclass(frozen=True, slots=True)
class JobFigures:
    """One job: its arrival and end in seconds; `error` is empty unless it failed."""

    id: str
    at_s: float
    ended_s: float
    tiles: int
    error: str
    retries: int
    hedges: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """One device. Tiles and pixels are those whose results were kept.

    `busy_s` are the worker seconds of kept results, `wasted_s` those of redundant copies, lost
    answers and crashes. `utilisation` is their sum over the worker seconds while it was up.
    """

    id: str
    tiles: int
    pixels: int
    busy_s: float
    wasted_s: float
    utilisation: float
    crashes: int
    quarantined_s: float


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """The result of a run. `ratio` is the makespan over the bound; it is at least 1."""

    seed: int
    makespan_s: float
    bound_s: float
    jobs: tuple[JobFigures, ...]
    devices: tuple[DeviceFigures, ...]
    #: The part of all worker seconds that led to no kept result.
    wasted: float
    #: The number of events that the scheduler handled.
    events: int
    counts: dict[str, int]
    record: Record

    @property
    def ratio(self) -> float:
        return self.makespan_s / self.bound_s

    @property
    def done(self) -> bool:
        """Whether every job has its result."""
        return all(not job.error and job.ended_s < math.inf for job in self.jobs)

    @property
    def retries(self) -> int:
        return sum(job.retries for job in self.jobs)

    @property
    def hedges(self) -> int:
        return sum(job.hedges for job in self.jobs)

    @property
    def duplicates(self) -> int:
        return sum(job.duplicates for job in self.jobs)

    @property
    def verdict(self) -> str:
        """A one-line summary."""
        undone = [job for job in self.jobs if job.error or job.ended_s == math.inf]
        if undone:
            why = undone[0].error or f"not done after {self.makespan_s:.2f} s"
            return f"{undone[0].id}: {why}"
        return (
            f"makespan {self.makespan_s:.2f} s, bound {self.bound_s:.2f} s, ratio {self.ratio:.2f}"
        )


def simulate(
    fleet: FleetSpec,
    jobs: Sequence[JobWork],
    seed: int,
    *,
    policy: Policy | None = None,
    watch: Watch | None = None,
    until_s: float = LONGEST_S,
) -> SimulationResult:
    """Run jobs on a fleet in virtual time. Deterministic by `seed`."""
    simulation = Simulation(fleet, jobs, seed, policy=policy, watch=watch)
    simulation.run(until_s)
    return outcome_of(simulation)


def outcome_of(simulation: Simulation) -> SimulationResult:
    """The figures of a simulation that has run."""
    now = simulation.event_queue.now
    began = min(run.work.at_s for run in simulation.jobs)
    spent = [span.seconds for span in simulation.record.spans]
    wasted = [span.seconds for span in simulation.record.spans if span.state is not SpanState.KEPT]
    return SimulationResult(
        seed=simulation.seed,
        makespan_s=now - began,
        bound_s=_bound_s(simulation, began),
        jobs=tuple(_job(run) for run in simulation.jobs),
        devices=_devices(simulation),
        wasted=sum(wasted) / sum(spent) if spent else 0.0,
        events=simulation.events,
        counts=dict(sorted(simulation.record.counts.items())),
        record=simulation.record,
    )


def _bound_s(simulation: Simulation, began: float) -> float:
    stages = [stage for run in simulation.jobs for stage in run.work.stages]
    tiles = [tile for stage in stages for tile in stage.tiles]
    # The bytes of the cheapest tile, so that the bound is not too high.
    pixel_bytes = min(max(tile.out_bytes, tile.back_bytes) / tile.core for tile in tiles)
    capacities = [
        Capacity(device_model.device, device_model.speed_profile, device_model.uptimes, pixel_bytes)
        for device_model in simulation.device_models.values()
    ]
    # Jobs that arrive from a moment on cannot have begun before: take the latest of all ends.
    ends = []
    for run in simulation.jobs:
        later = [one.work for one in simulation.jobs if one.work.at_s >= run.work.at_s]
        pixels = sum(stage.core for job in later for stage in job.stages)
        at_s = run.work.at_s
        ends.append(at_s + bound_s(capacities, pixels, simulation.event_queue.now, at_s))
    return max(ends) - began


def _job(run: JobRun) -> JobFigures:
    return JobFigures(
        run.work.id,
        run.work.at_s,
        run.ended_s,
        run.work.tiles,
        run.error,
        run.retries,
        run.hedges,
        run.duplicates,
    )


def _devices(simulation: Simulation) -> tuple[DeviceFigures, ...]:
    spans: dict[str, list[Span]] = {name: [] for name in simulation.device_models}
    for span in simulation.record.spans:
        spans[span.device].append(span)
    return tuple(_device(simulation, name, spans[name]) for name in simulation.device_models)


def _device(simulation: Simulation, name: str, spans: Sequence[Span]) -> DeviceFigures:
    device_model, now = simulation.device_models[name], simulation.event_queue.now
    kept = [span for span in spans if span.state is SpanState.KEPT]
    busy_s = sum(span.seconds for span in kept)
    spent_s = sum(span.seconds for span in spans)
    up_s = sum(max(0.0, min(end, now) - begin) for begin, end in device_model.uptimes)
    marks = [mark for mark in simulation.record.marks if mark.device == name]
    return DeviceFigures(
        id=name,
        tiles=len(kept),
        pixels=sum(span.pixels for span in kept),
        busy_s=busy_s,
        wasted_s=spent_s - busy_s,
        utilisation=spent_s / (up_s * device_model.device.workers) if up_s else 0.0,
        crashes=sum(mark.what == "crash" for mark in marks),
        quarantined_s=sum(
            min(mark.for_s, now - mark.at_s) for mark in marks if mark.what == "quarantine"
        ),
    )
