"""What can be told of a scheduler from outside: who holds what, who is to blame, and for how long.

A watch sees every event and every action, keeps books of its own, and raises AssertionError at
the first action that they do not explain, or that they ask for and nobody took.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from fogmqtt.core.scheduling.actions import (
    Action,
    CancelTile,
    DropResult,
    FailJob,
    FinishJob,
    KeepResult,
    Quarantine,
    SendTile,
    SplitTile,
)
from fogmqtt.core.scheduling.events import (
    BrokerLost,
    DeviceJoined,
    DeviceLost,
    DeviceRefuted,
    Event,
    JobCancelled,
    JobSubmitted,
    ResultArrived,
    TileAccepted,
    TileFailed,
    TileRejected,
)
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.progress import JobState
from fogmqtt.core.scheduling.scheduler import Scheduler

#: Times are sums of floats.
MOMENT_S = 1e-6
LIE = "a wrong result: "

_TileEvent = TileAccepted | ResultArrived | TileFailed | TileRejected


@dataclass
class Order:
    """One attempt that a device was sent."""

    device: str
    tile: int
    accepted_at: float | None = None
    answered: bool = False


@dataclass
class Seen:
    """A job from its submission on; tiles at `check_tiles` are check tiles."""

    check_tiles: range
    state: JobState | None = JobState.RUNNING
    orders: dict[tuple[int, int], Order] = field(default_factory=dict)
    #: What is out now, by tile: attempts by device.
    live: defaultdict[int, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    refused: set[str] = field(default_factory=set)
    started: set[int] = field(default_factory=set)
    sent: int = 0
    hedges: int = 0
    duplicates: int = 0
    #: At least so many, and who did it; `strays` came for attempts that were not out any more.
    failures: Counter[int] = field(default_factory=Counter)
    failed_on: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    strays: Counter[int] = field(default_factory=Counter)
    expiries: Counter[int] = field(default_factory=Counter)


@dataclass
class Conduct:
    """What a device did since its last result, and what it pays for it."""

    boot: str = ""
    joined: bool = False
    #: At most, and at least, so many mishaps in a row; failures count when others do the tile.
    mishaps: int = 0
    failures: int = 0
    crashes: int = 0
    #: It was lost with tiles, and has not come back.
    lost_with_tiles: bool = False
    #: It had begun some of these, and maybe no other device was there: then it is not blamed.
    was_alone: bool = False
    #: It gave a result, or was found to be slower than it was thought to be.
    measured: bool = False
    quarantined_until: float = 0.0
    probation: bool = False
    paused_until: float = 0.0
    #: The quarantine is for a wrong result.
    lied: bool = False
    #: The last quarantine, if there was no result since.
    paid_s: float = 0.0


class Watch:
    """To be told of each event and the actions that followed."""

    def __init__(self, policy: Policy, scheduler: Scheduler) -> None:
        self._policy = policy
        self._scheduler = scheduler
        self._jobs: dict[str, Seen] = {}
        self._devices: defaultdict[str, Conduct] = defaultdict(Conduct)
        self._now = self._fired_until = 0.0
        #: The devices that were ready after the last event.
        self._were_ready: frozenset[str] = frozenset()
        #: The job that this event must end.
        self._doomed = ""

    def saw(self, event: Event, actions: Sequence[Action], now: float, fired_until: float) -> None:
        """All timers up to `fired_until` have fired. Raises AssertionError."""
        self._now, self._fired_until, self._doomed = now, fired_until, ""
        if isinstance(event, ResultArrived):
            self._check_answer(event, actions)
        crashed = self._note(event, actions)
        for device in self._devices.values():
            self._release(device)
        if isinstance(event, BrokerLost):
            assert not any(isinstance(one, Quarantine) for one in actions)
        for action in actions:
            self._follow(action, actions)
        if self._doomed:
            assert _fails(self._doomed, actions), f"a tile of {self._doomed} fails everywhere"
        for device in crashed:
            self._check_crash(device)
        self._check_quarantines()
        self._check_jobs()
        self._were_ready = self._scheduler.ready_devices()

    # -- what happened ------------------------------------------------------------------------

    def _note(self, event: Event, actions: Sequence[Action]) -> list[str]:
        """Returns who was lost with tiles in hand, and not in quarantine."""
        match event:
            case JobSubmitted(job, _, tiles):
                count = len(tiles)
                self._jobs[job] = Seen(range(count, count + len(event.check_tiles)))
            case JobCancelled(job) if self._runs(job):
                self._jobs[job].state = None
            case TileAccepted() | ResultArrived() | TileFailed() | TileRejected():
                self._note_word(event, actions)
            case DeviceJoined(device, boot):
                known = self._devices[device]
                restarted, known.boot, known.joined = known.boot != boot, boot, True
                if restarted:
                    self._take_leases(device)
                elif known.quarantined_until and device not in self._scheduler.quarantined():
                    assert not known.lied, f"{device} is forgiven a lie"
                    known.quarantined_until = known.paid_s = 0.0
                crashed = restarted and known.lost_with_tiles
                known.lost_with_tiles = False
                return self._crash(device) if crashed else []
            case DeviceLost(device):
                self._take_leases(device)
            case DeviceRefuted(_, device):
                self._refuse(device)
            case BrokerLost():
                for seen in self._jobs.values():
                    seen.live.clear()
        return []

    def _note_word(self, event: _TileEvent, actions: Sequence[Action]) -> None:
        order = self._order(event)
        if order is None or not self._runs(event.job):
            return
        seen, device = self._jobs[event.job], self._devices[event.device]
        is_live = seen.live[event.tile].get(event.device) == event.attempt
        if isinstance(event, TileAccepted):
            if is_live and order.accepted_at is None:
                order.accepted_at = self._now
            return
        if event.device in seen.refused and isinstance(event, ResultArrived):
            return
        if is_live and not self._is_refuted(event, actions):
            del seen.live[event.tile][event.device]
        if not order.answered and isinstance(event, ResultArrived):
            self._learn(device)
        elif not order.answered:
            self._note_mishap(event, seen, is_live)
        order.answered = True

    def _note_mishap(self, event: TileFailed | TileRejected, seen: Seen, is_live: bool) -> None:
        device = self._devices[event.device]
        if isinstance(event, TileRejected):
            if not device.quarantined_until:
                device.paused_until = self._now + self._policy.return_pause_s
            return
        device.failures += 1
        seen.strays[event.tile] += 1
        if is_live and event.tile not in seen.check_tiles:
            seen.failures[event.tile] += 1
            seen.failed_on[event.tile].add(event.device)
            if not seen.live[event.tile] and self._fails_everywhere(seen, event.tile):
                self._doomed = event.job

    @staticmethod
    def _is_refuted(event: Event, actions: Sequence[Action]) -> bool:
        """The gateway knows better: then the lease ends like the others of a refuted device."""
        reasons = {one.reason for one in actions if isinstance(one, DropResult)}
        return isinstance(event, ResultArrived) and "refuted" in reasons

    @staticmethod
    def _learn(device: Conduct) -> None:
        device.mishaps = device.crashes = 0
        device.paid_s, device.probation, device.measured = 0.0, False, True

    def _take_leases(self, name: str) -> None:
        device = self._devices[name]
        held = [
            seen.orders[tile, holders.pop(name)]
            for seen in self._jobs.values()
            for tile, holders in seen.live.items()
            if name in holders
        ]
        if held:
            others = self._were_ready & self._scheduler.ready_devices() - {name}
            device.lost_with_tiles = True
            device.was_alone = not others and any(one.accepted_at is not None for one in held)

    def _crash(self, name: str) -> list[str]:
        """It died with tiles. Returns its name if it was not in quarantine."""
        device = self._devices[name]
        was_free = not device.quarantined_until
        device.mishaps += 1
        if not was_free or device.was_alone:
            return []
        device.crashes += 1
        return [name]

    def _refuse(self, name: str) -> None:
        for seen in self._jobs.values():
            seen.refused.add(name)

    def _release(self, device: Conduct) -> None:
        if 0 < device.quarantined_until <= self._fired_until:
            device.quarantined_until, device.probation = 0.0, True

    # -- what followed ------------------------------------------------------------------------

    def _follow(self, action: Action, actions: Sequence[Action]) -> None:
        match action:
            case SendTile():
                self._follow_send(action)
            case CancelTile():
                self._follow_cancel(action, actions)
            case SplitTile(job, tile, first, second):
                seen = self._jobs[job]
                for half in (first, second):
                    for counts in (seen.failures, seen.strays, seen.expiries):
                        counts[half] = counts[tile]
                    seen.failed_on[half] = set(seen.failed_on[tile])
            case Quarantine():
                self._follow_quarantine(action)
            case FinishJob(job):
                self._jobs[job].state = JobState.FINISHED
            case FailJob(job, reason):
                self._follow_fail(self._jobs[job], reason)

    def _follow_send(self, order: SendTile) -> None:
        seen, device = self._jobs[order.job], self._devices[order.device]
        seen.orders[order.tile, order.attempt] = Order(order.device, order.tile)
        holders = seen.live[order.tile]
        assert order.device not in holders
        if order.tile not in seen.check_tiles:
            seen.sent += 1
            seen.hedges += bool(holders)
            seen.started.add(order.tile)
        holders[order.device] = order.attempt
        assert self._now > device.paused_until - MOMENT_S, f"{order.device} rests"
        assert not device.probation or self._held(order.device) == 1, f"{order.device} is on trial"

    def _follow_cancel(self, action: CancelTile, actions: Sequence[Action]) -> None:
        seen, device = self._jobs[action.job], self._devices[action.device]
        attempt = seen.live[action.tile].pop(action.device, None)
        assert attempt == action.attempt, f"{action.device} does not hold tile {action.tile}"
        order = seen.orders[action.tile, action.attempt]
        device.mishaps += action.expired or order.accepted_at is None
        if not action.expired:
            device.measured |= order.accepted_at is not None
            return
        assert order.accepted_at is not None, f"{action} was never accepted"
        policy = self._policy
        least_s = policy.min_lease_s if device.measured else policy.first_lease_s
        assert self._now >= order.accepted_at + least_s - MOMENT_S, f"{action} had more time"
        device.measured = True
        seen.expiries[action.tile] += 1
        many = seen.expiries[action.tile] >= policy.max_expiries
        if many and action.tile not in seen.check_tiles and not seen.live[action.tile]:
            assert _fails(action.job, actions), f"tile {action.tile} hangs everybody"

    def _follow_quarantine(self, action: Quarantine) -> None:
        device, policy = self._devices[action.device], self._policy
        ends_at = self._now + action.seconds
        assert ends_at > device.quarantined_until - MOMENT_S
        device.quarantined_until = ends_at
        device.lied = action.reason.startswith(LIE)
        if action.reason.startswith(LIE):
            self._refuse(action.device)
            return
        assert device.probation or device.mishaps + device.failures >= policy.quarantine_after
        if device.paid_s:
            longer_s = min(2 * device.paid_s, policy.quarantine_max_s)
            assert action.seconds >= longer_s - MOMENT_S, "no longer than the last one"
        device.paid_s = action.seconds

    def _follow_fail(self, seen: Seen, reason: str) -> None:
        seen.state = JobState.FAILED
        tile, policy = int(reason.split()[1]), self._policy
        sentence = reason.splitlines()[0]
        if " failed " in sentence.split(":")[0]:
            assert seen.strays[tile] >= policy.max_failures
        elif "never answered" in sentence:
            assert seen.expiries[tile] >= policy.max_expiries

    # -- what must be true after each ---------------------------------------------------------

    def _check_answer(self, event: ResultArrived, actions: Sequence[Action]) -> None:
        """Whoever was granted an attempt is heard, and nobody else."""
        kept = any(isinstance(one, KeepResult) for one in actions)
        reasons = [one.reason for one in actions if isinstance(one, DropResult)]
        seen = self._jobs.get(event.job)
        if seen is None or seen.state is None:
            assert reasons == ["unknown job"]
        elif seen.state is not JobState.RUNNING:
            over = seen.state is JobState.FINISHED
            assert reasons == ["duplicate" if over else "the job failed"]
        elif self._order(event) is None:
            assert reasons == ["never leased"]
        else:
            assert kept or reasons[0] in {"duplicate", "refuted", "check result", "not wanted"}
            seen.duplicates += reasons == ["duplicate"]

    def _check_crash(self, name: str) -> None:
        device = self._devices[name]
        if device.joined and (device.crashes >= self._policy.quarantine_after or device.probation):
            assert name in self._scheduler.quarantined(), f"{name} died {device.crashes} times"

    def _check_quarantines(self) -> None:
        until = {name: one.quarantined_until for name, one in self._devices.items()}
        assert self._scheduler.quarantined() == {name for name, at in until.items() if at > 0}

    def _check_jobs(self) -> None:
        for name, seen in self._jobs.items():
            if seen.state is None:
                continue
            progress = self._scheduler.progress(name)
            assert progress.state is seen.state
            assert progress.done == progress.total or seen.state is not JobState.FINISHED
            assert progress.hedges == seen.hedges
            assert progress.retries == seen.sent - len(seen.started) - seen.hedges
            assert progress.duplicates == seen.duplicates
        for seen in self._jobs.values():
            assert seen.state is JobState.RUNNING or not any(seen.live.values())

    # -- helpers ------------------------------------------------------------------------------

    def _runs(self, job: str) -> bool:
        return job in self._jobs and self._jobs[job].state is JobState.RUNNING

    def _order(self, event: _TileEvent) -> Order | None:
        seen = self._jobs.get(event.job)
        order = seen.orders.get((event.tile, event.attempt)) if seen else None
        return order if order is not None and order.device == event.device else None

    def _fails_everywhere(self, seen: Seen, tile: int) -> bool:
        failures, most = seen.failures[tile], self._policy.max_failures
        return failures >= 2 * most or (failures >= most and len(seen.failed_on[tile]) > 1)

    def _held(self, device: str) -> int:
        return sum(
            device in holders for seen in self._jobs.values() for holders in seen.live.values()
        )


def _fails(job: str, actions: Sequence[Action]) -> bool:
    return any(isinstance(one, FailJob) and one.job == job for one in actions)
