"""Which devices hold the memory of a stream's tiles, and how it comes back when one is lost.

A stream with memory has a fixed plan of tiles. Each tile has a *home*: a device that does all of
its frames, one after the other, since it alone has the tile's memory. *Standbys* do the same and
answer nothing. The memory after `n` frames of an epoch is its *version* n, and each message says to
which version it applies (`after`). A device whose memory has another version refuses it and says
which one it has. So lost, doubled and reordered messages can delay a result and never change one.

A memory that is lost comes back

- from the last frames, if it depends on no more than those (`window`);
- from a standby, which becomes the home;
- from a copy that the home sent some time ago, and the frames since;
- else not at all: the tile, or all tiles, begin a new *epoch* with an empty memory.

A tile *moves* when a device came, or became slow, and another one would do it sooner. The new
device gets the memory as a standby does. When it has caught up, it becomes the home. So a move
costs no frame and no epoch; a memory that cannot be brought back does not move.

No I/O, no clock: the caller reports what happens and when, and does what `actions` returns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final, Literal

from fogmqtt.core.streaming.memory_store import Deed

#: Times that a frame of a tile may fail, or a device may lose or not answer for a tile, before the
#: frame is given up or the tile moves away.
TRIES: Final = 3
#: Seconds until a device that was full is asked again: twice as many each time, up to a limit.
FULL_S: Final = 0.05
FULL_LIMIT_S: Final = 1.0
#: Seconds until a device that refused to send a copy is asked again.
COPY_AGAIN_S: Final = 0.5
#: Seconds in which a tile avoids a device that did not answer for it.
AVOID_S: Final = 30.0
#: Seconds between the beginnings of two moves, and those until a move is given up.
MOVE_S: Final = 2.0
MOVE_LIMIT_S: Final = 30.0
#: A move must leave less than this part of the time that the slower of both devices takes.
MOVE_GAIN: Final = 0.8
#: The same when the new device has caught up, and its pace is known.
MOVE_LEAST_GAIN: Final = 0.95
#: Answers of a device by which its pace is known.
_PACED: Final = 9
#: Frames that the homes work on at the same time, at most.
_MOST_BEGUN: Final = 2
#: Refusals for lack of room that are counted, at most.
_MOST_FULLS: Final = 16


@dataclass(frozen=True, slots=True)
class HomeRules:
    """How the memory of a stream behaves, and what it is worth."""

    #: Frames that give back the whole memory; None if all of the epoch are needed.
    window: int | None = None
    #: Devices can send a copy of the memory.
    can_copy: bool = False
    #: Frames of an epoch until results mean what they should.
    warmup: int = 0
    #: What begins anew when a memory cannot come back.
    reseed: Literal["tile", "stream"] = "tile"
    #: Devices that hold the memory of each tile besides its home.
    standby: int = 0
    #: Seconds between two copies; 0 for none.
    snapshot_s: float = 10.0
    #: The most frames that the gateway keeps so that a memory can come back.
    kept_frames: int = 64
    #: Frames of a tile that may be on the way to a device.
    ahead: int = 4
    #: Seconds until a message or its answer counts as lost.
    patience_s: float = 5.0
    #: A second frame may be under way if one takes no longer than this.
    short_s: float = float("inf")

    @property
    def takes_copies(self) -> bool:
        """Whether copies of the memory help."""
        return self.can_copy and self.window is None and self.snapshot_s > 0


@dataclass(frozen=True, slots=True)
class Send:
    """Send this frame of a tile, or this copy, to a device."""

    device: str
    tile: int
    attempt: int
    deed: Deed
    epoch: int
    #: The frame; with `load` and `save` the last one that the memory knows.
    seq: int
    #: The version that the memory has before.
    after: int
    #: The device answers without pixels.
    silent: bool = False
    copy: bytes = b""


@dataclass(frozen=True, slots=True)
class FrameFailed:
    """The result of a frame's tile will not come."""

    tile: int
    seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class EpochBegan:
    """A tile has an empty memory at this frame."""

    tile: int
    epoch: int
    seq: int
    reason: str


