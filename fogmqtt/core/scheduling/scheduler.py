"""Which device works on which tile, and what happens when it does not.

Rule 1. Facts come in through `handle` and nowhere else; commands go out as its result.
Rule 2. Nothing in core does I/O, reads a clock, draws a random number or sees a pixel.
Rule 3. Results are idempotent: the first valid one counts, whichever attempt; late is not wrong.
Rule 4. A mishap is held against the tile, the device or both, once; losing the broker against
nobody.
Rule 5. Who gave a wrong result is believed no more: see `core.checks` for second opinions.
"""

from __future__ import annotations

from typing import assert_never

from fogmqtt.core.scheduling import (
    broker_outage,
    failure_policy,
    invariants,
    result_timings,
    spot_checks,
)
from fogmqtt.core.scheduling.actions import Action, DropResult
from fogmqtt.core.scheduling.event_log import EventLog
from fogmqtt.core.scheduling.events import (
    BrokerLost,
    DeviceDraining,
    DeviceJoined,
    DeviceLost,
    DeviceRefuted,
    Event,
    JobCancelled,
    JobSubmitted,
    ResultArrived,
    Tick,
    TileAccepted,
    TileArbitrated,
    TileFailed,
    TileRejected,
)
from fogmqtt.core.scheduling.leases import Leases
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.progress import JobState, Progress
from fogmqtt.core.scheduling.state import ActiveJob, Lease, SpotCheckState

_TileEvent = TileAccepted | ResultArrived | TileFailed | TileRejected


