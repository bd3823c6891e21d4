"""Decides which device works on which tile, and how to react when it does not.

Rule 1. Facts come in through `handle` only; commands go out as its return value.

Rule 2. Nothing in core does I/O, reads a clock, draws a random number or sees a pixel.

Rule 3. Results are idempotent: the first valid result of a tile counts, whichever attempt it
belongs to and however late it comes.

Rule 4. A fault counts once against the tile, the device or both. The loss of the broker counts
against nobody.

Rule 5. The scheduler ignores the results of a device that gave a wrong one: see `spot_checks`.
"""

from __future__ import annotations

from typing import assert_never

from fogmqtt.core.scheduling import (
    broker_outage,
    failure_policy,
    invariants,
    spot_checks,
)
from fogmqtt.core.scheduling.actions import Action, DistrustTimings, DropResult
from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.event_log import EventLog
from fogmqtt.core.scheduling.events import (
    Attempt,
    BrokerLost,
    DeviceDraining,
    DeviceJoined,
    DeviceLost,
    DeviceRefuted,
    DeviceReported,
    Event,
    JobCancelled,
    JobSubmitted,
    LinkConfirmed,
    ResultArrived,
    Tick,
    TileAccepted,
    TileArbitrated,
    TileFailed,
    TileRejected,
    TileSent,
)
from fogmqtt.core.scheduling.leases import OVERTAKEN_S, LeaseTable
from fogmqtt.core.scheduling.live import LiveDevice, live_devices
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.progress import JobState, Progress
from fogmqtt.core.scheduling.state import ActiveJob, Lease, SpotCheckState


