"""The real scheduler in virtual time, with modelled devices around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from fogmqtt.core.scheduling.actions import (
    Action,
    CancelTile,
    DropResult,
    FailJob,
    FinishJob,
    KeepResult,
    Quarantine,
    ReportStarved,
    SendTile,
    SplitTile,
)
from fogmqtt.core.scheduling.events import BrokerLost, DeviceLost, Event, JobSubmitted, Tick
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.scheduler import Scheduler
from fogmqtt.simulate.device_model import DeviceModel, Order
from fogmqtt.simulate.event_queue import EventQueue
from fogmqtt.simulate.fleet import DeviceSpec, FleetSpec, Outage
from fogmqtt.simulate.record import Outstanding, Record
from fogmqtt.simulate.work import JobWork, StageWork, TileWork

#: Called after every event with the scheduler's actions.
Watch = Callable[[Event, list[Action], float], None]
#: A day: a job that takes longer in virtual time will not end.
LONGEST_S = 86_400.0


@dataclass(slots=True)
class JobRun:
    """A job and the stage that it has reached."""

    work: JobWork
    stage: int = -1
    ended_s: float = math.inf
    #: Why it failed; empty if it did not.
    error: str = ""
    retries: int = 0
    hedges: int = 0
    duplicates: int = 0

    @property
    def key(self) -> str:
        """The scheduler's id for the current stage."""
        return f"{self.work.id}.{self.stage}" if len(self.work.stages) > 1 else self.work.id