class Scheduler:
    """A state machine: events in, actions out. Not for use by several threads.

    `now` is in seconds of any clock that does not go back. No order of events raises, except
    JobSubmitted with a job that cannot be.
    """

    def __init__(self, policy: Policy) -> None:
        self._books = Leases(policy)
        self._story = EventLog(0.0)

    # -- what the gateway asks ----------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take note of a fact. Returns what is to be done, in this order.

        Raises ValueError for a JobSubmitted without tiles, with a tile without pixels, with
        twins or done tiles that cannot be, or with the id of a job that is known; nothing has
        changed then.
        """
        books = self._books
        books.now = max(now, books.now)
        books.fleet.speeds.now = books.now
        books.actions = []
        # What arrived is honoured before what is overdue: late is not wrong.
        self._apply(event)
        while (sleeper := books.timers.due(books.now)) is not None:
            books.ring(sleeper)
        if books.doubtful:
            spot_checks.give_up(books)
        books.place()
        return books.actions

    def next_wakeup(self) -> float | None:
        """When `handle` must be called again, with Tick if nothing else happened by then."""
        return self._books.timers.next()

    def ready_devices(self) -> frozenset[str]:
        """Those that may be given tiles, on probation or not."""
        return frozenset(one.id for one in self._books.fleet.devices.values() if one.ready)

    def quarantined(self) -> frozenset[str]:
        """Those that get no tiles because of what they did, online or not."""
        return frozenset(one.id for one in self._books.fleet.devices.values() if one.quarantined)

    def progress(self, job: str) -> Progress:
        """How far a job is, until `forget`; of ended jobs the last 256 are kept.

        Raises KeyError for a job that is not known, was cancelled or forgotten.
        """
        running = self._books.jobs.get(job)
        return running.progress() if running else self._books.ended[job].progress

    def story(self, job: str) -> tuple[str, ...]:
        """What went wrong with a job, oldest first, bounded. Raises KeyError as `progress`."""
        running = self._books.jobs.get(job)
        return running.story.lines() if running else self._books.ended[job].story

    def fleet_story(self) -> tuple[str, ...]:
        """What was told that fits no running job or known device, oldest first, bounded."""
        return self._story.lines()

    def forget(self, job: str) -> None:
        """Drop what is kept of an ended job; its late results are of an unknown job then."""
        self._books.ended.pop(job, None)

    def check(self) -> None:
        """Raises AssertionError where the state contradicts itself. For tests."""
        invariants.check(self._books)

    # -- events -------------------------------------------------------------------------------

    def _apply(self, event: Event) -> None:
        match event:
            case ResultArrived():
                self._result(event)
            case TileAccepted():
                self._accepted(event)
            case TileFailed():
                self._failed(event)
            case TileRejected():
                self._returned(event)
            case JobSubmitted():
                self._submitted(event)
            case JobCancelled(job):
                self._cancelled(job)
            case DeviceJoined():
                self._joined(event)
            case DeviceLost(device, reason):
                self._lost(device, reason)
            case DeviceDraining(device):
                self._draining(device)
            case BrokerLost():
                self._broker_lost()
            case TileArbitrated():
                self._arbitrated(event)
            case DeviceRefuted():
                self._disproved(event)
            case Tick():
                pass
            case _:
                assert_never(event)

    def _submitted(self, event: JobSubmitted) -> None:
        books = self._books
        if event.job in books.jobs or event.job in books.ended:
            raise ValueError(f"job {event.job!r} is known already; each needs an id of its own")
        job = ActiveJob.submitted(event, books.now)
        books.open(job)
        books.settle(job)

    def _cancelled(self, name: str) -> None:
        job = self._books.jobs.get(name)
        if job is None:
            self._note(f"job {name} was cancelled and is not running")
            return
        self._books.close(job)

    def _joined(self, event: DeviceJoined) -> None:
        books = self._books
        known = books.fleet.get(event.device)
        if known is not None and known.boot != event.boot:
            books.take_all(known, "it restarted")
            known.void = []
        broker_outage.give_again(books, books.fleet.join(event))

    def _lost(self, name: str, reason: str) -> None:
        device = self._books.fleet.get(name)
        if device is None:
            self._note(f"{name} was lost and had never joined: {reason}")
            return
        self._books.fleet.lose(device)
        self._books.take_all(device, reason)

    def _draining(self, name: str) -> None:
        device = self._books.fleet.get(name)
        if device is None:
            self._note(f"{name} is draining and had never joined")
            return
        self._books.fleet.drain(device)

    def _broker_lost(self) -> None:
        broker_outage.take_all_back(self._books)
        for job in self._books.jobs.values():
            job.story.tell(self._books.now, "we lost the broker and took every lease back")

    def _accepted(self, event: TileAccepted) -> None:
        lease = self._lease(event)
        if lease is None:
            self._stray(event, "accepted")
            return
        self._hear(lease)
        if lease.live and not lease.accepted:
            self._books.accept(lease)

    def _result(self, event: ResultArrived) -> None:
        lease = self._lease(event)
        if lease is None:
            self._drop(event, self._why_unknown(event))
            return
        self._hear(lease)
        if lease.device in lease.tile.job.refuted:
            self._drop(event, "disproved")
            return
        if not lease.answered:
            self._measure(lease, event)
        if lease.tile.done:
            lease.tile.job.duplicates += 1
            self._drop(event, "duplicate")
            return
        lease.digest = event.digest
        if lease.tile.is_check_tile:
            self._second_opinion(event, lease)
        elif spot_checks.is_refuted(lease):
            self._drop(event, "disproved")
            spot_checks.refute(self._books, lease.device, str(lease.tile), lease.tile.job)
        else:
            self._books.keep(lease)

    def _second_opinion(self, event: ResultArrived, lease: Lease) -> None:
        if spot_checks.is_wanted(lease):
            # Nobody merges it: the digest is all that matters.
            self._drop(event, "second opinion")
            spot_checks.compare(self._books, lease)
            return
        self._drop(event, "not wanted")

    def _arbitrated(self, event: TileArbitrated) -> None:
        job = self._books.jobs.get(event.job)
        tile = job.tile(event.tile) if job else None
        check = tile.check if tile else None
        if check is None or check.state is not SpotCheckState.DISPUTED:
            self._note(f"tile {event.tile} of {event.job} was arbitrated and is not disputed")
            return
        spot_checks.arbitrate(self._books, check, event)

    def _disproved(self, event: DeviceRefuted) -> None:
        if self._books.fleet.get(event.device) is None:
            self._note(f"{event.device} was disproved and had never joined: {event.reason}")
        job = self._books.jobs.get(event.job)
        spot_checks.refute(self._books, event.device, event.reason, job)

    def _failed(self, event: TileFailed) -> None:
        lease = self._lease(event)
        if lease is None or lease.answered:
            self._stray(event, "failed", f": {event.reason}")
            return
        books, tile = self._books, lease.tile
        lease.answered = True
        self._hear(lease)
        books.release(lease)
        books.tell(lease, f"failed: {event.reason}")
        lease.failed = not lease.struck
        if tile.kept is not None:
            books.strike_failed(tile, tile.kept)
        if tile.done or lease.blamed or lease.device in tile.job.refuted:
            return
        tile.blame_failure(lease.device, event.reason)
        sentence = failure_policy.on_failures(tile, books.fleet, books.policy)
        sentence = sentence or failure_policy.on_losses(tile, books.fleet, books.policy)
        books.judge(tile, sentence, books.policy.retry_after(tile.failures))

    def _returned(self, event: TileRejected) -> None:
        lease = self._lease(event)
        if lease is None or lease.answered:
            self._stray(event, "returned")
            return
        lease.answered = True
        self._hear(lease)
        self._books.pause(lease.device)
        if not lease.live:
            return
        self._books.release(lease)
        if lease.tile.is_check_tile:
            lease.tile.excluded |= {lease.device}
        self._books.again(lease.tile)

    # -- helpers ------------------------------------------------------------------------------

    def _lease(self, event: _TileEvent) -> Lease | None:
        """What the event speaks of, if that device was ever granted that attempt."""
        job = self._books.jobs.get(event.job)
        tile = job.tile(event.tile) if job else None
        return tile.lease(event.attempt, event.device) if tile else None

    def _hear(self, lease: Lease) -> None:
        device = self._books.fleet.get(lease.device)
        if device is not None:
            self._books.fleet.hear(device, self._books.now)

    def _measure(self, lease: Lease, event: ResultArrived) -> None:
        lease.answered = True
        if not result_timings.measure(self._books, lease, event):
            result_timings.distrust(self._books, lease, event)

    def _why_unknown(self, event: ResultArrived) -> str:
        """Why a result is dropped that belongs to no lease of a running job."""
        ended = self._books.ended.get(event.job)
        if ended is None:
            return "never leased" if event.job in self._books.jobs else "unknown job"
        return "duplicate" if ended.progress.state is JobState.FINISHED else "the job failed"

    def _drop(self, event: ResultArrived, reason: str) -> None:
        action = DropResult(event.job, event.tile, event.attempt, event.device, reason)
        self._books.act(action)

    def _stray(self, event: _TileEvent, what: str, why: str = "") -> None:
        where = f"tile {event.tile} of {event.job} (attempt {event.attempt})"
        self._note(f"{event.device} {what} {where}, which it does not hold{why}")

    def _note(self, text: str) -> None:
        self._story.tell(self._books.now, text)