Action = Send | FrameFailed | EpochBegan


@dataclass(slots=True, eq=False)
class _Holder:
    """A device with the memory of a tile."""

    device: str
    #: Counts messages that were sent anew. Refusals of earlier ones say nothing any more.
    attempt: int
    #: The first attempt of this memory: what the device said before was of another one.
    first_attempt: int
    #: The version that it has for certain, and that of the next frame to send.
    confirmed: int
    next: int
    #: The version that its memory begins with.
    start: int = 0
    #: Version → when it was sent.
    in_flight: dict[int, float] = field(default_factory=dict)
    #: The next frame is to be sent as the first one that the memory knows.
    begins: bool = False
    saving_since: float | None = None
    wait_until: float = 0.0
    #: Refusals and silences without an answer in between.
    faults: int = 0
    #: The same of messages for which the device had no room.
    fulls: int = 0
    #: It was full: all that it did not confirm is sent again when it is asked.
    is_to_send_again: bool = False


@dataclass(frozen=True, slots=True)
class _Copy:
    version: int
    data: bytes


@dataclass(slots=True)
class _Move:
    """A tile is on its way to another device."""

    device: str
    began_at: float
    #: The version of the copy that was there when it began; a newer one is waited for.
    copied: int


@dataclass(slots=True)
class _Pace:
    """How long a device takes for a pixel of each frame, by its last answers.

    It is their median: the first ones of a device load what the operators need.
    """

    answers: deque[float] = field(default_factory=lambda: deque(maxlen=_PACED))
    #: When the last one came.
    answered_at: float = 0.0

    @property
    def is_known(self) -> bool:
        return len(self.answers) == _PACED

    @property
    def seconds(self) -> float:
        return median(self.answers)


@dataclass(slots=True, eq=False)
class _Tile:
    number: int
    pixels: int
    epoch: int
    #: The first frame of the epoch.
    base: int
    #: The home and then the standbys.
    holders: list[_Holder] = field(default_factory=list)
    #: Frames without a result, in order.
    pending: list[int] = field(default_factory=list)
    copy: _Copy | None = None
    copied_at: float = 0.0
    #: The home has refused to send a copy, and is not asked before.
    no_copy_until: float = 0.0
    attempts: int = 0
    #: Frame → how often it failed.
    failures: dict[int, int] = field(default_factory=dict)
    #: Device → until when it is not used.
    avoided: dict[str, float] = field(default_factory=dict)
    move: _Move | None = None

    @property
    def home(self) -> _Holder | None:
        return self.holders[0] if self.holders else None


