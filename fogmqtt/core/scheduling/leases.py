"""The consequences of an event: leases granted and revoked, blame, quarantine, the end of a job.

A LeaseTable owns the running jobs, the fleet and the timers, so that a tile and its device never
disagree about a lease. It collects the resulting commands in `actions`.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict

from fogmqtt.core.scheduling import failure_policy
from fogmqtt.core.scheduling.actions import (
    Action,
    CancelTile,
    ConfirmLink,
    FailJob,
    FinishJob,
    KeepResult,
    Quarantine,
    ReportStarved,
    SendTile,
    SplitTile,
)
from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.doubts import Doubts
from fogmqtt.core.scheduling.fleet import Fleet
from fogmqtt.core.scheduling.placement import Placement
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.progress import Ended, JobState
from fogmqtt.core.scheduling.silences import Silences
from fogmqtt.core.scheduling.speculation import Speculation
from fogmqtt.core.scheduling.state import ActiveJob, Lease, SpotCheckState, TileState
from fogmqtt.core.scheduling.timers import Timers

#: Ended jobs whose progress and event log are kept until somebody asks.
_ENDED_JOBS = 256
#: Tolerance for `accepted` messages that arrive out of order, in seconds.
OVERTAKEN_S = 1.0


class PlacementTimer:
    """Wakes the scheduler to place waiting tiles and to check for stragglers."""

    wake_at: float | None = None


AnyTimer = Lease | TileState | DeviceState | ActiveJob | PlacementTimer


class LeaseTable:
    """The state of the scheduler at `now`."""

    def __init__(
        self, policy: Policy, *, sends_reported: bool = False, confirms_link: bool = False
    ) -> None:
        self.policy = policy
        self._sends_reported = sends_reported
        self._confirms_link = confirms_link
        #: All that the broker sent before this time is handled.
        self._confirmed_at = math.inf if not confirms_link else -math.inf
        #: The link must be confirmed at a later time, and the gateway was asked for that.
        self._confirming = False
        #: Leases that ran out, and wait until the link is confirmed.
        self._overdue: list[Lease] = []
        self.now = -math.inf
        #: All timers up to this time have fired.
        self.fired_until = -math.inf
        self.actions: list[Action] = []
        self.jobs: dict[str, ActiveJob] = {}
        self.ended: OrderedDict[str, Ended] = OrderedDict()
        self.fleet = Fleet(policy)
        self.placement = Placement(policy, self.fleet, self.grant, self.split)
        self._speculation = Speculation(
            policy,
            self.fleet,
            lambda job: self.placement.left_s(job, self.now),
            self.grant,
            self.take_back,
            self.is_link_confirmed,
        )
        self._doubts = Doubts(policy, self.fleet, self.doubt)
        self.timers: Timers[AnyTimer] = Timers()
        self.placement_timer = PlacementTimer()
        self.silences = Silences()
        #: Jobs to be reported as starved at the end of this event.
        self._starving: list[ActiveJob] = []

    def advance(self, now: float) -> None:
        """Set the clock, which does not go back."""
        self.now = self.fleet.service_times.now = max(now, self.now)

    def fire_timers(self, until: float) -> None:
        """Handle what is overdue at `until`."""
        self.fired_until = max(until, self.fired_until)
        while (timer := self.timers.due(until)) is not None:
            self._fire(timer)

    def emit(self, action: Action) -> None:
        self.actions.append(action)

    def log(self, lease: Lease, what: str) -> None:
        """Add a line to the job's event log."""
        tile = lease.tile
        tile.job.event_log.add(self.now, f"{lease.device} {what} ({tile}, attempt {lease.attempt})")

    def add_job(self, job: ActiveJob) -> None:
        """Add a job."""
        self.jobs[job.id] = job
        self.placement.add(job)
        # The next check for starving jobs includes this one.
        self.fleet.readiness_changed = True

    # -- leases -------------------------------------------------------------------------------

    def grant(self, tile: TileState, device: DeviceState) -> None:
        """Lease a waiting tile, or a tile that one other device holds."""
        accept_timeout_s = self.fleet.accept_timeout_s(device)
        exclusive = failure_policy.is_suspect(tile, self.policy)
        lease = Lease(tile, len(tile.grants) + 1, device.id, self.now, accept_timeout_s, exclusive)
        tile.job.grant(lease)
        if self._sends_reported:
            self.timers.set(lease, self.now + self.policy.send_s)
        else:
            lease.sent_at = self.now
            self.timers.set(lease, self.now + accept_timeout_s)
        self.fleet.take(lease)
        if len(tile.leases) > 1:
            self.log(lease, f"gets a copy, since {tile.leases[0].device} is slow")
        lease_s = accept_timeout_s + self.lease_s(lease)
        self.emit(SendTile(tile.job.id, tile.index, lease.attempt, device.id, lease_s))

    def split(self, tile: TileState) -> TileState:
        """Replace a waiting tile by its two halves. Returns the first."""
        first, second = tile.job.split(tile, exclusive=failure_policy.is_suspect(tile, self.policy))
        self.emit(SplitTile(tile.job.id, tile.index, first.index, second.index))
        return first

    def send(self, lease: Lease) -> None:
        """The tile is on the wire: start its time to be accepted."""
        self.fleet.record_send(lease, self.now)
        self.timers.set(lease, self.now + lease.accept_timeout_s)

    def accept(self, lease: Lease, at: float) -> None:
        """The device holds the tile since `at`: start its working time."""
        lease.accepted, lease.accepted_at, lease.overdue_since = True, at, None
        self.fleet.bytes_in_flight -= lease.tile.nbytes
        device = self.fleet.devices[lease.device]
        if lease.is_sent:
            self.fleet.record_accept(device, lease, at - lease.sent_at)
        else:
            self.fleet.record_send(lease, at)
        begins_at = max(self.now, device.freed_at(lease))
        self.timers.set(lease, begins_at + self.lease_s(lease))
        for other in device.leases.values():
            if not other.accepted and other.sent_at < lease.sent_at:
                # Links keep order: an earlier tile that has not arrived is lost.
                other.overtaken_at = min(other.overtaken_at, self.now)
                self.timers.set(other, self._accept_by(other))

    def shorten_lease(self, lease: Lease, within_s: float) -> None:
        """Let the lease end within so many seconds."""
        if lease.wake_at is not None:
            self.timers.set(lease, min(lease.wake_at, self.now + within_s))

    def lease_s(self, lease: Lease) -> float:
        """A multiple of the expected time of a held tile, with the queue ahead of it."""
        device, times = self.fleet.devices[lease.device], self.fleet.service_times
        if times.measured(device, lease.tile.job.kind):
            return self.policy.lease(times.remaining_s(device, lease))
        rounds = 1 + list(device.leases).index(lease.tile) // device.workers
        return self.policy.first_lease_s * rounds

    def release(self, lease: Lease) -> None:
        """End a lease if it is live. Its late result is still accepted."""
        if not lease.live:
            return
        lease.wake_at = None
        lease.tile.leases.remove(lease)
        self.fleet.give_back(lease)

    def revoke(self, lease: Lease, *, expired: bool = False) -> None:
        """End a live lease and tell the device, which may be working on it."""
        self.fleet.learn_at_least(lease, self.now, hangs=expired)
        self.release(lease)
        tile = lease.tile
        self.emit(CancelTile(tile.job.id, tile.index, lease.attempt, lease.device, expired))

    def take_back(self, lease: Lease, why: str) -> None:
        """Revoke a lease and let its tile wait for any device again."""
        self.log(lease, why)
        self.revoke(lease)
        self.requeue(lease.tile)

    def keep(self, lease: Lease) -> None:
        """Accept this lease's result as the tile's result."""
        tile, job = lease.tile, lease.tile.job
        if not lease.live:
            self.log(lease, "answered late, and first")
        self.release(lease)
        self.withdraw(tile)
        job.credit(lease)
        self.emit(KeepResult(job.id, tile.index, lease.attempt, lease.device))
        self.record_failed(tile, lease)
        if tile.check is not None and tile.check.state is SpotCheckState.OPEN:
            self.queue_tile(tile.check.check_tile)
        self.finish_if_done(job)

    def withdraw(self, tile: TileState) -> None:
        """End all leases of a tile and take it out of its queue."""
        for lease in list(tile.leases):
            self.revoke(lease)
        tile.job.dequeue(tile)
        tile.wake_at = None

    def finish_if_done(self, job: ActiveJob) -> None:
        """End the job if every tile is done and every check is decided."""
        if job.remaining > 0:
            return
        job.starved_since = job.wake_at = None
        if not job.undecided:
            self.remove_job(job, JobState.FINISHED)
            self.emit(FinishJob(job.id, self.now - job.submitted_at))

    # -- the gateway's own link ---------------------------------------------------------------

    def is_link_confirmed(self) -> bool:
        """Whether the link works, so that devices may be judged. If not, the gateway is asked."""
        if self._confirmed_at >= self.now - self.policy.confirmed_s:
            return True
        self._ask_to_confirm()
        return False

    def confirm_link(self, at: float) -> None:
        """All that arrived before `at` is handled: judge the leases that ran out by then."""
        self._confirming = False
        self._confirmed_at = max(at, self._confirmed_at)
        overdue, self._overdue = self._overdue, []
        for lease in overdue:
            if lease.overdue_since is None or not lease.live:
                continue
            if lease.overdue_since <= at:
                self.timers.set(lease, self.now)
            else:
                self._overdue.append(lease)
                self._ask_to_confirm()

    def _ask_to_confirm(self) -> None:
        if not self._confirming:
            self._confirming = True
            self.emit(ConfirmLink())

    def _waits_for_link(self, lease: Lease) -> bool:
        """Whether a lease that runs out now must wait until the link is confirmed."""
        if not self._confirms_link or lease.overdue_since is not None:
            return False
        lease.overdue_since = self.now
        self._overdue.append(lease)
        self.timers.set(lease, self.now + self.policy.confirm_s)
        self._ask_to_confirm()
        return True

    # -- what is overdue ------------------------------------------------------------------------

    def _fire(self, timer: AnyTimer) -> None:
        """Handle a timer that is due."""
        match timer:
            case Lease():
                self._run_out(timer)
            case TileState():
                self._enqueue(timer)
            case DeviceState():
                self.fleet.resume(timer)
            case ActiveJob():
                self._starving.append(timer)
            case PlacementTimer():
                pass  # stragglers are looked for after every event

    def _run_out(self, lease: Lease) -> None:
        if not lease.is_sent:
            self._unsent(lease)
            return
        if not lease.accepted:
            self._unaccepted(lease)
            return
        if self._waits_for_link(lease):
            return
        tile, waited_s = lease.tile, self.now - lease.granted_at
        lease.blamed = lease.counted = True
        tile.blame_expiry(lease.device, waited_s)
        self.log(lease, f"did not answer within {waited_s:.1f} s")
        self.revoke(lease, expired=True)
        device = self.fleet.devices[lease.device]
        if not self._is_alone(device):
            self._note_silence(device, f"did not answer for {tile}")
        failure = failure_policy.on_expiries(tile, self.policy)
        self.retry_or_fail(tile, failure or failure_policy.on_losses(tile, self.fleet, self.policy))

    def _unsent(self, lease: Lease) -> None:
        """The gateway itself was too slow, which says nothing about the device."""
        self.log(lease, f"was not sent its tile within {self.policy.send_s:g} s")
        self.revoke(lease)
        self.requeue(lease.tile)

    def _unaccepted(self, lease: Lease) -> None:
        due = self._accept_by(lease)
        if due > self.now:
            lease.overdue_since = None
            self.timers.set(lease, due)
            return
        if self._waits_for_link(lease):
            return
        tile, waited_s = lease.tile, self.now - lease.sent_at
        tile.excluded |= {lease.device}
        self.log(lease, f"did not accept within {waited_s:.1f} s")
        self.revoke(lease)
        self._record_silence(lease)
        self.requeue(tile)

    def _accept_by(self, lease: Lease) -> float:
        # A device that sends messages is alive: on a slow link its later tiles are still in
        # transit.
        spoke_at = max(lease.sent_at, self.fleet.devices[lease.device].heard_at)
        latest = lease.sent_at + max(lease.accept_timeout_s, self.policy.accept_max_s)
        return min(spoke_at + lease.accept_timeout_s, latest, lease.overtaken_at + OVERTAKEN_S)

    def _record_silence(self, lease: Lease) -> None:
        device = self.fleet.devices[lease.device]
        if lease.sent_at < device.silent_since:
            return  # sent before a silence was noticed: it belongs to that silence
        lease.counted = True
        self.fleet.record_silence(device, self.now)
        self._note_silence(device, f"did not accept {lease.tile}")

    def doubt(self, device: DeviceState, leases: list[Lease]) -> None:
        """Take back tiles that a device has not accepted, and give it none until it answers.

        It gets another one after a pause, which doubles each time.
        """
        for lease in leases:
            lease.counted = True
            lease.tile.excluded |= {device.id}
            waited_s = self.now - lease.sent_at
            self.log(lease, f"has not accepted within {waited_s:.1f} s, and others have time")
            self.revoke(lease)
        if not device.quarantined:  # or it would end with the pause
            self.timers.set(device, self.now + self.policy.accept_after(device.silences))
            self.fleet.pause_silent(device)
        self.fleet.record_silence(device, self.now)
        self._note_silence(device, f"did not accept {leases[-1].tile}")
        for lease in leases:
            self.requeue(lease.tile)

    def doubt_silent(self, job: ActiveJob) -> None:
        """Doubt the devices that have not accepted their tiles of a job whose time is over.

        Only if another device spoke after the tile was sent, or our own link may be at fault.
        """
        # The last to speak, and the last of all others.
        spoke = heapq.nlargest(2, self.fleet.devices.values(), key=lambda one: one.heard_at)
        for device in list(self.fleet.busy.values()):
            heard_at = next((one.heard_at for one in spoke if one is not device), -math.inf)
            silent = [
                lease
                for tile, lease in device.leases.items()
                if tile.job is job and not lease.accepted and lease.sent_at < heard_at
            ]
            if silent:
                self.doubt(device, silent)

    # -- tiles that wait ------------------------------------------------------------------------

    def retry_or_fail(
        self, tile: TileState, failure: str | None, pause_s: float = 0.0, *, later: bool = False
    ) -> None:
        """Fail the job with this reason. Without one, or while a copy is out, try again.

        A check tile never fails its job: another device gets it at once.
        """
        job = tile.job
        if tile.is_check_tile:
            self.queue_tile(tile)
            return
        if failure is None or tile.leases:
            self.queue_tile(tile, pause_s, later=later)
            return
        reason = failure_policy.with_event_log(failure, job.event_log.lines())
        self.remove_job(job, JobState.FAILED)
        self.emit(FailJob(job.id, reason))

    def requeue(self, tile: TileState, *, later: bool = False) -> None:
        """Let a tile wait again after its lease ended through no fault of the tile.

        It waits ahead of tiles that were never sent, or behind them if `later`. A tile that too
        many devices died of fails its job here, unless a copy is still out.
        """
        if tile.job.id in self.jobs:
            self.retry_or_fail(
                tile, failure_policy.on_losses(tile, self.fleet, self.policy), later=later
            )

    def queue_tile(self, tile: TileState, pause_s: float = 0.0, *, later: bool = False) -> None:
        """Let a tile wait for a device, unless it is leased or waits out a back-off."""
        if tile.leases or tile.wake_at is not None or tile.is_dormant:
            return
        tile.job.dequeue(tile)
        if pause_s > 0:
            self.timers.set(tile, self.now + pause_s)
        else:
            self._enqueue(tile, later=later)

    def _enqueue(self, tile: TileState, *, later: bool = False) -> None:
        tile.job.enqueue(tile, exclusive=failure_policy.is_suspect(tile, self.policy), later=later)
        self.placement.add(tile.job)

    # -- devices --------------------------------------------------------------------------------

    def record_failed(self, tile: TileState, done: Lease) -> None:
        """Blame the devices that failed a tile which another device has done."""
        for lease in tile.grants:
            if lease.failed and lease.device != done.device:
                lease.failed, lease.counted = False, True
                self.record_fault(lease.device, f"failed {tile}, which {done.device} did")

    def _note_silence(self, device: DeviceState, reason: str) -> None:
        """A device did not answer, which is a fault unless most others are silent too."""
        self.silences.add(device, reason, self.fleet.devices.values(), self.now)

    def judge_silences(self) -> None:
        """Count the silences that are faults. Call this when a device has spoken."""
        for silence in self.silences.faults(self.fleet.devices.values(), self.now):
            if not silence.device.quarantined:
                silence.device.silent_faults += 1
            self.record_fault(silence.device.id, silence.reason)

    def record_fault(self, name: str, reason: str) -> None:
        """Count a fault against a device. A run of faults puts it into quarantine."""
        device = self.fleet.get(name)
        if device is None or device.quarantined:
            return
        device.faults += 1
        if device.faults < self.policy.quarantine_after and not device.probation:
            return
        seconds = self.policy.quarantine_for(device.quarantines)
        why = f"{device.faults} faults in a row; the last: {reason}"
        self.quarantine(device, seconds, why)
        device.is_forgivable = device.silent_faults == device.faults

    def quarantine(self, device: DeviceState, seconds: float, why: str) -> None:
        """Give a device no tiles for so long, or until a longer quarantine ends."""
        if device.quarantined and device.wake_at is not None:
            seconds = max(seconds, device.wake_at - self.now)
        self.fleet.quarantine(device)
        self.timers.set(device, self.now + seconds)
        self.emit(Quarantine(device.id, seconds, why))
        for job in self.jobs.values():
            job.event_log.add(self.now, f"{device.id} is quarantined for {seconds:g} s: {why}")

    def _is_alone(self, device: DeviceState) -> bool:
        """Whether no other device is there: one that is slow or dies is better than none."""
        return not any(one.ready for one in self.fleet.devices.values() if one is not device)

    def pause(self, name: str) -> None:
        """Give no tiles for a moment to a device that rejects them."""
        device = self.fleet.get(name)
        if device is None or device.quarantined:
            return
        self.fleet.pause(device)
        self.timers.set(device, self.now + self.policy.pause_after(device.returns))

    def release_all(self, device: DeviceState, reason: str) -> None:
        """Release everything that a lost device holds, and blame what its workers had begun."""
        leases, begun = list(device.leases.values()), device.in_service()
        # A tile that was not begun cannot have killed its device.
        for lease in begun:
            lease.blamed = True
            lease.tile.blame_loss(lease, reason)
        for lease in leases:
            self.release(lease)
            lease.counted = True
            self.log(lease, f"was lost: {reason}")
        if leases and not (begun and self._is_alone(device)):
            device.lost_with_tiles = reason
        for lease in leases:
            self.requeue(lease.tile)

    def count_death(self, device: DeviceState) -> None:
        """The device came back with another boot id: what it held is gone."""
        self.release_all(device, "it restarted")
        device.held_before_loss = []
        if device.lost_with_tiles:
            self.record_fault(device.id, f"was lost with tiles in hand: {device.lost_with_tiles}")
        device.lost_with_tiles = ""

    def count_survival(self, device: DeviceState) -> None:
        """The device came back with the same boot id: only its link was down."""
        device.lost_with_tiles = ""
        self.silences.forget(device)
        self.fleet.forgive(device)
        for lease in device.held_before_loss:
            lease.survived = True
        for job in self.jobs.values():
            for tile in list(job.suspects):
                if not failure_policy.is_suspect(tile, self.policy):
                    job.dequeue(tile)
                    self._enqueue(tile)

    # -- after every event ------------------------------------------------------------------------

    def place(self) -> None:
        """Place tiles and copies, and check which jobs have no able device."""
        self._doubts.take_back(self.now)
        self._speculation.before_placement(self.now)
        wakeups = (
            self.placement.place(self.now),
            self._speculation.after_placement(self.now),
            self._doubts.next_at(self.now),
        )
        self.placement_timer.wake_at = None
        if due := [at for at in wakeups if at is not None]:
            self.timers.set(self.placement_timer, min(due))
        if self.fleet.readiness_changed:
            self.fleet.readiness_changed = False
            for job in self.jobs.values():
                self._update_starvation(job)
        while self._starving:
            self._report(self._starving.pop(0))

    def _update_starvation(self, job: ActiveJob) -> None:
        if job.remaining == 0 or self.fleet.has_use_for(job):
            job.starved_since = job.wake_at = None
        elif job.starved_since is None:
            job.starved_since = self.now
            self.timers.set(job, self.now + self.policy.starve_s)

    def _report(self, job: ActiveJob) -> None:
        since = job.starved_since
        if since is None or job.id not in self.jobs:
            return  # somebody came, or the job ended, at the last moment
        reason = failure_policy.on_starvation(job, self.fleet)
        job.event_log.add(self.now, f"starved: {reason}")
        self.emit(ReportStarved(job.id, self.now - since, reason))

    # -- ends -----------------------------------------------------------------------------------

    def remove_job(self, job: ActiveJob, state: JobState | None = None) -> None:
        """Remove a job. With a `state`, keep its final progress."""
        for lease in list(job.live_leases()):
            self.revoke(lease)
        for tile in job.tiles:
            tile.wake_at = None
        job.wake_at = None
        self.placement.remove(job)
        del self.jobs[job.id]
        if state is None:
            return
        self.ended[job.id] = Ended(job.progress(state), job.event_log.lines())
        if len(self.ended) > _ENDED_JOBS:
            self.ended.popitem(last=False)