class Simulation:
    """A fleet, jobs and the scheduler. The same seed gives the same run, event by event.

    `watch` sees every event with the scheduler's actions. `run` it once. Several `gateways`, each
    with a scheduler of its own, share the jobs in turn.
    """

    def __init__(
        self,
        fleet: FleetSpec,
        jobs: Sequence[JobWork],
        seed: int,
        *,
        policy: Policy | None = None,
        watch: Watch | None = None,
        gateways: int = 1,
    ) -> None:
        self.fleet = fleet
        self.seed = seed
        self._schedulers = [Scheduler(policy or Policy()) for _ in range(gateways)]
        #: Which gateway has a job, by the scheduler's id.
        self._gateway_of: dict[str, int] = {}
        self.event_queue = EventQueue()
        self.record = Record()
        self.jobs = [JobRun(work) for work in jobs]
        self.events = 0
        self._watch = watch
        self._broker_is_up = True
        self._outstanding = Outstanding()
        #: The current stages, by the scheduler's id.
        self._running: dict[str, tuple[JobRun, StageWork]] = {}
        self._unfinished = len(jobs)
        #: The tiles of each stage by index, halves included.
        self._tiles: dict[str, dict[int, TileWork]] = {}
        everything = frozenset(
            name for job in jobs for stage in job.stages for name in stage.operators
        )
        self.device_models = {
            device.id: self._device_model(device, everything, seed) for device in fleet.devices
        }
        for outage in fleet.outages:
            self.event_queue.at(outage.at_s, self._lose_broker, outage)
        for job in self.jobs:
            self.event_queue.at(job.work.at_s, self._next_stage, job)

    def _device_model(
        self, device: DeviceSpec, everything: frozenset[str], seed: int
    ) -> DeviceModel:
        return DeviceModel(
            device,
            frozenset(device.operators) or everything,
            seed=seed,
            event_queue=self.event_queue,
            record=self.record,
            deliver=self._deliver,
            broker_is_up=lambda: self._broker_is_up,
            gateway_of=lambda job: f"gateway{self._gateway_of[job]}",
            checks_in=len(self._schedulers) > 1,
        )

    @property
    def scheduler(self) -> Scheduler:
        """The first gateway's."""
        return self._schedulers[0]

    def run(self, until_s: float = LONGEST_S) -> None:
        """Run until every job has ended, nothing more can happen, or the time is up."""
        event_queue = self.event_queue
        while self._unfinished:
            wakeups = [one.next_wakeup() for one in self._schedulers]
            wakeup = min((at for at in wakeups if at is not None), default=math.inf)
            due = event_queue.next()
            if min(due, wakeup) > until_s:
                break
            if wakeup <= due and wakeup < math.inf:
                event_queue.now = max(wakeup, event_queue.now)
                self._handle(self._schedulers[wakeups.index(wakeup)], Tick())
            else:
                event_queue.step()
        self.record.settle(event_queue.now)

    def _deliver(self, event: Event) -> None:
        self.events += 1
        self._outstanding.on_event(event)
        if isinstance(event, DeviceLost):
            self.record.mark(event.device, self.event_queue.now, "lost")
        job = getattr(event, "job", None)
        for index, scheduler in enumerate(self._schedulers):
            if job is None or self._gateway_of[job] == index:
                self._handle(scheduler, event)

    def _handle(self, scheduler: Scheduler, event: Event) -> None:
        actions = scheduler.handle(event, self.event_queue.now)
        for action in actions:
            self._perform(action)
        if self._watch is not None:
            self._watch(event, actions, self.event_queue.now)

    def _perform(self, action: Action) -> None:
        self._outstanding.done(action)
        match action:
            case SendTile():
                hedge = self._outstanding.begin(action)
                gateway = f"gateway{self._gateway_of[action.job]}"
                order = Order(action, self._tiles[action.job][action.tile], hedge, gateway)
                self.device_models[action.device].send(order)
            case SplitTile(job, tile, first, second):
                tiles = self._tiles[job]
                tiles[first], tiles[second] = tiles[tile].halves()
            case CancelTile():
                self.device_models[action.device].cancel(action)
            case KeepResult():
                self.record.keep(action)
            case DropResult():
                self.record.counts["results dropped"] += 1
            case FinishJob(job):
                self._end_stage(job, "")
            case FailJob(job, reason):
                self._end_stage(job, reason)
            case Quarantine(device, seconds):
                self.record.mark(device, self.event_queue.now, "quarantine", seconds)
            case ReportStarved():
                self.record.counts["starved"] += 1

    # -- jobs -----------------------------------------------------------------------------------

    def _next_stage(self, job: JobRun) -> None:
        job.stage += 1
        if job.stage == len(job.work.stages):
            self._end(job, "")
            return
        stage = job.work.stages[job.stage]
        self._running[job.key] = (job, stage)
        self._gateway_of[job.key] = self.jobs.index(job) % len(self._schedulers)
        pixels = tuple(tile.pixels for tile in stage.tiles)
        self._tiles[job.key] = dict(enumerate(stage.tiles))
        parts, priority = tuple(tile.parts for tile in stage.tiles), job.work.priority
        event = JobSubmitted(job.key, stage.kind, pixels, stage.operators)
        self._deliver(msgspec.structs.replace(event, halves=parts, priority=priority))

    def _end_stage(self, key: str, error: str) -> None:
        job, _ = self._running[key]
        progress = self._schedulers[self._gateway_of[key]].progress(key)
        job.retries += progress.retries
        job.hedges += progress.hedges
        job.duplicates += progress.duplicates
        if error:
            self._end(job, error)
        else:
            # Not at once: the scheduler is still handling an event.
            self.event_queue.at(self.event_queue.now, self._next_stage, job)

    def _end(self, job: JobRun, error: str) -> None:
        job.ended_s = self.event_queue.now
        job.error = error
        self._unfinished -= 1

    # -- the broker -----------------------------------------------------------------------------

    def _lose_broker(self, outage: Outage) -> None:
        self._broker_is_up = False
        self.record.mark("", self.event_queue.now, "broker lost", outage.for_s)
        for device_model in self.device_models.values():
            device_model.disconnect()
        self._deliver(BrokerLost())
        self.event_queue.at(self.event_queue.now + outage.for_s, self._find_broker)

    def _find_broker(self) -> None:
        self._broker_is_up = True
        for device_model in self.device_models.values():
            device_model.reconnect()