class Homes:
    """The homes of a stream's tiles. `pixels` has the size of each, for the devices' load."""

    def __init__(self, pixels: Sequence[int], rules: HomeRules, *, first_epoch: int = 1) -> None:
        self._rules = rules
        self._epochs = first_epoch
        self._tiles = [_Tile(at, one, first_epoch, 1) for at, one in enumerate(pixels)]
        self._speeds: dict[str, float] = {}
        self._last = 0
        self._kept_from = 1
        self._actions: list[Action] = []
        self._paces: dict[str, _Pace] = {}
        self._moved_at = float("-inf")
        #: When each frame began that a home has not done, and how long the last one took.
        self._begun: dict[int, float] = {}
        self._took_s = 0.0
        #: How often a memory came back, and how often one did not.
        self.restored = 0
        self.reseeds = 0
        #: How often a tile moved to another device.
        self.moves = 0

    # --- what a caller may ask --------------------------------------------------------------

    def actions(self) -> list[Action]:
        """Return what is to be done since the last call, in order."""
        found, self._actions = self._actions, []
        return found

    @property
    def kept_from(self) -> int:
        """The first frame that must be kept; all before it may be forgotten."""
        return self._kept_from

    @property
    def epoch(self) -> int:
        """The newest epoch of all tiles."""
        return self._epochs

    @property
    def is_ready(self) -> bool:
        """Whether another frame can begin: each tile has a home that keeps up."""
        return all(
            tile.home is not None and len(tile.pending) < self._rules.ahead for tile in self._tiles
        )

    @property
    def has_room(self) -> bool:
        """Whether the homes have done the frames before, so that another one would be done soon.

        A frame that nobody waits for any more is still done, since later ones depend on it. If
        another one began meanwhile, the homes would fall behind, and no result would be in time.
        """
        return len(self._begun) < (_MOST_BEGUN if self._took_s <= self._rules.short_s else 1)

    @property
    def has_homes(self) -> bool:
        """Whether each tile has a home."""
        return all(tile.home is not None for tile in self._tiles)

    def homes(self) -> dict[int, tuple[str, ...]]:
        """Return each tile with its home and its standbys."""
        return {one.number: tuple(each.device for each in one.holders) for one in self._tiles}

    def first_frame(self, tile: int) -> int:
        """Return the first frame of the tile's epoch."""
        return self._tiles[tile].base

    def epoch_of(self, tile: int) -> int:
        """Return the tile's epoch."""
        return self._tiles[tile].epoch

    def warming(self, seq: int) -> tuple[int, ...]:
        """Return the tiles whose memory is too young at this frame for its result to mean much."""
        warmup = self._rules.warmup
        return tuple(one.number for one in self._tiles if seq - one.base < warmup)

    def wake_at(self) -> float:
        """Return when `tick` has something to do, if nothing else happens before."""
        times = [float("inf")]
        for tile in self._tiles:
            for holder in tile.holders:
                times += [one + self._rules.patience_s for one in holder.in_flight.values()]
                if holder.wait_until:
                    times.append(holder.wait_until)
                if holder.saving_since is not None:
                    times.append(holder.saving_since + self._rules.patience_s)
            if not tile.holders and tile.avoided and self._speeds:
                times.append(min(tile.avoided.values()))
        return min(times)

    # --- what happens ---------------------------------------------------------------------

    def set_devices(self, speeds: Mapping[str, float], now: float) -> None:
        """Take the devices that can do tiles, with their speeds in pixels per second."""
        self._speeds = dict(speeds)
        self._paces = {name: one for name, one in self._paces.items() if name in speeds}
        for tile in self._tiles:
            for holder in [one for one in tile.holders if one.device not in speeds]:
                self._drop(tile, holder, now)
        self._settle(now)

    def restart_device(self, device: str, now: float) -> None:
        """Report that a device began anew, without the memories that it held."""
        for tile in self._tiles:
            for holder in [one for one in tile.holders if one.device == device]:
                self._drop(tile, holder, now)
        self._settle(now)

    def begin(self, seq: int, now: float) -> None:
        """Begin the frame `seq`, which is one more than the one before."""
        if seq != self._last + 1:
            raise ValueError(f"frame {seq} cannot follow frame {self._last}")
        self._last = seq
        self._begun[seq] = now
        for tile in self._tiles:
            tile.pending.append(seq)
        self._settle(now)

    def answered(
        self, device: str, tile: int, attempt: int, epoch: int, after: int, seq: int, now: float
    ) -> bool:
        """Report that a device has done a frame; returns whether a result is the first for it.

        A result that is not the first, or is of an earlier epoch, must not be used. For an answer
        without pixels the returned value says nothing.
        """
        one = self._tile(tile)
        if one is None or epoch != one.epoch or seq != one.base + after:
            return False
        holder = self._holder(one, device)
        if holder is not None and attempt >= holder.first_attempt:
            holder.confirmed = max(holder.confirmed, after + 1)
            holder.faults = holder.fulls = 0
            self._learn(one, holder, after, now)
            if attempt == holder.attempt:  # a later one may have asked for the pixels, too
                holder.in_flight.pop(after, None)
        is_first = seq in one.pending
        self._settle(now)
        return is_first

    def took(self, tile: int, seq: int, now: float) -> None:
        """Report that the result of a tile's frame was used."""
        one = self._tiles[tile]
        if seq in one.pending:
            one.pending.remove(seq)
            one.failures.pop(seq, None)
        self._settle(now)

    def saved(
        self,
        device: str,
        tile: int,
        attempt: int,
        epoch: int,
        version: int,
        data: bytes,
        now: float,
    ) -> None:
        """Report that a device has sent a copy of a tile's memory."""
        one = self._tile(tile)
        if one is None or epoch != one.epoch:
            return
        holder = self._holder(one, device)
        if holder is not None and attempt >= holder.first_attempt:
            holder.saving_since = None
        if one.copy is None or version > one.copy.version:
            one.copy, one.copied_at = _Copy(version, data), now
        self._settle(now)

    def spoiled(self, device: str, tile: int, epoch: int, seq: int, now: float) -> None:
        """Report that the result of a frame arrived and cannot be used: ask for it again."""
        one = self._tile(tile)
        holder = None if one is None else self._holder(one, device)
        if one is None or holder is None or epoch != one.epoch or seq not in one.pending:
            return
        one.failures[seq] = one.failures.get(seq, 0) + 1
        if one.failures[seq] >= TRIES:
            self._fail(one, seq, "no result of the tile could be used")
        else:
            self._send_again(one, holder)
        self._settle(now)

    def refused(
        self,
        device: str,
        tile: int,
        attempt: int,
        epoch: int,
        after: int,
        have: int,
        now: float,
        deed: Deed = "apply",
    ) -> None:
        """Report that a device's memory has the version `have`, and not the version `after`.

        -1 means that it has none of this epoch. `deed` is that of the message.
        """
        found = self._current(device, tile, attempt, epoch)
        if found is None:
            return
        one, holder = found
        if deed == "save" and have >= 0:  # frames went astray, and are sent again without this
            holder.saving_since, one.copied_at = None, now
            one.no_copy_until = now + COPY_AGAIN_S
        elif 0 <= after < have:  # it did that before
            holder.confirmed = max(holder.confirmed, have)
            if deed == "apply":  # and has forgotten the answer
                holder.in_flight.pop(after, None)
                self._fail(one, one.base + after, "the answer of the device was lost")
        elif have < 0 or one.base + have < self._kept_from:
            self._fault(one, holder, now)
        else:
            holder.confirmed = have
            holder.start = min(holder.start, have)  # the copy that it was sent is lost
            self._send_again(one, holder)
        self._settle(now)

    def failed(
        self, device: str, tile: int, attempt: int, epoch: int, seq: int, reason: str, now: float
    ) -> None:
        """Report that the operators failed for a frame. The device has forgotten the memory."""
        found = self._current(device, tile, attempt, epoch)
        if found is None:
            return
        one, holder = found
        one.failures[seq] = one.failures.get(seq, 0) + 1
        self._drop(one, holder, now)
        if one.failures[seq] >= TRIES:
            self._begin_epoch(one, max(seq + 1, one.base + 1), reason)
        self._settle(now)

    def full(self, device: str, tile: int, attempt: int, epoch: int, now: float) -> None:
        """Report that a device had no room for a message; it is asked again soon.

        Until it answers, it gets one message at a time.
        """
        found = self._current(device, tile, attempt, epoch)
        if found is None:
            return
        one, holder = found
        self._next_attempt(one, holder)
        holder.in_flight.clear()
        holder.saving_since = None
        holder.is_to_send_again = True
        holder.wait_until = now + min(FULL_S * 2**holder.fulls, FULL_LIMIT_S)
        holder.fulls = min(holder.fulls + 1, _MOST_FULLS)
        self._settle(now)

    def give_up(self, seq: int, now: float) -> None:
        """Want no result of a frame any more. The memories still learn from it."""
        for tile in self._tiles:
            if seq in tile.pending:
                tile.pending.remove(seq)
        self._settle(now)

    def tick(self, now: float) -> None:
        """Send again what was not answered in time."""
        for tile in self._tiles:
            for holder in list(tile.holders):
                self._check_silence(tile, holder, now)
            tile.avoided = {name: at for name, at in tile.avoided.items() if at > now}
        self._settle(now)

    # --- memories -------------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        """Find homes for the tiles that have none, and send what can be sent."""
        for tile in self._tiles:
            if tile.home is None:
                self._find_home(tile, now)
            while len(tile.holders) in range(1, 1 + self._rules.standby):
                if not self._add_standby(tile, now):
                    break
            self._advance_move(tile, now)
            most = 1 + self._rules.standby + (tile.move is not None)
            del tile.holders[most:]  # a move that was given up leaves one more
            for holder in tile.holders[1:]:
                if self._last - (tile.base + holder.next) > self._rules.kept_frames:
                    tile.holders.remove(holder)  # too slow to be of use
            for holder in list(tile.holders):
                self._pump(tile, holder, now)
            self._ask_for_copy(tile, now)
        self._begin_move(now)
        self._note_done(now)
        self._kept_from = max(self._kept_from, min(map(self._needed_from, self._tiles)))

    def _note_done(self, now: float) -> None:
        """Take notice of the frames that all homes have done."""
        homes = ((one.base, one.home) for one in self._tiles)
        known = [base + max(home.confirmed, home.start) for base, home in homes if home is not None]
        done = min(known, default=self._last + 1)
        for seq in [one for one in self._begun if one < done]:
            self._took_s = now - self._begun.pop(seq)

    def _find_home(self, tile: _Tile, now: float) -> None:
        device = self._choose(tile, now)
        if device is None:
            return
        holder = self._new_holder(tile, device)
        tile.holders.insert(0, holder)
        is_fresh = self._first_wanted(tile) == tile.base
        if not self._seed(tile, holder):
            self._forget(tile, f"the memory of tile {tile.number} is lost")
        elif not is_fresh:
            self.restored += 1

    def _add_standby(self, tile: _Tile, now: float) -> bool:
        device = self._choose(tile, now)
        if device is None:
            return False
        holder = self._new_holder(tile, device)
        if not self._seed(tile, holder):
            return False
        tile.holders.append(holder)
        return True

    def _seed(self, tile: _Tile, holder: _Holder) -> bool:
        """Give a new holder the memory that it needs for the next result; False if none can."""
        wanted = self._first_wanted(tile) - tile.base
        earliest = max(0, self._kept_from - tile.base)
        window = self._rules.window
        start = 0 if window is None else max(0, wanted - window)
        copy = tile.copy
        if start >= earliest:
            holder.begins, holder.confirmed = True, -1
            holder.next = holder.start = start
            return True
        if copy is None or copy.version < earliest:
            return False
        holder.begins, holder.confirmed = False, -1
        holder.next = holder.start = copy.version
        is_home = tile.home is None or holder is tile.home
        seq = tile.base + copy.version - 1
        self._act(
            Send(
                holder.device,
                tile.number,
                holder.attempt,
                "load",
                tile.epoch,
                seq,
                copy.version,
                silent=True,
                copy=copy.data,
            )
        )
        if is_home:
            self._fail_before(tile, tile.base + copy.version)
        return True

    # --- moves ----------------------------------------------------------------------------

    def _learn(self, tile: _Tile, holder: _Holder, after: int, now: float) -> None:
        """Learn how fast a device is: it gets each frame of all its tiles at about the same time.

        Frames by which it catches up are left out: it gets many of them at once.
        """
        sent_at, at_version = holder.in_flight.get(after), self._last - tile.base
        if sent_at is not None and after + self._rules.ahead > at_version:
            pixels = self._load(holder.device)
            pace = self._paces.setdefault(holder.device, _Pace())
            pace.answers.append((now - sent_at) / max(1, pixels))
            pace.answered_at = now

    def _load(self, device: str) -> int:
        """Return the pixels of each frame that a device does."""
        held = (one for one in self._tiles if self._holder(one, device) is not None)
        return sum(one.pixels for one in held)

    def _cost(self, device: str) -> float:
        """Return the seconds that a device takes for a pixel, in any unit that all share."""
        known = {name: one for name, one in self._paces.items() if one.is_known}
        own = known.get(device)
        if own is not None:
            return own.seconds
        # What is said of its speed, in the unit of those that are measured.
        units = [one.seconds * self._speeds[name] for name, one in known.items()]
        return (sum(units) / len(units) if units else 1.0) / self._speeds[device]

    def _can_move(self) -> bool:
        return self._rules.window is not None or self._rules.takes_copies

    def _begin_move(self, now: float) -> None:
        """Begin to move a tile of the slowest device, if another one would do it sooner."""
        if now < self._moved_at + MOVE_S or not self._can_move() or len(self._speeds) < 2:
            return
        if not self.has_homes or any(one.move is not None for one in self._tiles):
            return
        self._forget_old_paces(now)
        costs = {name: self._cost(name) for name in self._speeds}
        times = {name: costs[name] * self._load(name) for name in self._speeds}
        slowest = max(times, key=lambda name: times[name])
        best: tuple[float, _Tile, str] | None = None
        for tile in self._tiles:
            if tile.home is None or tile.home.device != slowest or tile.home.confirmed < 1:
                continue
            for name in self._speeds:
                if self._holder(tile, name) is not None or tile.avoided.get(name, 0.0) > now:
                    continue
                left = times[slowest] - costs[slowest] * tile.pixels
                after = max(left, times[name] + costs[name] * tile.pixels)
                if after < MOVE_GAIN * times[slowest] and (best is None or after < best[0]):
                    best = after, tile, name
        if best is None:
            return
        _, tile, name = best
        if not self._load(name):
            self._paces.pop(name, None)  # it is measured anew before it becomes the home
        tile.move = _Move(name, now, tile.copy.version if tile.copy else -1)
        self._moved_at = now
        if self._rules.window is None:
            tile.copied_at = float("-inf")  # ask for a copy soon: fewer frames must follow it

    def _forget_old_paces(self, now: float) -> None:
        """Give devices without a tile another chance: one that was slow may only have loaded."""
        for name, pace in list(self._paces.items()):
            if now > pace.answered_at + AVOID_S and not self._load(name):
                del self._paces[name]

    def _advance_move(self, tile: _Tile, now: float) -> None:
        """Bring the memory to the new device, and make it the home when it has caught up."""
        move, home = tile.move, tile.home
        if move is None:
            return
        holder = self._holder(tile, move.device)
        is_late = now > move.began_at + MOVE_LIMIT_S
        if home is None or holder is home or move.device not in self._speeds or is_late:
            self._end_move(tile, now, failed=is_late)
            return
        if holder is None:
            has_copy = tile.copy is not None and tile.copy.version > move.copied
            if self._rules.window is None and not has_copy:
                return
            holder = self._new_holder(tile, move.device)
            if not self._seed(tile, holder):
                self._end_move(tile, now, failed=True)
                return
            tile.holders.append(holder)
        elif holder.confirmed >= max(1, home.confirmed) and self._is_paced(move.device):
            if not self._is_sooner(tile, home.device, move.device):
                self._end_move(tile, now, failed=True)
                return
            tile.holders.remove(holder)
            tile.holders.remove(home)
            tile.holders.insert(0, holder)
            tile.move = None
            self.moves += 1
            self._send_again(tile, holder)

    def _is_paced(self, device: str) -> bool:
        pace = self._paces.get(device)
        return pace is not None and pace.is_known

    def _is_sooner(self, tile: _Tile, old: str, new: str) -> bool:
        """Whether both devices, which do the tile now, are done sooner if only the new one does."""
        before, cost = self._cost(old) * self._load(old), self._cost(old)
        after = max(before - cost * tile.pixels, self._cost(new) * self._load(new))
        return after < MOVE_LEAST_GAIN * before

    def _end_move(self, tile: _Tile, now: float, *, failed: bool) -> None:
        """Give a move up."""
        move, tile.move = tile.move, None
        if move is None or not failed:
            return
        tile.avoided[move.device] = now + AVOID_S
        holder = self._holder(tile, move.device)
        if holder is not None and holder is not tile.home:
            tile.holders.remove(holder)

    def _forget(self, tile: _Tile, reason: str) -> None:
        """Begin a new epoch, of the tile or of all tiles."""
        self.reseeds += 1
        if self._rules.reseed == "tile":
            self._begin_epoch(tile, self._first_wanted(tile), reason)
            return
        self._epochs += 1
        for one in self._tiles:
            self._fail_before(one, self._last + 1)
            self._set_epoch(one, self._epochs, self._last + 1, reason)

    def _begin_epoch(self, tile: _Tile, base: int, reason: str) -> None:
        self._epochs += 1
        self._fail_before(tile, base)
        self._set_epoch(tile, self._epochs, base, reason)

    def _set_epoch(self, tile: _Tile, epoch: int, base: int, reason: str) -> None:
        tile.epoch, tile.base, tile.copy, tile.move = epoch, base, None, None
        tile.failures.clear()
        self._act(EpochBegan(tile.number, epoch, base, reason))
        for holder in tile.holders:
            self._restart(tile, holder)
            holder.begins = True
            holder.next = holder.start = 0

    def _restart(self, tile: _Tile, holder: _Holder) -> None:
        """Take the holder's memory for empty."""
        self._next_attempt(tile, holder)
        holder.first_attempt = holder.attempt
        holder.confirmed = -1
        holder.in_flight.clear()
        holder.saving_since = None

    def _fault(self, tile: _Tile, holder: _Holder, now: float) -> None:
        """Give a holder a memory again that it does not have; or replace it."""
        faults = holder.faults + 1
        self._drop(tile, holder, now, avoid=faults >= TRIES)
        if faults >= TRIES or tile.home is not None:
            return
        again = self._new_holder(tile, holder.device)
        again.faults = faults
        if self._seed(tile, again):
            tile.holders.insert(0, again)
            self.restored += 1

    def _drop(self, tile: _Tile, holder: _Holder, now: float, *, avoid: bool = False) -> None:
        was_home = holder is tile.home
        tile.holders.remove(holder)
        if avoid:
            tile.avoided[holder.device] = now + AVOID_S
        if was_home and tile.home is not None:
            self.restored += 1
            self._send_again(tile, tile.home)

    def _fail_before(self, tile: _Tile, seq: int) -> None:
        for one in [one for one in tile.pending if one < seq]:
            self._fail(tile, one, "the memory of the tile was lost")

    def _fail(self, tile: _Tile, seq: int, reason: str) -> None:
        if seq in tile.pending:
            tile.pending.remove(seq)
            tile.failures.pop(seq, None)
            self._act(FrameFailed(tile.number, seq, reason))

    # --- messages -------------------------------------------------------------------------

    def _pump(self, tile: _Tile, holder: _Holder, now: float) -> None:
        if now < holder.wait_until:
            return
        holder.wait_until = 0.0
        if holder.is_to_send_again:
            holder.is_to_send_again = False
            self._send_again(tile, holder)
            if holder not in tile.holders:
                return  # what would bring its memory back is gone
        most = 1 if holder.fulls else self._rules.ahead
        while len(holder.in_flight) < most:
            seq = tile.base + holder.next
            if seq > self._last:
                return
            if holder.next < holder.confirmed and seq not in tile.pending:
                holder.next += 1  # it is done, and so is its result
                continue
            deed: Deed = "begin" if holder.begins else "apply"
            holder.begins = False
            silent = holder is not tile.home or seq not in tile.pending
            self._act(
                Send(
                    holder.device,
                    tile.number,
                    holder.attempt,
                    deed,
                    tile.epoch,
                    seq,
                    holder.next,
                    silent=silent,
                )
            )
            holder.in_flight[holder.next] = now
            holder.next += 1

    def _ask_for_copy(self, tile: _Tile, now: float) -> None:
        home = tile.home
        if home is None or not self._rules.takes_copies or home.saving_since is not None:
            return
        if now < tile.no_copy_until:
            return
        if home.wait_until or tile.base + home.next <= self._last:
            return  # not all frames are sent, so its version is not known
        since = home.confirmed - (tile.copy.version if tile.copy else 0)
        is_due = now >= tile.copied_at + self._rules.snapshot_s
        if since < 1 or not (is_due or since >= self._rules.kept_frames // 2):
            return
        home.saving_since = now
        seq = tile.base + home.next - 1
        self._act(Send(home.device, tile.number, home.attempt, "save", tile.epoch, seq, home.next))

    def _send_again(self, tile: _Tile, holder: _Holder) -> None:
        """Send all that was not confirmed, and what has no result, as a new attempt."""
        self._next_attempt(tile, holder)
        holder.in_flight.clear()
        holder.saving_since = None
        if holder.confirmed < 0:  # it may not have got its memory
            holder.first_attempt = holder.attempt
            if not self._seed(tile, holder):
                tile.holders.remove(holder)
            return
        holder.next = holder.confirmed
        if holder is tile.home and tile.pending:
            holder.next = min(holder.next, max(0, tile.pending[0] - tile.base))

    def _check_silence(self, tile: _Tile, holder: _Holder, now: float) -> None:
        patience_s = self._rules.patience_s
        if holder.saving_since is not None and holder.saving_since + patience_s <= now:
            holder.saving_since = None
        if min(holder.in_flight.values(), default=now) + patience_s > now:
            return
        holder.faults += 1
        if holder.faults >= TRIES:
            self._drop(tile, holder, now, avoid=True)
        else:
            self._send_again(tile, holder)

    # --- helpers --------------------------------------------------------------------------

    def _act(self, action: Action) -> None:
        self._actions.append(action)

    def _tile(self, number: int) -> _Tile | None:
        return self._tiles[number] if 0 <= number < len(self._tiles) else None

    def _holder(self, tile: _Tile, device: str) -> _Holder | None:
        return next((one for one in tile.holders if one.device == device), None)

    def _current(
        self, device: str, number: int, attempt: int, epoch: int
    ) -> tuple[_Tile, _Holder] | None:
        """Return tile and holder that a complaint is about; None if it is out of date."""
        tile = self._tile(number)
        holder = None if tile is None else self._holder(tile, device)
        if tile is None or holder is None or (attempt, epoch) != (holder.attempt, tile.epoch):
            return None
        return tile, holder

    def _new_holder(self, tile: _Tile, device: str) -> _Holder:
        tile.attempts += 1
        return _Holder(device, tile.attempts, tile.attempts, -1, 0)

    def _next_attempt(self, tile: _Tile, holder: _Holder) -> None:
        tile.attempts += 1
        holder.attempt = tile.attempts

    def _choose(self, tile: _Tile, now: float) -> str | None:
        """Return the device that would be done first with the tile and all that it has."""
        taken = {one.device for one in tile.holders}
        free = [
            name
            for name in self._speeds
            if name not in taken and tile.avoided.get(name, 0.0) <= now
        ]

        def seconds(name: str) -> tuple[float, str]:
            return self._cost(name) * (self._load(name) + tile.pixels), name

        return min(free, key=seconds, default=None)

    def _first_wanted(self, tile: _Tile) -> int:
        """Return the first frame whose result is still to come."""
        return tile.pending[0] if tile.pending else self._last + 1

    def _needed_from(self, tile: _Tile) -> int:
        """Return the first frame without which a result, or a memory, could not come."""
        wanted = self._first_wanted(tile)
        known = (max(one.confirmed, one.start) for one in tile.holders)
        needed = min([wanted, *(tile.base + version for version in known)])
        if self._rules.window is not None:
            return max(tile.base, min(needed, wanted - self._rules.window))
        if not self._rules.takes_copies:
            return needed
        since = tile.base + (tile.copy.version if tile.copy else 0)
        return min(needed, max(since, self._last + 1 - self._rules.kept_frames))