class Scheduler:
    """A state machine: events in, actions out. Not thread-safe.

    `now` is in seconds of any clock that does not go back. No sequence of events raises, except
    JobSubmitted with an invalid job.

    With `sends_reported` the gateway reports by TileSent when a tile is on the wire, and the
    device's time counts from then on. Without it a tile counts as sent when it is granted.

    With `confirms_link` no device is judged by its silence before the gateway has answered
    ConfirmLink with LinkConfirmed. Without it the gateway's own link always works.
    """

    def __init__(
        self, policy: Policy, *, sends_reported: bool = False, confirms_link: bool = False
    ) -> None:
        self._table = LeaseTable(policy, sends_reported=sends_reported, confirms_link=confirms_link)
        self._fleet_log = EventLog(0.0)

    # -- what the gateway asks ----------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Action]:
        """Apply an event. Returns what must be done, in this order.

        Raises ValueError for a JobSubmitted without tiles, with a tile without pixels, with invalid
        check tiles or done tiles, or with the id of a known job. The state is unchanged then.
        """
        table = self._table
        table.advance(now)
        table.actions = []
        # Arrivals are handled before time-outs: a late result is still a valid result. What
        # arrived after this event and before `now` may not have been handled yet.
        self._apply(event)
        table.fire_timers(self._arrival(event))
        spot_checks.drop_hopeless_checks(table)
        table.place()
        return table.actions

    def next_wakeup(self) -> float | None:
        """When `handle` must be called again, with Tick if nothing else happens before."""
        return self._table.timers.next()

    def ready_devices(self) -> frozenset[str]:
        """Devices that may be given tiles, on probation or not."""
        return frozenset(one.id for one in self._table.fleet.devices.values() if one.ready)

    def mute(self) -> frozenset[str]:
        """Devices that were given a tile and have never sent a message about one."""
        return frozenset(one.id for one in self._table.fleet.devices.values() if one.mute)

    def quarantined(self) -> frozenset[str]:
        """Devices that get no tiles because of their faults, online or not."""
        return frozenset(one.id for one in self._table.fleet.devices.values() if one.quarantined)

    def estimate_s(self, job: JobSubmitted, now: float) -> float | None:
        """The expected seconds until this job would be done if it were submitted at `now`.

        It counts the devices that could do the job now, and their present work. None where no such
        device is there, or where none was measured with this kind of work. Nothing changes; the
        job's id does not matter. Costs O(tiles + devices). Raises ValueError as `handle` does.
        """
        table = self._table
        table.advance(now)
        return table.placement.estimate_s(ActiveJob.submitted(job, table.now), table.now)

    def learn_link(self, bytes_per_s: float) -> None:
        """Learn the rate of the gateway's own link, which bounds the bytes in flight."""
        policy = self._table.policy
        seconds = min(policy.seconds_in_flight, self._table.fleet.most_tile_s)
        limit = max(seconds * bytes_per_s, policy.min_bytes_in_flight)
        self._table.fleet.max_bytes_in_flight = min(limit, policy.max_bytes_in_flight)

    def limit_tiles(self, seconds: float) -> None:
        """Let no tile take longer than this if it can be halved; infinity for no such limit.

        Whoever waits for a worker then waits no longer, and neither does what is on the link.
        """
        self._table.fleet.most_tile_s = max(seconds, self._table.policy.least_s)

    def holds(self, job: str, tile: int, attempt: int, device: str) -> bool:
        """Whether the device should still get this tile. Ask this before publishing it."""
        lease = self._lease(Attempt(job, tile, attempt, device))
        return lease is not None and lease.live

    def live_devices(self) -> tuple[LiveDevice, ...]:
        """Return all known devices as they are now, to show them."""
        return live_devices(self._table.fleet.devices.values())

    def sent_at(self, job: str, tile: int, attempt: int, device: str) -> float | None:
        """When a tile was sent to a device; None if that is not known."""
        lease = self._lease(Attempt(job, tile, attempt, device))
        return lease.sent_at if lease is not None and lease.is_sent else None

    def progress(self, job: str) -> Progress:
        """The progress of a job, until `forget`. The last 256 ended jobs are kept.

        Raises KeyError for a job that is unknown, cancelled or forgotten.
        """
        running = self._table.jobs.get(job)
        return running.progress() if running else self._table.ended[job].progress

    def event_log(self, job: str) -> tuple[str, ...]:
        """What went wrong with a job, oldest first, bounded. Raises KeyError as `progress` does."""
        running = self._table.jobs.get(job)
        return running.event_log.lines() if running else self._table.ended[job].event_log

    def fleet_event_log(self) -> tuple[str, ...]:
        """Messages about unknown jobs and devices, oldest first, bounded."""
        return self._fleet_log.lines()

    def forget(self, job: str) -> None:
        """Forget an ended job. Its late results belong to an unknown job from now on."""
        self._table.ended.pop(job, None)

    def check(self) -> None:
        """Raise AssertionError where the state contradicts itself. For tests."""
        invariants.check(self._table)

    # -- events -------------------------------------------------------------------------------

    def _apply(self, event: Event) -> None:
        match event:
            case ResultArrived():
                self._result(event)
            case TileSent():
                self._sent(event)
            case TileAccepted():
                self._accepted(event)
            case TileFailed():
                self._failed(event)
            case TileRejected():
                self._rejected(event)
            case JobSubmitted():
                self._submitted(event)
            case JobCancelled():
                self._cancelled(event)
            case DeviceJoined():
                self._joined(event)
            case DeviceLost(device, reason):
                self._lost(device, reason)
            case DeviceDraining(device):
                self._draining(device)
            case DeviceReported(device, held):
                self._reported(device, held)
            case BrokerLost():
                self._broker_lost()
            case LinkConfirmed(at):
                self._table.confirm_link(at)
            case TileArbitrated():
                self._arbitrated(event)
            case DeviceRefuted():
                self._refuted(event)
            case Tick():
                pass
            case _:
                assert_never(event)

    def _submitted(self, event: JobSubmitted) -> None:
        table = self._table
        if event.job in table.jobs or event.job in table.ended:
            raise ValueError(f"job {event.job!r} is known already; each needs an id of its own")
        job = ActiveJob.submitted(event, table.now)
        table.add_job(job)
        table.finish_if_done(job)

    def _cancelled(self, event: JobCancelled) -> None:
        job = self._table.jobs.get(event.job)
        if job is None:
            self._log_fleet(f"job {event.job} was cancelled and is not running")
            return
        if event.is_late:
            self._table.doubt_silent(job)
        self._table.remove_job(job)

    def _joined(self, event: DeviceJoined) -> None:
        table = self._table
        known = table.fleet.get(event.device)
        if known is not None and known.boot != event.boot:
            table.count_death(known)
        elif known is not None and not known.online:
            table.count_survival(known)
        broker_outage.restore_leases(table, table.fleet.join(event))

    def _lost(self, name: str, reason: str) -> None:
        device = self._table.fleet.get(name)
        if device is None:
            self._log_fleet(f"{name} was lost and had never joined: {reason}")
            return
        self._table.fleet.lose(device)
        self._table.release_all(device, reason)

    def _draining(self, name: str) -> None:
        device = self._table.fleet.get(name)
        if device is None:
            self._log_fleet(f"{name} is draining and had never joined")
            return
        device.draining = True
        self._table.fleet.change_readiness(device)

    def _reported(self, name: str, held: int) -> None:
        device = self._table.fleet.get(name)
        if device is None:
            return
        device.checked_in_at = self._table.now
        self._table.fleet.report_held(device, held, self._table.now)
        self._table.judge_silences()

    def _broker_lost(self) -> None:
        broker_outage.release_all_leases(self._table)
        for job in self._table.jobs.values():
            job.event_log.add(self._table.now, "we lost the broker and took every lease back")

    def _sent(self, event: TileSent) -> None:
        lease = self._lease(event)
        if lease is not None and lease.live and not lease.is_sent:
            self._table.send(lease)

    def _accepted(self, event: TileAccepted) -> None:
        lease = self._lease(event)
        if lease is None:
            self._log_unknown(event, "accepted")
            self._record_answer(event)
            return
        at = max(self._arrival(event), lease.starts_at)
        self._record_message(lease, at)
        if lease.live and not lease.accepted:
            self._table.accept(lease, at)

    def _result(self, event: ResultArrived) -> None:
        lease = self._lease(event)
        if lease is None:
            self._drop(event, self._unknown_reason(event))
            self._record_answer(event)
            return
        device = self._table.fleet.get(lease.device)
        if device is not None and not lease.answered:
            self._table.silences.forget(device)
        self._record_message(lease, self._arrival(event))
        if lease.device in lease.tile.job.refuted:
            self._drop(event, "refuted")
            return
        if not lease.answered:
            self._measure(lease, event)
        if lease.tile.done:
            lease.tile.job.duplicates += 1
            self._drop(event, "duplicate")
            return
        lease.digest = event.digest
        if lease.tile.is_check_tile:
            self._check_result(event, lease)
        elif spot_checks.is_refuted(lease):
            self._drop(event, "refuted")
            spot_checks.refute(self._table, lease.device, str(lease.tile), lease.tile.job)
        else:
            self._table.keep(lease)

    def _check_result(self, event: ResultArrived, lease: Lease) -> None:
        if spot_checks.is_wanted(lease):
            # Only the digest matters: nobody merges this result.
            self._drop(event, "check result")
            spot_checks.compare(self._table, lease)
            return
        self._drop(event, "not wanted")

    def _arbitrated(self, event: TileArbitrated) -> None:
        job = self._table.jobs.get(event.job)
        tile = job.tile(event.tile) if job else None
        check = tile.check if tile else None
        if check is None or check.state is not SpotCheckState.DISPUTED:
            self._log_fleet(f"tile {event.tile} of {event.job} was arbitrated and is not disputed")
            return
        spot_checks.arbitrate(self._table, check, event)

    def _refuted(self, event: DeviceRefuted) -> None:
        if self._table.fleet.get(event.device) is None:
            self._log_fleet(f"{event.device} was refuted and had never joined: {event.reason}")
        job = self._table.jobs.get(event.job)
        spot_checks.refute(self._table, event.device, event.reason, job)

    def _failed(self, event: TileFailed) -> None:
        lease = self._lease(event)
        if lease is None or lease.answered:
            self._log_unknown(event, "failed", f": {event.reason}")
            self._record_answer(event)
            return
        table, tile = self._table, lease.tile
        lease.answered = True
        self._record_message(lease, self._table.now)
        table.release(lease)
        table.log(lease, f"failed: {event.reason}")
        lease.failed = not lease.counted
        if tile.kept is not None:
            table.record_failed(tile, tile.kept)
        if tile.done or lease.blamed or lease.device in tile.job.refuted:
            return
        tile.blame_failure(lease.device, event.reason)
        failure = failure_policy.on_failures(tile, table.fleet, table.policy)
        failure = failure or failure_policy.on_losses(tile, table.fleet, table.policy)
        table.retry_or_fail(tile, failure, table.policy.retry_after(tile.failures))

    def _rejected(self, event: TileRejected) -> None:
        lease = self._lease(event)
        if lease is None or lease.answered:
            self._log_unknown(event, "returned")
            self._record_answer(event)
            return
        lease.answered = True
        self._record_message(lease, self._table.now)
        self._table.pause(lease.device)
        if not lease.live:
            return
        self._table.release(lease)
        if lease.tile.is_check_tile:
            lease.tile.excluded |= {lease.device}
        self._table.requeue(lease.tile)

    # -- helpers ------------------------------------------------------------------------------

    def _lease(self, event: Attempt) -> Lease | None:
        """The lease that the event belongs to, if that device was ever granted that attempt."""
        job = self._table.jobs.get(event.job)
        tile = job.tile(event.tile) if job else None
        return tile.lease(event.attempt, event.device) if tile else None

    def _arrival(self, event: Event) -> float:
        """When the event happened, which may be before it is handled."""
        at = event.at if isinstance(event, TileAccepted | ResultArrived) else None
        return self._table.now if at is None else min(at, self._table.now)

    def _record_answer(
        self, event: TileAccepted | ResultArrived | TileFailed | TileRejected
    ) -> None:
        """The device answered for a tile that it does not hold any more, so it is not mute."""
        device = self._table.fleet.get(event.device)
        if device is not None:
            self._table.fleet.record_message(device, self._arrival(event))

    def _record_message(self, lease: Lease, at: float) -> None:
        device = self._table.fleet.get(lease.device)
        if device is not None:
            self._table.fleet.record_message(device, at)
            self._table.judge_silences()

    def _measure(self, lease: Lease, event: ResultArrived) -> None:
        """Learn from a result how fast its device is, and which other results were lost."""
        lease.answered = True
        table, device, kind = self._table, self._table.fleet.get(lease.device), lease.tile.job.kind
        if device is None:
            return
        is_first = not table.fleet.service_times.measured(device, kind)
        compute_s, start_s = event.compute_s, event.start_s
        if not self._is_possible(lease, event):
            compute_s = start_s = None
            self._distrust(device, lease, event)
        at = max(self._arrival(event), lease.starts_at)
        table.fleet.learn(device, lease, at, compute_s or 0.0, start_s or 0.0)
        for other in _overtaken(device, lease):
            table.shorten_lease(other, OVERTAKEN_S)
        if is_first:
            # Their leases were made for an unmeasured device.
            for other in device.leases.values():
                if other.accepted and other.tile.job.kind == kind:
                    table.shorten_lease(other, table.lease_s(other))

    def _is_possible(self, lease: Lease, event: ResultArrived) -> bool:
        """Whether the device can have spent that long, possibly since an earlier lease."""
        parts = [part for part in (event.compute_s, event.start_s) if part is not None]
        most_s = self._arrival(event) - lease.tile.first_granted(lease.device)
        return all(part >= 0 for part in parts) and sum(parts) <= most_s

    def _distrust(self, device: DeviceState, lease: Lease, event: ResultArrived) -> None:
        """Log an impossible claim; report it once per start of the device."""
        start = f" and {event.start_s} s of starting" if event.start_s else ""
        within_s = self._arrival(event) - lease.granted_at
        claim = f"claims {event.compute_s} s of work{start} within {within_s:.2f} s"
        self._table.log(lease, claim)
        if device.distrusted != device.boot:
            device.distrusted = device.boot
            self._table.emit(DistrustTimings(device.id, claim))

    def _unknown_reason(self, event: ResultArrived) -> str:
        """Why a result that belongs to no lease of a running job is dropped."""
        ended = self._table.ended.get(event.job)
        if ended is None:
            return "never leased" if event.job in self._table.jobs else "unknown job"
        return "duplicate" if ended.progress.state is JobState.FINISHED else "the job failed"

    def _drop(self, event: ResultArrived, reason: str) -> None:
        action = DropResult(event.job, event.tile, event.attempt, event.device, reason)
        self._table.emit(action)

    def _log_unknown(self, event: Attempt, what: str, why: str = "") -> None:
        where = f"tile {event.tile} of {event.job} (attempt {event.attempt})"
        self._log_fleet(f"{event.device} {what} {where}, which it does not hold{why}")

    def _log_fleet(self, text: str) -> None:
        self._fleet_log.add(self._table.now, text)


def _overtaken(device: DeviceState, lease: Lease) -> list[Lease]:
    """Leases of earlier tiles that no worker can be busy with: their results were lost."""
    if lease.tile.first_granted(device.id) < lease.granted_at:
        return []  # the tile may have been begun under an earlier lease
    older = [
        other
        for other in device.leases.values()
        if other.accepted and other.starts_at < lease.starts_at
    ]
    return older[: max(0, len(older) - device.workers + 1)]
