"""Whatever happens in whatever order: nothing is lost, nothing is kept twice, every job ends."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Set
from dataclasses import dataclass, field, replace

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fogmqtt.core.scheduling.actions import (
    Action,
    Arbitrate,
    CancelTile,
    ConfirmLink,
    DropResult,
    FailJob,
    FinishJob,
    KeepResult,
    Quarantine,
    ReportStarved,
    RevokeResult,
    SendTile,
    SplitTile,
)
from fogmqtt.core.scheduling.events import (
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
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.scheduler import Scheduler
from fogmqtt.simulate.work import halved
from tests.watching import MOMENT_S, Watch

# Tiny limits, so that few steps reach them.
POLICY = Policy(
    ahead=1,
    max_window=3,
    accept_s=1,
    accept_max_s=4,
    confirm_s=2,
    confirmed_s=0.5,
    send_s=2,
    min_lease_s=0.5,
    max_lease_s=20,
    first_lease_s=3,
    hedge_min_s=0.1,
    max_failures=2,
    max_losses=2,
    alone_after=0,
    max_expiries=2,
    quarantine_after=2,
    quarantine_s=2,
    quarantine_max_s=8,
    refuted_s=9,
    starve_s=1.5,
    # The smallest tile of all is never split.
    probe_pixels=110,
    least_s=0.001,
    max_bytes_in_flight=700,
)
DEVICES = ("a", "b", "c")
OPERATORS = (frozenset[str](), frozenset({"blur"}), frozenset({"blur", "canny"}))

REASONS = {
    "duplicate",
    "unknown job",
    "never leased",
    "the job failed",
    "refuted",
    "check result",
    "not wanted",
}

Key = tuple[str, int]


@dataclass(frozen=True)
class Said:
    """A result that counts: who gave it, under which attempt, and what it looked like."""

    device: str
    attempt: int
    digest: int | None


@dataclass
class Loss:
    """A device was lost with a tile in a worker."""

    device: str
    survived: bool = False


@dataclass
class Work:
    """What the model knows of a job."""

    operators: frozenset[str]
    tiles: int
    check_tiles: tuple[int, ...] = ()
    #: Tiles that were done before it was submitted.
    given: frozenset[int] = frozenset()
    #: Tiles that stand no more, since their halves do; and how often each can be halved.
    split: set[int] = field(default_factory=set)
    halvings: dict[int, int] = field(default_factory=dict)
    pixels: dict[int, int] = field(default_factory=dict)
    #: The size of a tile's message over its pixels.
    pixel_bytes: int = 0
    #: What a device must have room for: the largest of the smallest parts.
    part: int = 0
    kept: dict[int, Said] = field(default_factory=dict)
    #: Check results, disputes and what the gateway found, by the original tile.
    opinions: dict[int, Said] = field(default_factory=dict)
    disputed: set[int] = field(default_factory=set)
    decided: dict[int, int | None] = field(default_factory=dict)
    #: Devices whose results count no more; and those of them that were caught in this job.
    refused: set[str] = field(default_factory=set)
    caught: set[str] = field(default_factory=set)
    attempts: dict[int, int] = field(default_factory=dict)
    #: Who was lost with the tile in a worker, without those that came back with the same boot.
    lost_on: defaultdict[int, list[Loss]] = field(default_factory=lambda: defaultdict(list))
    starved_since: float | None = None
    reported: bool = False

    def is_check_tile(self, tile: int) -> bool:
        return self.tiles <= tile < self.tiles + len(self.check_tiles)

    def deaths(self, tile: int) -> int:
        return sum(not loss.survived for loss in self.lost_on[tile])

    @property
    def done(self) -> int:
        return len(self.kept) + len(self.given)

    def original(self, tile: int) -> int:
        return self.check_tiles[tile - self.tiles] if self.is_check_tile(tile) else tile

    @property
    def total(self) -> int:
        return self.tiles + len(self.split)

    def is_checked(self, tile: int) -> bool:
        """By what the model knows: the gateway said what is right, or two devices agree."""
        if tile in self.decided:
            return self.decided[tile] is not None
        first, second = self.kept.get(tile), self.opinions.get(tile)
        if first is None or second is None or tile in self.disputed:
            return False
        assert first.device != second.device
        assert first.digest == second.digest
        return True

    def forget(self, tile: int) -> None:
        """An opinion is worth nothing any more, unless the gateway has a say in it."""
        if tile not in self.disputed and tile not in self.decided:
            self.opinions.pop(tile, None)


def right(tile: int) -> int:
    """The digest of the right result of an original tile."""
    return 100 + tile


@dataclass
class Board:
    """What the model knows of a device; `held` is what it was sent and still has, in order."""

    name: str
    boot: int = 0
    workers: int = 1
    operators: frozenset[str] = frozenset()
    room: float = math.inf
    joined: bool = False
    online: bool = False
    draining: bool = False
    held: dict[Key, None] = field(default_factory=dict)
    accepted: set[Key] = field(default_factory=set)
    losses: list[Loss] = field(default_factory=list)


def is_lie(action: Quarantine) -> bool:
    return action.reason.startswith("a wrong result: ")


class Fog(RuleBasedStateMachine):
    """Devices that do everything devices can do, and a model that follows the actions."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = POLICY
        self.scheduler = Scheduler(POLICY)
        self.watch = Watch(POLICY, self.scheduler)
        self.now = self.fired_until = 0.0
        self.jobs: dict[str, Work] = {}
        self.ended: set[str] = set()
        self.submitted = 0
        self.boards = {name: Board(name) for name in DEVICES}
        self.sent: list[SendTile] = []
        self.reported: set[SendTile] = set()
        self.broken = False
        self.to_denounce = 0
        #: When the scheduler asked whether the link works, and got no answer yet.
        self.to_confirm: list[float] = []

    # What happens.

    @initialize(
        workers=st.lists(st.integers(1, 2), min_size=1, max_size=3),
        tiles=st.integers(1, 6),
        limit=st.integers(1, 2),
        suspects=st.sampled_from((0, 0, 0, 2)),
        window=st.integers(2, 3),
        halvings=st.integers(0, 2),
        sends=st.booleans(),
        confirms=st.booleans(),
    )
    def somebody_is_there(
        self,
        workers: list[int],
        tiles: int,
        limit: int,
        suspects: int,
        window: int,
        halvings: int,
        sends: bool,
        confirms: bool,
    ) -> None:
        self.to_denounce = suspects
        # With a limit of one, a device may die of several tiles of one job at once.
        self.policy = replace(POLICY, max_losses=limit, max_window=window)
        self.scheduler = Scheduler(self.policy, sends_reported=sends, confirms_link=confirms)
        self.watch = Watch(self.policy, self.scheduler)
        for name, count in zip(DEVICES, workers, strict=False):
            self.join(name, count, OPERATORS[2], restart=False)
        self.submit(tiles, OPERATORS[0], [0, 1, 2][: 3 - halvings], halvings=halvings)

    @precondition(lambda self: len(self.jobs) < 3)
    @rule(
        tiles=st.integers(1, 4),
        operators=st.sampled_from(OPERATORS),
        picks=st.lists(st.integers(0, 3), max_size=3, unique=True),
        done=st.sets(st.integers(0, 3)),
        halvings=st.integers(0, 2),
    )
    def submit(
        self,
        tiles: int,
        operators: frozenset[str],
        picks: list[int],
        done: Set[int] = frozenset(),
        halvings: int = 0,
    ) -> None:
        self.submitted += 1
        name = f"job{self.submitted}"
        given = frozenset(index for index in done if index < tiles)
        check_tiles = tuple(pick for pick in picks if pick < tiles and pick not in given)
        self.jobs[name] = work = Work(operators, tiles, check_tiles, given)
        work.pixel_bytes = self.submitted % 3
        pixels = tuple(100 * (index + 1) for index in range(tiles))
        for index, size in enumerate(pixels):
            work.halvings[index], work.pixels[index] = halvings * (index not in check_tiles), size
            if index not in given:
                work.part = max(work.part, (size, *halved(size, work.halvings[index]))[-1])
        work.pixels |= {
            tiles + place: pixels[check_tile] for place, check_tile in enumerate(check_tiles)
        }
        kind = "kind" + str(tiles % 2)
        parts = tuple(halved(one, halvings) for one in pixels) if halvings else ()
        event = JobSubmitted(name, kind, pixels, operators, check_tiles, given, parts)
        self.feed(msgspec.structs.replace(event, pixel_bytes=float(self.submitted % 3)))
        assert (name in self.ended) == (len(given) == tiles)

    @precondition(lambda self: len(self.jobs) > 1 or len(self.jobs) == self.submitted)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.jobs)))
        self.feed(JobCancelled(name, is_late=data.draw(st.booleans())))
        self.end(name)

    @rule(seconds=st.sampled_from([0.0, 0.1, 3.0, math.inf]))
    def limit_tiles(self, seconds: float) -> None:
        self.scheduler.limit_tiles(seconds)

    @rule(
        name=st.sampled_from(DEVICES),
        workers=st.integers(1, 2),
        operators=st.sampled_from(OPERATORS),
        restart=st.booleans(),
        room=st.sampled_from((math.inf, math.inf, 110, 60)),
    )
    def join(
        self,
        name: str,
        workers: int,
        operators: frozenset[str],
        restart: bool,
        room: float = math.inf,
    ) -> None:
        board = self.boards[name]
        if restart:
            board.boot += 1
            board.draining = False
            self.die(board)
        elif not board.online:
            for loss in board.losses:
                loss.survived = True
        board.losses.clear()
        board.joined = board.online = True
        board.workers, board.operators, board.room = workers, operators, room
        self.feed(DeviceJoined(name, f"boot{board.boot}", workers, operators, {}, room))

    @precondition(lambda self: any(board.held for board in self.boards.values()))
    @rule(data=st.data(), times=st.integers(1, 4))
    def flap(self, data: st.DataObject, times: int) -> None:
        """A link fails and comes back at once, while its device has tiles."""
        busy = sorted(name for name, board in self.boards.items() if board.held)
        name = data.draw(st.sampled_from(busy))
        board = self.boards[name]
        for _ in range(times):
            self.lose(name)
            self.join(name, board.workers, board.operators, restart=False, room=board.room)

    @precondition(lambda self: self.jobs)
    @rule(name=st.sampled_from((*DEVICES, "nobody")))
    def lose(self, name: str) -> None:
        if name in self.boards:
            self.boards[name].online = False
            self.die(self.boards[name])
        self.feed(DeviceLost(name, "last will"))

    @rule(name=st.sampled_from((*DEVICES, "nobody")), held=st.integers(0, 5))
    def report(self, name: str, held: int) -> None:
        self.feed(DeviceReported(name, held))

    @precondition(lambda self: self.jobs)
    @rule(name=st.sampled_from((*DEVICES, "nobody")))
    def drain(self, name: str) -> None:
        if name == "nobody" or self.boards[name].joined:
            self.boards.get(name, Board(name)).draining = True
            self.feed(DeviceDraining(name))

    @precondition(lambda self: self.jobs and self.anybody_is_online)
    @rule(
        names=st.permutations(DEVICES),
        back=st.integers(0, 3),
        ready=st.sets(st.sampled_from(DEVICES)),
        room=st.sampled_from((None, None, 110)),
    )
    def lose_the_broker(
        self, names: list[str], back: int, ready: set[str], room: float | None
    ) -> None:
        for board in self.boards.values():
            board.online = False
            board.held.clear()
        self.feed(BrokerLost())
        for name in [one for one in names if self.boards[one].joined][:back]:
            self.come_back(name, name in ready, room)

    def come_back(self, name: str, is_ready: bool, room: float | None) -> None:
        """As it was, or with less room; what was done meanwhile comes at once."""
        board = self.boards[name]
        space = board.room if room is None else room
        self.join(name, board.workers, board.operators, restart=False, room=space)
        for order in [one for one in self.sent[-12:] if one.device == name and is_ready]:
            self.say_result(order, None, honest=True)

    @precondition(lambda self: self.to_confirm)
    @rule()
    def confirm_the_link(self) -> None:
        """The broker answered, some time after it was asked."""
        self.feed(LinkConfirmed(self.to_confirm.pop(0)))

    @rule(seconds=st.floats(0.01, 3))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds
        self.feed(Tick())

    @precondition(lambda self: self.scheduler.next_wakeup() is not None)
    @rule()
    def sleep_until_the_next_wakeup(self) -> None:
        wakeup = self.scheduler.next_wakeup()
        assert wakeup is not None
        self.now = wakeup
        self.feed(Tick())

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        self.report_sent(self.an_order(data))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), waited_s=st.sampled_from((0, 0, 0, 2)))
    def accept(self, data: st.DataObject, waited_s: float) -> None:
        order = self.an_order(data)
        self.now += waited_s
        self.say_accepted(order, waited_s)

    @rule(name=st.sampled_from(DEVICES))
    def accept_everything(self, name: str) -> None:
        for order in [one for one in self.sent if one.device == name]:
            self.say_accepted(order)

    @precondition(lambda self: self.sent)
    @rule(
        data=st.data(),
        seconds=st.sampled_from((None, 0.0, 0.05, -1.0, 1e9, math.nan)),
        honest=st.sampled_from((True, True, True, False)),
        overdue=st.sampled_from((0, 0, 0, 3)),
        waited_s=st.sampled_from((0, 0, 0, 2)),
    )
    def answer(
        self,
        data: st.DataObject,
        seconds: float | None,
        honest: bool,
        overdue: int,
        waited_s: float,
    ) -> None:
        order = self.an_order(data)
        # The clock went on, and nobody told the scheduler before the result came.
        self.now += overdue + waited_s
        self.say_result(order, seconds, honest, waited_s)

    @rule(names=st.sets(st.sampled_from(DEVICES)), liar=st.sampled_from((None, *DEVICES)))
    def answer_everything(self, names: set[str], liar: str | None) -> None:
        for name in sorted(names):
            held = set(self.boards[name].held)
            for order in [one for one in self.sent if one.device == name]:
                if (order.job, order.tile) in held and self.newest(order) == order:
                    self.say_result(order, None, name != liar)

    @precondition(lambda self: any(work.disputed for work in self.jobs.values()))
    @rule(data=st.data(), can_tell=st.sampled_from((True, True, True, False)))
    def arbitrate(self, data: st.DataObject, can_tell: bool) -> None:
        disputes = [(job, tile) for job, work in self.jobs.items() for tile in work.disputed]
        job, tile = data.draw(st.sampled_from(sorted(disputes)))
        self.arbitrate_rightly(job, tile, can_tell)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def arbitrate_what_nobody_disputes(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.jobs)))
        tile = data.draw(st.integers(-1, 5))
        if tile not in self.jobs[job].disputed and tile < self.jobs[job].tiles:
            before = self.scheduler.progress(job)
            self.feed(TileArbitrated(job, tile, -7))
            assert job not in self.jobs or self.scheduler.progress(job).done == before.done

    @precondition(lambda self: self.to_denounce)
    @rule(name=st.sampled_from((*DEVICES, "nobody")), data=st.data())
    def disprove(self, name: str, data: st.DataObject) -> None:
        self.to_denounce -= 1
        job = data.draw(st.sampled_from([*sorted(self.jobs), "job0"]))
        self.feed(DeviceRefuted(job, name, "verify says so"))

    @precondition(lambda self: self.to_denounce and self.found_right)
    @rule(data=st.data())
    def disprove_who_was_found_right(self, data: st.DataObject) -> None:
        self.to_denounce -= 1
        job, name = data.draw(st.sampled_from(self.found_right))
        self.feed(DeviceRefuted(job, name, "verify says so"))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        order = self.an_order(data)
        self.relieve(order)
        self.feed(TileFailed(order.job, order.tile, order.attempt, order.device, "boom"))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def hand_back(self, data: st.DataObject) -> None:
        order = self.an_order(data)
        self.relieve(order)
        self.feed(TileRejected(order.job, order.tile, order.attempt, order.device))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), lie=st.sampled_from(("device", "attempt", "tile", "job")))
    def claim_what_was_never_leased(self, data: st.DataObject, lie: str) -> None:
        order = self.an_order(data)
        others = [name for name in DEVICES if name != order.device]
        actions = self.feed(
            ResultArrived(
                job="nonsense" if lie == "job" else order.job,
                tile=99 if lie == "tile" else order.tile,
                attempt=order.attempt + 99 if lie == "attempt" else order.attempt,
                device=others[0] if lie == "device" else order.device,
            )
        )
        assert not any(isinstance(action, KeepResult) for action in actions)

    @precondition(lambda self: self.jobs)
    @rule(names=st.sets(st.sampled_from(DEVICES)), wakeups=st.integers(2, 6))
    def hang(self, names: set[str], wakeups: int) -> None:
        """These accept what they get and do nothing; the others do not even accept."""
        for _ in range(wakeups):
            for name in sorted(names):
                self.accept_everything(name)
            if self.scheduler.next_wakeup() is not None:
                self.sleep_until_the_next_wakeup()

    # The model.

    @property
    def anybody_is_online(self) -> bool:
        return any(board.online for board in self.boards.values())

    @property
    def found_right(self) -> list[tuple[str, str]]:
        """Jobs, and devices in them with which another device agreed."""
        return [
            (name, said.device)
            for name, work in sorted(self.jobs.items())
            for tile in sorted(work.kept)
            if work.is_checked(tile)
            for said in (work.kept[tile], work.opinions.get(tile))
            if said is not None
        ]

    def an_order(self, data: st.DataObject) -> SendTile:
        """One of the last, rather of those that are still out."""
        recent = self.sent[-12:]
        held = [one for one in recent if (one.job, one.tile) in self.boards[one.device].held]
        return data.draw(st.sampled_from(recent + 2 * held))

    def report_sent(self, order: SendTile) -> None:
        self.reported.add(order)
        self.feed(TileSent(order.job, order.tile, order.attempt, order.device))

    def say_accepted(self, order: SendTile, waited_s: float = 0) -> None:
        key, board = (order.job, order.tile), self.boards[order.device]
        if key in board.held and self.newest(order) == order:
            board.accepted.add(key)
        what = (order.job, order.tile, order.attempt, order.device)
        self.feed(TileAccepted(*what, at=self.now - waited_s))
        self.read_everything(waited_s)

    def say_result(
        self, order: SendTile, seconds: float | None, honest: bool, waited_s: float = 0
    ) -> None:
        self.boards[order.device].held.pop((order.job, order.tile), None)
        work = self.jobs.get(order.job)
        digest = right(work.original(order.tile)) if work and honest else -1
        what = (order.job, order.tile, order.attempt, order.device)
        self.feed(ResultArrived(*what, seconds, digest, at=self.now - waited_s))
        self.read_everything(waited_s)

    def read_everything(self, waited_s: float) -> None:
        """After an event that waited to be read, nothing else does."""
        if waited_s:
            self.feed(Tick())

    def arbitrate_rightly(self, job: str, tile: int, can_tell: bool = True) -> None:
        work = self.jobs[job]
        work.disputed.remove(tile)
        truth = work.decided[tile] = right(tile) if can_tell else None
        judged = [said.get(tile) for said in (work.kept, work.opinions)]
        wrong = {one.device for one in judged if can_tell and one and one.digest != truth}
        actions = self.feed(TileArbitrated(job, tile, truth))
        assert wrong == {one.device for one in actions if isinstance(one, Quarantine)}

    def newest(self, order: SendTile) -> SendTile:
        """What the same device was sent last of the same tile."""
        what = (order.job, order.tile, order.device)
        return [one for one in self.sent if (one.job, one.tile, one.device) == what][-1]

    def die(self, board: Board) -> None:
        accepted = [key for key in board.held if key in board.accepted]
        for job, tile in accepted[: board.workers]:
            loss = Loss(board.name)
            board.losses.append(loss)
            self.jobs[job].lost_on[tile].append(loss)
        board.held.clear()
        board.accepted.clear()

    def relieve(self, order: SendTile) -> None:
        if self.newest(order) == order:
            self.boards[order.device].held.pop((order.job, order.tile), None)

    def feed(self, event: Event) -> list[Action]:
        self.broken = True
        actions = self.scheduler.handle(event, self.now)
        # What arrived earlier than it is read makes nothing overdue that was not so then.
        at = getattr(event, "at", None)
        self.fired_until = max(self.fired_until, self.now if at is None else at)
        self.watch.saw(event, actions, self.now, self.fired_until)
        liars = self.note_liars(event, actions)
        for action in actions:
            self.follow(action, event)
        if isinstance(event, ResultArrived):
            told = [one for one in actions if isinstance(one, KeepResult | DropResult)]
            assert len(told) == 1
        self.see_to_liars(event, liars)
        self.watch_starvation()
        if ConfirmLink() in actions:
            self.to_confirm.append(self.now)
        self.broken = False
        return actions

    def note_liars(self, event: Event, actions: list[Action]) -> set[str]:
        liars = {one.device for one in actions if isinstance(one, Quarantine) and is_lie(one)}
        if isinstance(event, DeviceRefuted):
            assert liars <= {event.device}
            liars.add(event.device)
        elif liars:
            assert isinstance(event, ResultArrived | TileArbitrated)
        for work in self.jobs.values():
            work.refused |= liars
        if isinstance(event, ResultArrived | TileArbitrated | DeviceRefuted):
            caught = self.jobs.get(event.job)
            if caught:
                caught.caught |= liars
                said = [one for one in caught.opinions.items() if one[1].device in liars]
                for tile, _ in said:
                    caught.forget(tile)
        return liars

    def see_to_liars(self, event: Event, liars: set[str]) -> None:
        for name in liars & set(self.boards):
            assert not self.boards[name].held
            assert not self.boards[name].joined or name in self.scheduler.quarantined()
        if not isinstance(event, ResultArrived | TileArbitrated | DeviceRefuted):
            return
        work = self.jobs.get(event.job)
        assert not work or not any(said.device in liars for said in work.kept.values())

    def follow(self, action: Action, event: Event) -> None:
        match action:
            case SendTile():
                self.follow_send(action)
            case SplitTile():
                self.follow_split(action)
            case CancelTile(job, tile, _, device):
                self.boards[device].held.pop((job, tile), None)
            case KeepResult(job, tile, attempt, device):
                assert isinstance(event, ResultArrived)
                self.follow_keep(action, event)
                what = (event.job, event.tile, event.attempt, event.device)
                assert what == (job, tile, attempt, device)
            case DropResult():
                assert action.reason in REASONS
                assert isinstance(event, ResultArrived)
                if action.reason == "check result":
                    self.follow_opinion(event)
            case RevokeResult(job, tile, attempt, device):
                work = self.jobs[job]
                said = work.kept.pop(tile)
                assert (said.attempt, said.device) == (attempt, device)
                assert device in work.caught
                work.forget(tile)
                work.halvings[tile], work.part = 0, max(work.part, work.pixels[tile])
            case Arbitrate(job, tile):
                work = self.jobs[job]
                assert work.kept[tile].digest != work.opinions[tile].digest
                assert tile not in work.disputed
                assert tile not in work.decided
                work.disputed.add(tile)
            case FinishJob(job, makespan_s):
                assert makespan_s >= 0
                self.follow_finish(self.jobs[job])
                self.end(job)
            case FailJob(job, reason):
                assert reason.startswith("tile ")
                if "that died" in reason:
                    work = self.jobs[job]
                    assert max(map(work.deaths, work.lost_on)) >= self.policy.max_losses
                self.end(job)
            case ReportStarved(job):
                assert not self.able(self.jobs[job])
                self.follow_starved(self.jobs[job])
            case Quarantine(device, seconds):
                assert device in self.scheduler.quarantined()
                if is_lie(action):
                    assert seconds == pytest.approx(POLICY.refuted_s)
                else:
                    assert POLICY.quarantine_s <= seconds <= POLICY.quarantine_max_s

    def follow_starved(self, work: Work) -> None:
        assert not work.reported
        assert work.starved_since is not None
        assert self.now >= work.starved_since + POLICY.starve_s - MOMENT_S
        work.reported = True

    def follow_split(self, action: SplitTile) -> None:
        work, key = self.jobs[action.job], (action.job, action.tile)
        assert work.halvings[action.tile] > 0
        assert action.tile not in work.split
        assert action.tile not in work.kept
        assert not any(key in board.held for board in self.boards.values())
        first = work.tiles + len(work.check_tiles) + 2 * len(work.split)
        assert (action.first, action.second) == (first, first + 1)
        work.split.add(action.tile)
        for half in (action.first, action.second):
            work.halvings[half] = work.halvings[action.tile] - 1
            work.pixels[half] = halved(work.pixels[action.tile], 1)[0]
            work.lost_on[half] = list(work.lost_on[action.tile])

    def follow_send(self, order: SendTile) -> None:
        work, board, key = self.jobs[order.job], self.boards[order.device], (order.job, order.tile)
        assert board.online
        assert not board.draining
        assert order.device in self.scheduler.ready_devices()
        assert work.operators <= board.operators
        assert work.pixels[order.tile] <= board.room
        assert order.tile not in work.kept
        assert order.tile not in work.split
        assert order.tile not in work.given
        assert order.device not in work.refused
        if work.is_check_tile(order.tile):
            original = work.original(order.tile)
            assert work.kept[original].device != order.device
            assert original not in work.opinions
            assert original not in work.decided
            assert work.deaths(original) == work.deaths(order.tile) == 0
        assert order.attempt == work.attempts.get(order.tile, 0) + 1
        assert order.lease_s > 0
        work.attempts[order.tile] = order.attempt
        assert key not in board.held
        board.held[key] = None
        board.accepted.discard(key)
        # One device alone proves little.
        most = self.policy.max_losses
        deaths = work.deaths(order.tile)
        died = {loss.device for loss in work.lost_on[order.tile] if not loss.survived}
        assert deaths < most * (2 if most > 1 else 1)
        assert deaths < most or len(died) == 1
        assert len(board.held) <= self.policy.max_window
        assert sum(key in one.held for one in self.boards.values()) <= 2
        self.sent.append(order)

    def follow_opinion(self, event: ResultArrived) -> None:
        work = self.jobs[event.job]
        original = work.original(event.tile)
        assert work.is_check_tile(event.tile)
        assert original not in work.opinions
        assert work.kept[original].device != event.device
        assert event.device not in work.refused
        work.opinions[original] = Said(event.device, event.attempt, event.digest)

    @staticmethod
    def follow_finish(work: Work) -> None:
        assert work.done == work.total
        assert not work.disputed
        for tile, said in work.kept.items():
            assert said.device not in work.caught
            assert work.decided.get(tile) in (None, said.digest)
            if tile in work.opinions and tile not in work.decided:
                assert work.is_checked(tile)

    def follow_keep(self, action: KeepResult, event: ResultArrived) -> None:
        work = self.jobs[action.job]
        assert action.tile not in work.kept
        assert not work.is_check_tile(action.tile)
        assert action.tile not in work.split
        assert action.device not in work.refused
        work.kept[action.tile] = Said(action.device, action.attempt, event.digest)
        assert work.decided.get(action.tile) in (None, event.digest)
        assert any(
            (one.job, one.tile, one.attempt, one.device)
            == (action.job, action.tile, action.attempt, action.device)
            for one in self.sent
        )

    def end(self, name: str) -> None:
        assert name not in self.ended
        self.ended.add(name)
        del self.jobs[name]
        for board in self.boards.values():
            assert not any(job == name for job, _ in board.held)

    def able(self, work: Work) -> bool:
        ready = self.scheduler.ready_devices() - self.scheduler.mute()
        boards = [self.boards[name] for name in ready - work.refused]
        return any(work.operators <= one.operators and work.part <= one.room for one in boards)

    def watch_starvation(self) -> None:
        for work in self.jobs.values():
            if self.able(work) or work.done == work.total:
                work.starved_since, work.reported = None, False
            elif work.starved_since is None:
                work.starved_since = self.now
            elif self.fired_until >= work.starved_since + POLICY.starve_s:
                assert work.reported

    # What is always true.

    @invariant()
    def nothing_contradicts_itself(self) -> None:
        self.scheduler.check()
        wakeup = self.scheduler.next_wakeup()
        assert wakeup is None or wakeup > self.now or POLICY.starve_s == 0

    @invariant()
    def ready_is_what_was_announced(self) -> None:
        for name in self.scheduler.ready_devices():
            assert self.boards[name].online
            assert not self.boards[name].draining
            assert name not in self.scheduler.quarantined()

    @invariant()
    def no_more_bytes_are_in_flight_than_may_be(self) -> None:
        sizes = [
            self.jobs[job].pixels[tile] * self.jobs[job].pixel_bytes
            for board in self.boards.values()
            for job, tile in board.held.keys() - board.accepted
        ]
        assert sum(sizes) <= self.policy.max_bytes_in_flight or len(list(filter(None, sizes))) == 1

    @invariant()
    def what_is_held_is_wanted(self) -> None:
        for order in self.sent[-4:]:
            if (order.job, order.tile) in self.boards[order.device].held:
                what = (order.job, order.tile, order.attempt, order.device)
                assert self.scheduler.holds(*what) == (self.newest(order) == order)

    @invariant()
    def what_was_accepted_expires(self) -> None:
        wakeup = self.scheduler.next_wakeup()
        holds = any(board.held for board in self.boards.values())
        assert not holds or (wakeup is not None and wakeup <= self.now + 120)

    @invariant()
    def progress_is_what_was_kept(self) -> None:
        for name, work in self.jobs.items():
            progress = self.scheduler.progress(name)
            assert (progress.done, progress.total) == (work.done, work.total)
            kept = Counter(said.device for said in work.kept.values())
            assert {name: share.tiles for name, share in progress.devices.items()} == kept
            assert progress.checked == sum(work.is_checked(tile) for tile in work.check_tiles)

    # What must happen in the end.

    def teardown(self) -> None:
        """One device turns honest, the others fall silent or vanish: every job ends."""
        if self.broken:
            return  # the model is in the middle of a step that failed
        self.settle_disputes()
        believed = not any("a" in work.refused for work in self.jobs.values())
        name = "a" if believed and self.submitted % 2 == 0 else "fresh"
        if name == "fresh":
            self.boards[name] = Board(name)
        else:
            for other in ("b", "c"):
                self.lose(other)
        self.join(name, 1, OPERATORS[2], restart=True)
        deadline = self.now + 2_000
        while self.jobs and self.now < deadline:
            self.work_honestly(name)
        assert not self.jobs, self.jobs
        assert len(self.ended) == self.submitted

    def settle_disputes(self) -> None:
        for job, work in list(self.jobs.items()):
            for tile in sorted(work.disputed):
                self.arbitrate_rightly(job, tile)

    def work_honestly(self, name: str) -> None:
        self.settle_disputes()
        for order in [one for one in self.sent[-3:] if one not in self.reported]:
            self.report_sent(order)
        held = self.boards[name].held
        mine = [one for one in self.sent if one.device == name and (one.job, one.tile) in held]
        if not mine:
            self.sleep_until_the_next_wakeup()
        else:
            order = mine[-1]
            self.feed(TileAccepted(order.job, order.tile, order.attempt, name))
            self.now += 0.05
            self.say_result(order, 0.05, honest=True)
        self.scheduler.check()


TestFog = Fog.TestCase
TestFog.settings = settings(
    max_examples=400,
    stateful_step_count=50,
    deadline=None,
    # Explaining traces every line, which costs more than the test.
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow],
)
