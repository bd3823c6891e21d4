"""Bugs that somebody could make in the scheduler. tests/mutations.py plants them one by one.

A bug names a function and the code in it that changes. tests/planting.py compares that code as
syntax: formatting and comments do not matter. `old` must occur exactly once in the function;
tests/unit/test_planted.py checks that. Whoever renames or rewrites the code of a bug must change
the bug, too. tests/property/test_scheduler.py must catch every bug.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LEASES = "fogmqtt.core.scheduling.leases"
CHECKS = "fogmqtt.core.scheduling.spot_checks"
DEVICE = "fogmqtt.core.scheduling.device"
FLEET = "fogmqtt.core.scheduling.fleet"
SPECULATION = "fogmqtt.core.scheduling.speculation"
STATE = "fogmqtt.core.scheduling.state"
OUTAGE = "fogmqtt.core.scheduling.broker_outage"
PLACEMENT = "fogmqtt.core.scheduling.placement"
SCHEDULER = "fogmqtt.core.scheduling.scheduler"
TIMERS = "fogmqtt.core.scheduling.timers"
FAILURES = "fogmqtt.core.scheduling.failure_policy"


@dataclass(frozen=True)
class Bug:
    """One change of the code of a function; `meaning` says what goes wrong.

    `old` and `new` are either one expression each, or any number of statements that follow each
    other. An empty `new` removes the statements.
    """

    name: str
    meaning: str
    module: str
    #: Its qualified name in the module.
    function: str
    old: str
    new: str

    @property
    def path(self) -> Path:
        """Where its module is, from the root of the project."""
        return Path(*self.module.split(".")).with_suffix(".py")


RESULTS = (
    Bug(
        "merged-twice",
        "a second result of a tile counts as well",
        SCHEDULER,
        "Scheduler._result",
        "lease.tile.done",
        "lease.tile.split",
    ),
    Bug(
        "late-is-wrong",
        "a result of a lease that has ended is dropped as if there had been none",
        STATE,
        "TileState.lease",
        "lease.device == device",
        "lease.device == device and lease.live",
    ),
    Bug(
        "anybody-is-believed",
        "a result counts although another device was given that attempt",
        STATE,
        "TileState.lease",
        "lease if lease.device == device else None",
        "lease",
    ),
    Bug(
        "attempts-unchecked",
        "whatever attempt a result names, it counts for the newest",
        STATE,
        "TileState.lease",
        "self.grants[attempt - 1]",
        "self.grants[-1]",
    ),
    Bug(
        "copies-work-on",
        "the loser of a hedge keeps its lease when the winner's result is kept",
        LEASES,
        "LeaseTable.withdraw",
        """
            for lease in list(tile.leases):
                self.revoke(lease)
        """,
        "",
    ),
    Bug(
        "ended-jobs-forgotten",
        "nobody knows any more how an ended job went",
        LEASES,
        "LeaseTable.remove_job",
        "state is None",
        "state is not JobState.FAILED",
    ),
    Bug(
        "overdue-before-arrived",
        "a result that came in time is looked at after its lease was ended as overdue",
        SCHEDULER,
        "Scheduler.handle",
        """
            self._apply(event)
            table.fire_timers(self._arrival(event))
        """,
        """
            table.fire_timers(self._arrival(event))
            self._apply(event)
        """,
    ),
)

LOST = (
    Bug(
        "lost-with-its-device",
        "the first tile of a device that dies waits for nobody",
        LEASES,
        "LeaseTable.release_all",
        """
            for lease in leases:
                self.requeue(lease.tile)
        """,
        """
            for lease in leases[1:]:
                self.requeue(lease.tile)
        """,
    ),
    Bug(
        "lost-when-returned",
        "a tile that was handed back waits for nobody",
        SCHEDULER,
        "Scheduler._rejected",
        "self._table.requeue(lease.tile)",
        """
            if lease.tile.is_check_tile:
                self._table.requeue(lease.tile)
        """,
    ),
    Bug(
        "lost-after-its-back-off",
        "a tile that failed is forgotten when its back-off ends",
        LEASES,
        "LeaseTable._fire",
        "self._enqueue(timer)",
        "",
    ),
    Bug(
        "lost-when-unaccepted",
        "a tile that its device never accepted waits for nobody",
        LEASES,
        "LeaseTable._unaccepted",
        "self.requeue(tile)",
        "",
    ),
    Bug(
        "lost-with-the-broker",
        "tiles taken back when the broker was lost wait for nobody",
        OUTAGE,
        "release_all_leases",
        "table.requeue(lease.tile, later=True)",
        "",
    ),
    Bug(
        "lost-when-refuted",
        "what a refuted device held waits for nobody",
        CHECKS,
        "refute",
        "table.requeue(lease.tile)",
        "",
    ),
    Bug(
        "second-half-forgotten",
        "of a tile that is split only the first half waits for a device",
        STATE,
        "ActiveJob.split",
        "self.enqueue(second, exclusive=exclusive)",
        "",
    ),
    Bug(
        "split-and-given",
        "a tile that was split stands beside its halves",
        STATE,
        "ActiveJob.split",
        "tile.done = tile.split = True",
        "tile.split = True",
    ),
    Bug(
        "back-off-outlives-its-tile",
        "a tile that was done by a late result rings when its back-off ends",
        LEASES,
        "LeaseTable.withdraw",
        "tile.wake_at = None",
        "",
    ),
    Bug(
        "restart-unnoticed",
        "a device that restarted is taken to hold what it held before",
        SCHEDULER,
        "Scheduler._joined",
        "known.boot != event.boot",
        "known.boot == event.boot != known.boot",
    ),
)

DEVICES = (
    Bug(
        "window-off-by-one",
        "a device gets one tile more than its window",
        FLEET,
        "Fleet.refresh",
        "held < self.window(device)",
        "held <= self.window(device) > 0",
    ),
    Bug(
        "window-unbounded",
        "a device with many workers gets more tiles than any device may hold",
        FLEET,
        "Fleet.window",
        "self._policy.max_window",
        "2 * self._policy.max_window",
    ),
    Bug(
        "drained-device-gets-tiles",
        "a device that is about to stop is sent tiles",
        DEVICE,
        "DeviceState.ready",
        "not self.draining",
        "True",
    ),
    Bug(
        "lost-device-gets-tiles",
        "a device that is gone is sent tiles",
        FLEET,
        "Fleet.lose",
        "device.online = False",
        "",
    ),
    Bug(
        "operators-ignored",
        "a device is sent work that it has no operator for",
        DEVICE,
        "DeviceState.suits",
        "job.operators <= self.operators",
        "True",
    ),
    Bug(
        "memory-ignored",
        "a device is sent tiles that do not fit into its memory",
        DEVICE,
        "DeviceState.suits",
        "job.required_pixels <= self.max_tile_pixels",
        "job.required_pixels > 0",
    ),
    Bug(
        "draining-for-ever",
        "a device that drained gets nothing after its restart either",
        FLEET,
        "Fleet.join",
        "device.draining = False",
        "",
    ),
    Bug(
        "pause-without-end",
        "a device that handed a tile back gets none any more",
        FLEET,
        "Fleet.resume",
        "device.quarantined = device.paused = False",
        "device.quarantined = False",
    ),
    Bug(
        "hedge-at-home",
        "a straggler's copy goes to the device that has it",
        SPECULATION,
        "Speculation._may_help",
        "device.id == lease.device",
        "False",
    ),
    Bug(
        "suspect-beside-others",
        "a tile that others died of is sent to a device that holds more",
        PLACEMENT,
        "Placement._place_suspects",
        "not device.leases",
        "len(device.leases) < self._fleet.window(device)",
    ),
    Bug(
        "others-beside-a-suspect",
        "a device that has a tile which others died of gets more",
        FLEET,
        "Fleet.window",
        "device.exclusive",
        "False",
    ),
    Bug(
        "bytes-unlimited",
        "more bytes are in flight than may be",
        FLEET,
        "Fleet.has_bytes_for",
        "limit = self.max_bytes_in_flight",
        "limit = 9 * self.max_bytes_in_flight",
    ),
    Bug(
        "bytes-never-land",
        "accepted tiles count as in flight, until nothing can be sent",
        LEASES,
        "LeaseTable.accept",
        "self.fleet.bytes_in_flight -= lease.tile.nbytes",
        "",
    ),
    Bug(
        "regrant-without-room",
        "who comes back after the broker was lost gets more than it may hold",
        OUTAGE,
        "_regrant",
        "len(device.leases) < table.fleet.window(device)",
        "True",
    ),
    Bug(
        "regrant-of-what-others-have",
        "who comes back after the broker was lost gets its tile even if that is done or held",
        OUTAGE,
        "_regrant",
        "tile in tile.job.waiting",
        "True",
    ),
)

BLAME = (
    Bug(
        "quarantine-without-end",
        "a device in quarantine never gets out",
        LEASES,
        "LeaseTable._fire",
        "self.fleet.resume(timer)",
        "",
    ),
    Bug(
        "quarantine-never",
        "no run of faults puts a device into quarantine",
        LEASES,
        "LeaseTable.record_fault",
        "device.faults < self.policy.quarantine_after and not device.probation",
        "device.faults < 99",
    ),
    Bug(
        "quarantines-alike",
        "a device that fails again after its quarantine gets no longer one",
        FLEET,
        "Fleet.quarantine",
        "device.quarantines += not device.quarantined",
        "",
    ),
    Bug(
        "no-probation",
        "a device gets a full window right after its quarantine",
        FLEET,
        "Fleet.resume",
        "device.probation or device.quarantined",
        "False",
    ),
    Bug(
        "strikes-for-ever",
        "faults count although the device gave good results in between",
        FLEET,
        "Fleet.learn",
        "device.faults = device.quarantines = device.returns = 0",
        "device.quarantines = device.returns = 0",
    ),
    Bug(
        "broker-loss-blamed",
        "devices pay for a broker that was lost",
        OUTAGE,
        "release_all_leases",
        "table.release(lease)",
        """
            table.release(lease)
            table.record_fault(lease.device, "gone")
        """,
    ),
    Bug(
        "broker-loss-kills-tiles",
        "a lost broker counts as a death with the tile in hand",
        OUTAGE,
        "release_all_leases",
        "table.release(lease)",
        """
            table.release(lease)
            lease.tile.blame_loss(lease, "gone")
        """,
    ),
    Bug(
        "flapping-link-kills-tiles",
        "a device that comes back with the same boot id counts as having died",
        LEASES,
        "LeaseTable.count_survival",
        "lease.survived = True",
        "",
    ),
    Bug(
        "deaths-forgiven",
        "a device that restarts with tiles in hand again and again is never quarantined",
        LEASES,
        "LeaseTable.count_death",
        'self.record_fault(device.id, f"was lost with tiles in hand: {device.lost_with_tiles}")',
        "pass",
    ),
    Bug(
        "poison-goes-on",
        "a tile that devices die of is sent to the next one for ever",
        FAILURES,
        "on_losses",
        "tile.losses < policy.max_losses",
        "tile.losses < 99",
    ),
    Bug(
        "failures-unlimited",
        "a tile that fails everywhere never fails its job",
        FAILURES,
        "on_failures",
        "tile.failures < policy.max_failures",
        "tile.failures < 99",
    ),
    Bug(
        "failures-too-soon",
        "a tile's first failure fails its job",
        FAILURES,
        "on_failures",
        "tile.failures < policy.max_failures",
        "tile.failures < policy.max_failures - 1",
    ),
    Bug(
        "expiries-unlimited",
        "a tile that hangs everywhere never fails its job",
        FAILURES,
        "on_expiries",
        "tile.expiries < policy.max_expiries",
        "tile.expiries < 99",
    ),
    Bug(
        "innocent-tiles-blamed",
        "tiles that only waited at a device which died count as its killers",
        DEVICE,
        "DeviceState.in_service",
        "[lease for lease in self.leases.values() if lease.accepted][: self.workers]",
        "[lease for lease in self.leases.values() if lease.accepted]",
    ),
)

SPOT_CHECKS = (
    Bug(
        "check_tile-at-home",
        "the check result comes from the device that gave the first",
        STATE,
        "TileState.excluded_devices",
        "{first.device} if first else frozenset()",
        "frozenset()",
    ),
    Bug(
        "check_tile-asleep-for-ever",
        "no second device gets the tile when the first has done it",
        LEASES,
        "LeaseTable.keep",
        "self.queue_tile(tile.check.check_tile)",
        "",
    ),
    Bug(
        "refuted-and-kept",
        "late results of a device count although it was refuted",
        SCHEDULER,
        "Scheduler._result",
        "lease.device in lease.tile.job.refuted",
        "lease.device in lease.tile.job.refuted and lease.tile.is_check_tile",
    ),
    Bug(
        "refuted-holds-on",
        "a refuted device keeps its leases",
        CHECKS,
        "refute",
        "lease.live",
        "lease.live and lease.tile.is_check_tile",
    ),
    Bug(
        "earlier-lies-stand",
        "what a refuted device said before stays in the image",
        CHECKS,
        "refute",
        """
            if found_in is not None:
                _revoke_results_of(table, found_in, name)
        """,
        "",
    ),
    Bug(
        "finished-and-undecided",
        "a job ends before its checks are decided",
        LEASES,
        "LeaseTable.finish_if_done",
        "not job.undecided",
        "True",
    ),
    Bug(
        "differing-is-agreeing",
        "nobody minds two different results",
        CHECKS,
        "compare",
        "lease.digest == first.digest",
        "lease.digest is not None",
    ),
    Bug(
        "the-first-is-right",
        "the gateway's own result judges the check result only",
        CHECKS,
        "arbitrate",
        "(check.tile, check.check_tile)",
        "(check.check_tile,)",
    ),
    Bug(
        "right-digest-forgotten",
        "what the gateway found wrong may come again from another device",
        CHECKS,
        "is_refuted",
        "check.correct_digest != lease.digest",
        "check.correct_digest != lease.digest and lease.tile.is_check_tile",
    ),
    Bug(
        "waits-for-a-second-device",
        "a job with checks waits for a second device where there is none",
        CHECKS,
        "_is_hopeless",
        "all(one.id in check_tile.excluded_devices for one in table.fleet.able(check_tile.job))",
        "False",
    ),
)

ENDS = (
    Bug(
        "given-and-never-finished",
        "a job all of whose tiles an earlier life did never ends",
        SCHEDULER,
        "Scheduler._submitted",
        "table.finish_if_done(job)",
        "",
    ),
    Bug(
        "given-and-waited-for",
        "tiles that an earlier life did are waited for",
        STATE,
        "ActiveJob.submitted",
        "len(job.waiting)",
        "job.total",
    ),
    Bug(
        "given-and-done-again",
        "tiles that an earlier life did are sent out",
        STATE,
        "ActiveJob.submitted",
        """
            if not tile.done:
                job.waiting.add(tile)
        """,
        "job.waiting.add(tile)",
    ),
    Bug(
        "cancelled-and-held",
        "devices keep the tiles of a job that was cancelled",
        LEASES,
        "LeaseTable.remove_job",
        "list(job.live_leases())",
        "list(job.live_leases()) if state else ()",
    ),
    Bug(
        "cancelled-and-rung",
        "the back-offs of a job's tiles outlive it",
        LEASES,
        "LeaseTable.remove_job",
        """
            for tile in job.tiles:
                tile.wake_at = None
        """,
        "",
    ),
    Bug(
        "starved-in-silence",
        "nobody hears of a job that no device can do",
        LEASES,
        "LeaseTable._fire",
        "self._starving.append(timer)",
        "",
    ),
    Bug(
        "starved-again-and-again",
        "one wait for a device is reported twice",
        LEASES,
        "LeaseTable._report",
        "self.emit(ReportStarved(job.id, self.now - since, reason))",
        """
            self.timers.set(job, self.now + 1)
            self.emit(ReportStarved(job.id, self.now - since, reason))
        """,
    ),
    Bug(
        "starved-though-somebody-came",
        "a job counts as starved although a device came in time",
        LEASES,
        "LeaseTable._update_starvation",
        "job.starved_since = job.wake_at = None",
        "job.starved_since = job.starved_since",
    ),
    Bug(
        "quarantined-is-able",
        "a job whose only devices are in quarantine does not count as starved",
        FLEET,
        "Fleet.able",
        "device.ready",
        "device.online and not device.draining",
    ),
)

TIME = (
    Bug(
        "lease-without-end",
        "what is never accepted stays with its device",
        LEASES,
        "LeaseTable.grant",
        "self.timers.set(lease, self.now + accept_timeout_s)",
        "",
    ),
    Bug(
        "unsent-without-end",
        "a tile that the gateway never sends stays with its device",
        LEASES,
        "LeaseTable.grant",
        "self.timers.set(lease, self.now + self.policy.send_s)",
        "",
    ),
    Bug(
        "arrived-and-overdue",
        "a tile that was accepted in time ends because the gateway reads that late",
        SCHEDULER,
        "Scheduler.handle",
        "self._arrival(event)",
        "self._table.now",
    ),
    Bug(
        "no-time-to-work",
        "a tile that was accepted gets no time beyond what accepting it may take",
        LEASES,
        "LeaseTable.accept",
        "self.timers.set(lease, begins_at + self.lease_s(lease))",
        "",
    ),
    Bug(
        "no-rest",
        "a device that hands tiles back gets the next one at once",
        SCHEDULER,
        "Scheduler._rejected",
        "self._table.pause(lease.device)",
        "",
    ),
    Bug(
        "quarantine-cut-short",
        "a quarantine ends before the time that was told",
        LEASES,
        "LeaseTable.quarantine",
        "self.now + seconds",
        "self.now + seconds / 2",
    ),
    Bug(
        "starved-too-soon",
        "a job is reported as starved before it has waited that long",
        LEASES,
        "LeaseTable._update_starvation",
        "self.policy.starve_s",
        "self.policy.starve_s / 2",
    ),
    Bug(
        "rung-too-late",
        "of two timers the later one wakes everybody",
        TIMERS,
        "Timers.next",
        "heap[0][0] if heap else None",
        "heap[-1][0] if heap else None",
    ),
    Bug(
        "look-forgotten",
        "nobody looks again at tiles that were left for others",
        LEASES,
        "LeaseTable.place",
        "self.timers.set(self.placement_timer, min(due))",
        "self.placement_timer.wake_at = None",
    ),
    Bug(
        "moved-timers-ring-twice",
        "a lease that got more time ends when it would have ended without",
        TIMERS,
        "Timers.next",
        "heap[0][2].wake_at != heap[0][0]",
        "heap[0][2].wake_at is None",
    ),
)

COUNTS = (
    Bug(
        "remaining-drifts-when-split",
        "a split tile makes its job end a tile too early",
        STATE,
        "ActiveJob.split",
        "self.remaining += 1",
        "",
    ),
    Bug(
        "remaining-drifts-when-revoked",
        "a result that is not believed any more is not missed",
        STATE,
        "ActiveJob.uncredit",
        "self.remaining += 1",
        "",
    ),
    Bug(
        "left-drifts",
        "what was done still counts as work ahead",
        STATE,
        "ActiveJob.credit",
        "self.pixels_left -= lease.tile.pixels",
        "",
    ),
    Bug(
        "retries-drift",
        "a copy counts as a retry",
        STATE,
        "ActiveJob.grant",
        "self.hedges += bool(tile.leases)",
        "",
    ),
    Bug(
        "hedges-drift",
        "a retry counts as a copy",
        STATE,
        "ActiveJob.grant",
        "bool(tile.leases)",
        "bool(tile.grants)",
    ),
    Bug(
        "duplicates-drift",
        "results that came second are not counted",
        SCHEDULER,
        "Scheduler._result",
        "lease.tile.job.duplicates += 1",
        "",
    ),
    Bug(
        "checked-drifts",
        "a check that was given up counts as one that found its tile right",
        STATE,
        "ActiveJob.progress",
        "check.state is SpotCheckState.AGREED",
        "not check.undecided",
    ),
)

BUGS = (*RESULTS, *LOST, *DEVICES, *BLAME, *SPOT_CHECKS, *ENDS, *TIME, *COUNTS)
