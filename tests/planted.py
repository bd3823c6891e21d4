"""Bugs that somebody could make in the scheduler, each to be planted by itself.

`old` stands in its module exactly once (tests/unit/test_planted.py), so whoever rewrites a line
mends its bug here, too. tests/mutations.py proves that the property test catches each.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bug:
    """One exact change of text in a module of fogmqtt/core; `meaning` says what goes wrong."""

    name: str
    meaning: str
    where: str
    old: str
    new: str

    @property
    def module(self) -> str:
        return f"fogmqtt.core.{self.where}"

    @property
    def path(self) -> Path:
        return Path("fogmqtt/core", f"{self.where}.py")


RESULTS = (
    Bug(
        "merged-twice",
        "a second result of a tile counts as well",
        "scheduler",
        "        if lease.tile.done:\n            lease.tile.job.duplicates",
        "        if lease.tile.split:\n            lease.tile.job.duplicates",
    ),
    Bug(
        "late-is-wrong",
        "a result of a lease that has ended is dropped as if there had been none",
        "ledger",
        "return lease if lease.device == device else None",
        "return lease if lease.device == device and lease.live else None",
    ),
    Bug(
        "anybody-is-believed",
        "a result counts although another device was given that attempt",
        "ledger",
        "return lease if lease.device == device else None",
        "return lease",
    ),
    Bug(
        "attempts-unchecked",
        "whatever attempt a result names, it counts for the newest",
        "ledger",
        "lease = self.grants[attempt - 1]",
        "lease = self.grants[-1]",
    ),
    Bug(
        "copies-work-on",
        "the loser of a hedge keeps its lease when the winner's result is kept",
        "books",
        "        for lease in list(tile.leases):\n            self.revoke(lease)\n",
        "",
    ),
    Bug(
        "ended-jobs-forgotten",
        "nobody knows any more how an ended job went",
        "books",
        "        if state is None:\n            return\n",
        "        if state is not JobState.FAILED:\n            return\n",
    ),
    Bug(
        "overdue-before-arrived",
        "a result that came in time is looked at after its lease was ended as overdue",
        "scheduler",
        "        self._apply(event)\n"
        "        while (sleeper := books.timers.due(books.now)) is not None:\n"
        "            books.ring(sleeper)\n",
        "        while (sleeper := books.timers.due(books.now)) is not None:\n"
        "            books.ring(sleeper)\n"
        "        self._apply(event)\n",
    ),
)

LOST = (
    Bug(
        "lost-with-its-device",
        "the first tile of a device that dies waits for nobody",
        "books",
        "        for lease in leases:\n            self.again(lease.tile)\n",
        "        for lease in leases[1:]:\n            self.again(lease.tile)\n",
    ),
    Bug(
        "lost-when-returned",
        "a tile that was handed back waits for nobody",
        "scheduler",
        "        self._books.again(lease.tile)\n",
        "        if lease.tile.is_twin:\n            self._books.again(lease.tile)\n",
    ),
    Bug(
        "lost-after-its-back-off",
        "a tile that failed is forgotten when its back-off ends",
        "books",
        "            case Tile():\n                self._enqueue(sleeper)\n",
        "            case Tile():\n                pass\n",
    ),
    Bug(
        "lost-when-unaccepted",
        "a tile that its device never accepted waits for nobody",
        "books",
        "        self._miss(lease)\n        self.again(tile)\n",
        "        self._miss(lease)\n",
    ),
    Bug(
        "lost-with-the-broker",
        "tiles taken back when the broker was lost wait for nobody",
        "outage",
        "        books.again(lease.tile, later=True)\n",
        "        pass\n",
    ),
    Bug(
        "lost-when-disproved",
        "what a disproved device held waits for nobody",
        "checks",
        "            books.revoke(lease)\n            books.again(lease.tile)\n",
        "            books.revoke(lease)\n",
    ),
    Bug(
        "second-half-forgotten",
        "of a tile that is split only the first half waits for a device",
        "ledger",
        "        self.enqueue(second, alone=alone)\n",
        "",
    ),
    Bug(
        "split-and-given",
        "a tile that was split stands beside its halves",
        "ledger",
        "        tile.done = tile.split = True\n",
        "        tile.split = True\n",
    ),
    Bug(
        "back-off-outlives-its-tile",
        "a tile that was done by a late result rings when its back-off ends",
        "books",
        "        tile.job.dequeue(tile)\n        tile.wake_at = None\n",
        "        tile.job.dequeue(tile)\n",
    ),
    Bug(
        "restart-unnoticed",
        "a device that restarted is taken to hold what it held before",
        "scheduler",
        "if known is not None and known.boot != event.boot:",
        "if known is not None and known.boot == event.boot != known.boot:",
    ),
)

DEVICES = (
    Bug(
        "window-off-by-one",
        "a device gets one tile more than its window",
        "fleet",
        "has_room = held < self.window(device)",
        "has_room = held <= self.window(device) > 0",
    ),
    Bug(
        "window-unbounded",
        "a device with many workers gets more tiles than any device may hold",
        "windows",
        ", policy.max_window)",
        ", 2 * policy.max_window)",
    ),
    Bug(
        "drained-device-gets-tiles",
        "a device that is about to stop is sent tiles",
        "device",
        "return self.online and not self.draining and",
        "return self.online and",
    ),
    Bug(
        "lost-device-gets-tiles",
        "a device that is gone is sent tiles",
        "fleet",
        "    def lose(self, device: Device) -> None:\n        device.online = False\n",
        "    def lose(self, device: Device) -> None:\n",
    ),
    Bug(
        "operators-ignored",
        "a device is sent work that it has no operator for",
        "device",
        "return fits and job.operators <= self.operators and",
        "return fits and",
    ),
    Bug(
        "memory-ignored",
        "a device is sent tiles that do not fit into its memory",
        "device",
        "fits = job.part <= self.max_tile_pixels",
        "fits = job.part > 0",
    ),
    Bug(
        "draining-for-ever",
        "a device that drained gets nothing after its restart either",
        "fleet",
        "            device.draining = False\n",
        "",
    ),
    Bug(
        "pause-without-end",
        "a device that handed a tile back gets none any more",
        "fleet",
        "device.quarantined = device.paused = False",
        "device.quarantined = False",
    ),
    Bug(
        "hedge-at-home",
        "a straggler's copy goes to the device that has it",
        "hedging",
        "if tile in device.leases or (alone and device.leases):",
        "if alone and device.leases:",
    ),
    Bug(
        "suspect-beside-others",
        "a tile that others died of is sent to a device that holds more",
        "placement",
        "if device is not None and not device.leases:",
        "if device is not None and len(device.leases) < self._fleet.window(device):",
    ),
    Bug(
        "others-beside-a-suspect",
        "a device that has a tile which others died of gets more",
        "fleet",
        "if device.probation or device.misses or device.alone:",
        "if device.probation or device.misses:",
    ),
    Bug(
        "regrant-without-room",
        "who comes back after the broker was lost gets more than it may hold",
        "outage",
        "    if len(device.leases) >= books.fleet.window(device):\n        return False\n",
        "",
    ),
    Bug(
        "regrant-of-what-others-have",
        "who comes back after the broker was lost gets its tile even if that is done or held",
        "outage",
        "tile.job.id in books.jobs and tile in tile.job.ready",
        "tile.job.id in books.jobs",
    ),
)

BLAME = (
    Bug(
        "quarantine-without-end",
        "a device in quarantine never gets out",
        "books",
        "                self.fleet.resume(sleeper)\n",
        "                pass\n",
    ),
    Bug(
        "quarantine-never",
        "no run of mishaps puts a device into quarantine",
        "books",
        "if device.strikes < self.policy.quarantine_after and not device.probation:",
        "if device.strikes < 99:",
    ),
    Bug(
        "quarantines-alike",
        "a device that fails again after its quarantine gets no longer one",
        "fleet",
        "        device.quarantines += not device.quarantined\n",
        "",
    ),
    Bug(
        "no-probation",
        "a device gets a full window right after its quarantine",
        "fleet",
        "device.probation = device.probation or device.quarantined",
        "device.probation = False",
    ),
    Bug(
        "strikes-for-ever",
        "mishaps count although the device gave good results in between",
        "fleet",
        "device.strikes = device.quarantines = device.returns = 0",
        "device.quarantines = device.returns = 0",
    ),
    Bug(
        "broker-loss-blamed",
        "devices pay for a broker that was lost",
        "outage",
        "        books.release(lease)\n",
        '        books.release(lease)\n        books.strike(lease.device, "gone")\n',
    ),
    Bug(
        "broker-loss-kills-tiles",
        "a lost broker counts as a death with the tile in hand",
        "outage",
        "        books.release(lease)\n",
        '        books.release(lease)\n        lease.tile.blame_loss(lease.device, "gone")\n',
    ),
    Bug(
        "poison-goes-on",
        "a tile that devices die of is sent to the next one for ever",
        "verdict",
        "if tile.losses < policy.max_losses:",
        "if tile.losses < 99:",
    ),
    Bug(
        "failures-unlimited",
        "a tile that fails everywhere never fails its job",
        "verdict",
        "if tile.failures < policy.max_failures:",
        "if tile.failures < 99:",
    ),
    Bug(
        "failures-too-soon",
        "a tile's first failure fails its job",
        "verdict",
        "if tile.failures < policy.max_failures:",
        "if tile.failures < policy.max_failures - 1:",
    ),
    Bug(
        "expiries-unlimited",
        "a tile that hangs everywhere never fails its job",
        "verdict",
        "if tile.expiries < policy.max_expiries:",
        "if tile.expiries < 99:",
    ),
    Bug(
        "innocent-tiles-blamed",
        "tiles that only waited at a device which died count as its killers",
        "device",
        "if lease.accepted][: self.workers]",
        "if lease.accepted]",
    ),
)

CHECKS = (
    Bug(
        "twin-at-home",
        "the second opinion comes from the device that gave the first",
        "ledger",
        "return self.job.disproved | self.shunned | ({first.device} if first else frozenset())",
        "return self.job.disproved | self.shunned",
    ),
    Bug(
        "twin-asleep-for-ever",
        "nobody is asked for a second opinion when the first is there",
        "books",
        "            self.wait(tile.check.twin)\n",
        "            pass\n",
    ),
    Bug(
        "disproved-and-kept",
        "late results of a device count although it was disproved",
        "scheduler",
        "if lease.device in lease.tile.job.disproved:",
        "if lease.device in lease.tile.job.disproved and lease.tile.is_twin:",
    ),
    Bug(
        "disproved-holds-on",
        "a disproved device keeps its leases",
        "checks",
        "        if lease.live:  # its job may have ended over an earlier one\n",
        "        if lease.live and lease.tile.is_twin:\n",
    ),
    Bug(
        "earlier-lies-stand",
        "what a disproved device said before stays in the image",
        "checks",
        "    if caught_in is not None:\n        _take_out(books, caught_in, name)\n",
        "",
    ),
    Bug(
        "finished-and-undecided",
        "a job ends before its second opinions are there",
        "books",
        "        if job.undecided == 0:\n",
        "        if job.undecided >= 0:\n",
    ),
    Bug(
        "differing-is-agreeing",
        "nobody minds two different results",
        "checks",
        "    if lease.digest == first.digest:\n",
        "    if lease.digest is not None:\n",
    ),
    Bug(
        "the-first-is-right",
        "the gateway's own result judges the second opinion only",
        "checks",
        "for half in (check.tile, check.twin) if half.kept is not None]",
        "for half in (check.twin,) if half.kept is not None]",
    ),
    Bug(
        "truth-forgotten",
        "what the gateway found wrong may come again from another device",
        "checks",
        "check.truth is not None and check.truth != lease.digest",
        "check.truth is not None and check.truth != lease.digest and lease.tile.is_twin",
    ),
    Bug(
        "waits-for-a-second-device",
        "a job with second opinions waits for a second device where there is none",
        "checks",
        "    return all(one.id in twin.taboo for one in books.fleet.able(twin.job))\n",
        "    return False\n",
    ),
)

ENDS = (
    Bug(
        "given-and-never-finished",
        "a job all of whose tiles an earlier life did never ends",
        "scheduler",
        "        books.open(job)\n        books.settle(job)\n",
        "        books.open(job)\n",
    ),
    Bug(
        "given-and-waited-for",
        "tiles that an earlier life did are waited for",
        "ledger",
        "        job.remaining = len(job.ready)\n",
        "        job.remaining = job.total\n",
    ),
    Bug(
        "given-and-done-again",
        "tiles that an earlier life did are sent out",
        "ledger",
        "            if not tile.done:\n                job.ready.add(tile)\n",
        "            job.ready.add(tile)\n",
    ),
    Bug(
        "cancelled-and-held",
        "devices keep the tiles of a job that was cancelled",
        "books",
        "        for lease in list(job.live_leases()):\n",
        "        for lease in list(job.live_leases()) if state else ():\n",
    ),
    Bug(
        "cancelled-and-rung",
        "the back-offs of a job's tiles outlive it",
        "books",
        "        for tile in job.tiles:\n            tile.wake_at = None\n        job.wake_at",
        "        job.wake_at",
    ),
    Bug(
        "starved-in-silence",
        "nobody hears of a job that no device can do",
        "books",
        "                self._hungry.append(sleeper)\n",
        "                pass\n",
    ),
    Bug(
        "starved-again-and-again",
        "one wait for a device is reported twice",
        "books",
        "        self.act(ReportStarved(",
        "        self.timers.set(job, self.now + 1)\n        self.act(ReportStarved(",
    ),
    Bug(
        "starved-though-somebody-came",
        "a job counts as starved although a device came in time",
        "books",
        "self.fleet.able(job)):\n            job.starved_since = job.wake_at = None",
        "self.fleet.able(job)):\n            job.starved_since = job.starved_since",
    ),
    Bug(
        "quarantined-is-able",
        "a job whose only devices are in quarantine does not count as starved",
        "fleet",
        "for device in self._suited(job) if device.ready)",
        "for device in self._suited(job) if device.online and not device.draining)",
    ),
)

TIME = (
    Bug(
        "lease-without-end",
        "what is never accepted stays with its device",
        "books",
        "        self.timers.set(lease, self.now + patience_s)\n",
        "",
    ),
    Bug(
        "no-time-to-work",
        "a tile that was accepted gets no time beyond what accepting it may take",
        "books",
        "        self.timers.set(lease, begins_at + self.lease_s(lease))\n",
        "",
    ),
    Bug(
        "no-rest",
        "a device that hands tiles back gets the next one at once",
        "scheduler",
        "        self._books.pause(lease.device)\n",
        "",
    ),
    Bug(
        "quarantine-cut-short",
        "a quarantine ends before the time that was told",
        "books",
        "        self.timers.set(device, self.now + seconds)\n",
        "        self.timers.set(device, self.now + seconds / 2)\n",
    ),
    Bug(
        "starved-too-soon",
        "a job is reported as starved before it has waited that long",
        "books",
        "self.timers.set(job, self.now + self.policy.starve_s)",
        "self.timers.set(job, self.now + self.policy.starve_s / 2)",
    ),
    Bug(
        "rung-too-late",
        "of two timers the later one wakes everybody",
        "timers",
        "return heap[0][0] if heap else None",
        "return heap[-1][0] if heap else None",
    ),
    Bug(
        "look-forgotten",
        "nobody looks again at tiles that were left for others",
        "books",
        "            self.timers.set(self.look, min(due))\n",
        "            self.look.wake_at = None\n",
    ),
    Bug(
        "moved-timers-ring-twice",
        "a lease that got more time ends when it would have ended without",
        "timers",
        "while heap and heap[0][2].wake_at != heap[0][0]:",
        "while heap and heap[0][2].wake_at is None:",
    ),
)

COUNTS = (
    Bug(
        "remaining-drifts-when-split",
        "a split tile makes its job end a tile too early",
        "ledger",
        "        self.remaining += 1\n        self.left += first.pixels",
        "        self.left += first.pixels",
    ),
    Bug(
        "remaining-drifts-when-revoked",
        "a result that is not believed any more is not missed",
        "ledger",
        "        self.remaining += 1\n        self.left += lease.tile.pixels",
        "        self.left += lease.tile.pixels",
    ),
    Bug(
        "left-drifts",
        "what was done still counts as work ahead",
        "ledger",
        "        self.left -= lease.tile.pixels\n",
        "",
    ),
    Bug(
        "retries-drift",
        "a copy counts as a retry",
        "ledger",
        "            self.hedges += bool(tile.leases)\n",
        "",
    ),
    Bug(
        "hedges-drift",
        "a retry counts as a copy",
        "ledger",
        "            self.hedges += bool(tile.leases)\n",
        "            self.hedges += bool(tile.grants)\n",
    ),
    Bug(
        "duplicates-drift",
        "results that came second are not counted",
        "scheduler",
        "            lease.tile.job.duplicates += 1\n",
        "",
    ),
    Bug(
        "checked-drifts",
        "a check counts once more when its tile was done again",
        "ledger",
        "        self.checked -= check.state is CheckState.AGREED\n",
        "",
    ),
)

BUGS = (*RESULTS, *LOST, *DEVICES, *BLAME, *CHECKS, *ENDS, *TIME, *COUNTS)
