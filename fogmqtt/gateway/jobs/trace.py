"""The course of a job: the state of each tile now, and when each attempt of a tile was where.

It is recorded for every job. `StageTrace` takes what happens to the tiles of one stage, and
`JobTrace` what the whole job does. All times are seconds of the gateway's clock. A device has a
clock of its own, so it reports durations, which are placed between sending and receiving.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from fogmqtt.core.geometry import Rect, Tile
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.jobs.trace_values import (
    PHASES,
    AttemptEnd,
    JobTraceSnapshot,
    TileNow,
    TilesNow,
    TracedAttempt,
    TracedSpan,
)
from fogmqtt.wire.service_messages import TileStatus
from fogmqtt.wire.topics import LOCAL

#: The attempts and the steps that a job keeps, at most. About 15 MB.
MAX_ATTEMPTS: Final = 20_000
MAX_SPANS: Final = 2_000
#: The ended attempts of a tile whose late results are expected, besides the newest one.
_ENDED: Final = 2
#: A duration beyond this is no duration.
_LONGEST_S: Final = 1e6

(
    _WAIT,
    _CUT,
    _ENCODE,
    _QUEUE,
    _WIRE_OUT,
    _DEVICE_QUEUE,
    _START,
    _DECODE,
    _COMPUTE,
    _ENCODE_RESULT,
    _DEVICE,
    _WIRE_BACK,
    _CHECK,
    _MERGE_QUEUE,
    _PASTE,
) = range(len(PHASES))
#: What a worker does, one tile after the other.
_WORK: Final = slice(_START, _DEVICE)


@dataclass(frozen=True, slots=True)
class DeviceTimes:
    """What a device reports of a tile, in seconds; None is what it does not tell.

    `compute_s` is all the work of the worker, of which `decode_s` and `encode_s` are parts.
    """

    queue_s: float | None = None
    start_s: float | None = None
    compute_s: float | None = None
    decode_s: float | None = None
    encode_s: float | None = None
    worker: int | None = None


_NO_TIMES: Final = DeviceTimes()

#: Tile, attempt, device.
Key = tuple[int, int, str]


@dataclass(slots=True, eq=False)
class AttemptRecord:
    """One attempt, with the times of what has happened to it so far."""

    stage: str
    tile: int
    core: Rect
    attempt: int
    device: str
    is_hedge: bool
    ordered_at: float
    cut_began_at: float | None = None
    cut_at: float | None = None
    encoded_at: float | None = None
    published_at: float | None = None
    accepted_at: float | None = None
    received_at: float | None = None
    checked_at: float | None = None
    paste_began_at: float | None = None
    ended_at: float | None = None
    times: DeviceTimes = _NO_TIMES
    end: AttemptEnd = AttemptEnd.RUNNING
    bytes_out: int = 0
    bytes_back: int = 0
    reason: str = ""

    @property
    def key(self) -> Key:
        return self.tile, self.attempt, self.device

    @property
    def status(self) -> TileStatus:
        if self.accepted_at is not None:
            return "running"
        return "cutting" if self.published_at is None else "sent"

    def phases(self, at: float) -> list[float]:
        """Return the seconds of each phase up to `at`, or up to its end."""
        end = at if self.ended_at is None else self.ended_at
        phases = [0.0] * len(PHASES)
        moment = self.ordered_at
        before = (self.cut_began_at, self.cut_at, self.encoded_at, self.published_at)
        for phase, mark in zip((_WAIT, _CUT, _ENCODE, _QUEUE), before, strict=True):
            phases[phase] = max(0.0, (end if mark is None else mark) - moment)
            moment += phases[phase]
            if mark is None:
                return phases
        if self.received_at is None:
            arrived = end if self.accepted_at is None else self.accepted_at
            phases[_WIRE_OUT] = max(0.0, arrived - moment)
            phases[_DEVICE] = max(0.0, end - moment - phases[_WIRE_OUT])
            return phases
        self._add_remote(phases, moment, max(moment, self.received_at))
        moment = max(moment, self.received_at)
        after = (self.checked_at, self.paste_began_at, None)
        for phase, mark in zip((_CHECK, _MERGE_QUEUE, _PASTE), after, strict=True):
            phases[phase] = max(0.0, (end if mark is None else mark) - moment)
            moment += phases[phase]
            if mark is None:
                break
        return phases

    def _add_remote(self, phases: list[float], sent: float, received: float) -> None:
        """Place what the device reports into the time from sending to receiving."""
        times, room_s = self.times, received - sent
        if times.compute_s is None and times.queue_s is None:
            arrived = sent if self.accepted_at is None else min(self.accepted_at, received)
            phases[_WIRE_OUT] = max(0.0, arrived - sent)
            phases[_DEVICE] = room_s - phases[_WIRE_OUT]
            return
        queue_s, start_s = _seconds(times.queue_s), _seconds(times.start_s)
        work_s = _seconds(times.compute_s)
        decode_s = min(_seconds(times.decode_s), work_s)
        encode_s = min(_seconds(times.encode_s), work_s - decode_s)
        parts = [queue_s, start_s, decode_s, work_s - decode_s - encode_s, encode_s]
        if (total_s := sum(parts)) > room_s:  # clocks differ in speed, and a device may lie
            parts = [part * room_s / total_s for part in parts]
            total_s = room_s
        phases[_DEVICE_QUEUE:_DEVICE] = parts
        latest = received - total_s
        if self.accepted_at is None:
            share = self.bytes_out / max(1, self.bytes_out + self.bytes_back)
            arrived = sent + (latest - sent) * share
        else:  # the device accepts a tile at once, in a message that travels fast
            arrived = min(max(self.accepted_at, sent), latest)
        phases[_WIRE_OUT] = arrived - sent
        phases[_WIRE_BACK] = max(0.0, room_s - total_s - phases[_WIRE_OUT])


def _seconds(value: float | None) -> float:
    """Return a duration that a device reported; 0 for what can be none."""
    return value if value is not None and 0.0 <= value < _LONGEST_S else 0.0


@dataclass(slots=True, eq=False)
class _TracedTile:
    """A tile with its live attempts, the oldest first, and the newest ones that ended."""

    index: int
    core: Rect
    is_check: bool
    live: list[AttemptRecord] = field(default_factory=list)
    device: str = ""
    attempt: int = 0
    is_split: bool = False
    is_done: bool = False
    ended: list[AttemptRecord] = field(default_factory=list)

    def now(self) -> TileNow:
        status: TileStatus = "waiting"
        if self.is_split or self.is_done:
            status = "split" if self.is_split else "done"
        elif self.live:
            status = self.live[0].status
        device = self.live[0].device if self.live and not self.is_done else self.device
        copies = len(self.live)
        return TileNow(self.index, self.core, status, device, self.attempt, copies, self.is_check)


class StageTrace:
    """What happens to the tiles of one stage. It belongs to the event loop.

    `size` is that of the image that enters it. Versions of its tiles begin after `version`. `keep`
    is called with each attempt when it begins, and `ended` when it has ended.
    """

    def __init__(
        self,
        key: str,
        number: int,
        size: tuple[int, int],
        tiles: Iterable[Tile],
        version: int,
        keep: Callable[[AttemptRecord], None],
        ended: Callable[[AttemptRecord], None],
    ) -> None:
        self.key = key
        self.number = number
        self.size = size
        self._keep = keep
        self._on_end = ended
        self.version = version + 1
        #: All tiles, the one that changed last at the end.
        self._tiles: dict[int, tuple[int, _TracedTile]] = {}
        #: The attempts that have not ended.
        self._open: dict[Key, AttemptRecord] = {}
        for tile in tiles:
            self._add(tile)

    # The state of the tiles.

    def _add(self, tile: Tile, *, is_check: bool = False) -> _TracedTile:
        traced = _TracedTile(tile.index, tile.core, is_check)
        self._tiles[tile.index] = self.version, traced
        return traced

    def add_check_tiles(self, tiles: Iterable[Tile]) -> None:
        for tile in tiles:
            self._add(tile, is_check=True)

    def add_done(self, done: Mapping[int, str]) -> None:
        """Show tiles that an earlier run of the gateway finished, by their devices."""
        for index, device in done.items():
            tile = self._tile(index)
            tile.is_done, tile.device = True, device

    def add_split(self, split: Iterable[int]) -> None:
        """Show tiles as split by an earlier run of the gateway."""
        for index in split:
            self._tile(index).is_split = True

    def split(self, index: int, halves: Sequence[Tile]) -> None:
        """A tile is replaced by two halves."""
        self._tile(index).is_split = True
        for half in halves:
            self._add(half)
            self._touch(half.index)
        self._touch(index)

    def now(self, since: int = -1) -> TilesNow:
        """Return the tiles that changed after version `since`."""
        changed = []
        for version, tile in reversed(self._tiles.values()):
            if version <= since:
                break
            changed.append(tile.now())
        return TilesNow(self.number, self.size, self.version, len(self._tiles), changed)

    def _tile(self, index: int) -> _TracedTile:
        return self._tiles[index][1]

    def _touch(self, index: int) -> None:
        self.version += 1
        self._tiles[index] = self.version, self._tiles.pop(index)[1]

    # The course of an attempt.

    def live(self, index: int | None = None) -> tuple[AttemptRecord, ...]:
        """Return the attempts that have not ended, of one tile or of all."""
        return tuple(self._open.values() if index is None else self._tile(index).live)

    def ordered(self, key: Key) -> None:
        """The scheduler gives a tile to a device."""
        index, attempt, device = key
        tile = self._tile(index)
        is_hedge = bool(tile.live)
        made = AttemptRecord(self.key, index, tile.core, attempt, device, is_hedge, now())
        self._open[key] = made
        tile.live.append(made)
        tile.attempt, tile.is_done = attempt, False
        self._keep(made)
        self._touch(index)

    def encoded(self, key: Key, began: float, cut: float, done: float) -> None:
        """A tile was cut from `began` to `cut`, and encoded until `done`."""
        if (record := self._open.get(key)) is not None:
            record.cut_began_at, record.cut_at, record.encoded_at = began, cut, done

    def published(self, key: Key, nbytes: int) -> None:
        """A tile was handed to the link."""
        if (record := self._open.get(key)) is not None:
            record.published_at, record.bytes_out = now(), nbytes
            self._touch(key[0])

    def accepted(self, key: Key, at: float) -> None:
        """The device has a tile."""
        record = self._open.get(key)
        if record is not None and record.accepted_at is None:
            record.accepted_at = at
            self._touch(key[0])

    def received(self, key: Key, at: float, times: DeviceTimes, nbytes: int) -> None:
        """The result arrived."""
        record = self._record(key)
        if record is None or record.received_at is not None:
            return
        if record.ended_at is not None:  # late
            record.ended_at = max(record.ended_at, at)
        record.received_at, record.times, record.bytes_back = at, times, nbytes

    def done_here(
        self, key: Key, began: float, cut: float, encoded: float, done: float, times: DeviceTimes
    ) -> None:
        """A tile was done on this machine, whose clock is the same."""
        if (record := self._open.get(key)) is not None:
            record.cut_began_at, record.cut_at, record.encoded_at = began, cut, encoded
            record.published_at = record.accepted_at = encoded
            record.received_at, record.times = done, times

    def checked(self, key: Key) -> None:
        """The result passed the checks."""
        if (record := self._record(key)) is not None:
            record.checked_at = now()

    def kept(self, key: Key) -> None:
        """The result counts, and will be pasted."""
        tile = self._tile(key[0])
        record = self._record(key)
        self._take(key)
        tile.is_done, tile.device = True, key[2]
        if record is not None:
            record.end = AttemptEnd.KEPT
            for other in tile.ended:
                _outrun(other, record)
            tile.ended = [*tile.ended[-_ENDED:], record]
        self._touch(key[0])

    def pasted(self, index: int, began: float) -> None:
        """The kept result was pasted."""
        ended = self._tile(index).ended
        if ended and ended[-1].end is AttemptEnd.KEPT:
            ended[-1].paste_began_at, ended[-1].ended_at = began, now()
            self._on_end(ended[-1])

    def dropped(self, key: Key, reason: str) -> None:
        """The result does not count."""
        tile = self._tile(key[0])
        end = AttemptEnd.REFUTED if reason == "refuted" else AttemptEnd.OUTRUN
        if tile.is_check and reason == "check result":
            end, tile.is_done, tile.device = AttemptEnd.CHECKED, True, key[2]
        self.ended(key, end)

    def revoked(self, index: int) -> None:
        """A kept result does not count any more."""
        tile = self._tile(index)
        tile.is_done, tile.device = False, ""
        for record in tile.ended:
            if record.end is AttemptEnd.KEPT:
                record.end = AttemptEnd.REFUTED
        self._touch(index)

    def ended(self, key: Key, end: AttemptEnd, reason: str = "") -> None:
        """An attempt ended without a result that counts."""
        record = self._take(key)
        if record is None:
            return
        record.end, record.reason, record.ended_at = end, reason, now()
        tile = self._tile(key[0])
        tile.ended = [*tile.ended[-_ENDED:], record]
        self._touch(key[0])
        self._on_end(record)

    def close(self) -> None:
        """The stage ended. What still runs is cancelled."""
        for key in tuple(self._open):
            self.ended(key, AttemptEnd.CANCELLED)

    def _take(self, key: Key) -> AttemptRecord | None:
        record = self._open.pop(key, None)
        if record is not None:
            self._tile(key[0]).live.remove(record)
        return record

    def _record(self, key: Key) -> AttemptRecord | None:
        """The attempt, also if it has ended a short while ago: its result may be late."""
        record = self._open.get(key)
        if record is not None:
            return record
        return next((one for one in self._tile(key[0]).ended if one.key == key), None)


def _outrun(other: AttemptRecord, kept: AttemptRecord) -> None:
    """Say of an attempt that was taken back because of this result that it was outrun."""
    if other is kept or other.end is not AttemptEnd.TAKEN_BACK or kept.received_at is None:
        return
    if other.ended_at is not None and other.ended_at >= kept.received_at:
        other.end = AttemptEnd.OUTRUN


class JobTrace:
    """The course of one job. `span` may be used in any thread, all else in the event loop."""

    def __init__(
        self,
        job: str,
        name: str,
        pipeline: str,
        *,
        traceparent: str = "",
        ended: Callable[[AttemptRecord], None] | None = None,
    ) -> None:
        self.job = job
        self.name = name
        self.pipeline = pipeline
        self.traceparent = traceparent
        self.submitted_at = now()
        self._submitted_unix = time.time()
        self._ended_at: float | None = None
        self._ended = ended or _ignore
        self._stage: StageTrace | None = None
        self._attempts: list[AttemptRecord] = []
        self._spans: list[tuple[str, str, float, float]] = []
        self._left_out = 0

    # What the job does.

    @contextmanager
    def span(self, name: str, track: str = "job") -> Iterator[None]:
        """Record the block as a step of the job."""
        began = now()
        try:
            yield
        finally:
            self.add_span(name, began, track)

    def add_span(self, name: str, began: float, track: str = "job") -> None:
        """Record a step from `began` until now."""
        if len(self._spans) < MAX_SPANS:
            self._spans.append((name, track, began, now()))

    def begin_stage(self, key: str, size: tuple[int, int], tiles: Iterable[Tile]) -> StageTrace:
        """Begin with the tiles of a stage, which `tiles` returns from now on."""
        number, version = (self._stage.number, self._stage.version) if self._stage else (0, -1)
        self._stage = StageTrace(key, number + 1, size, tiles, version, self._keep, self._ended)
        return self._stage

    def whole_stage(self, key: str, size: tuple[int, int], *, is_done: bool) -> None:
        """Show a stage that this machine does whole as one tile of its own."""
        stage = self.begin_stage(key, size, [Tile(0, Rect(0, 0, *size), Rect(0, 0, *size), size)])
        if is_done:
            stage.add_done({0: LOCAL})

    def end(self) -> None:
        """The job has ended."""
        self._ended_at = now()

    def _keep(self, record: AttemptRecord) -> None:
        if len(self._attempts) < MAX_ATTEMPTS:
            self._attempts.append(record)
        else:
            self._left_out += 1

    # What others read.

    def tiles(self, since: int = -1) -> TilesNow | None:
        """Return the tiles of the present stage that changed after version `since`.

        The cost is that of the tiles that changed. None before the first stage.
        """
        return None if self._stage is None else self._stage.now(since)

    def snapshot(self) -> JobTraceSnapshot:
        """Return everything up to now. With 20 000 attempts it takes a fifth of a second."""
        at = now() if self._ended_at is None else self._ended_at
        zero = self.submitted_at
        spans = [
            TracedSpan(name, track, began - zero, ended - zero)
            for name, track, began, ended in sorted(self._spans, key=_outer_first)
        ]
        return JobTraceSnapshot(
            job=self.job,
            name=self.name,
            pipeline=self.pipeline,
            submitted_at=self._submitted_unix,
            seconds=at - zero,
            spans=spans,
            attempts=_traced(self._attempts, zero, at),
            left_out=self._left_out,
            traceparent=self.traceparent,
        )


def _ignore(record: AttemptRecord) -> None:
    """Nobody counts the attempts."""


def _outer_first(span: tuple[str, str, float, float]) -> tuple[float, float]:
    return span[2], -span[3]


def _traced(records: Sequence[AttemptRecord], zero: float, at: float) -> list[TracedAttempt]:
    """Return attempts with their phases, such that no worker does two tiles at once."""
    phases = [record.phases(at) for record in records]
    _separate(records, phases)
    return [
        TracedAttempt(
            stage=record.stage,
            tile=record.tile,
            attempt=record.attempt,
            device=record.device,
            worker=-1 if record.times.worker is None else record.times.worker,
            end=record.end,
            is_hedge=record.is_hedge,
            core=record.core,
            begin_s=record.ordered_at - zero,
            phases=tuple(parts),
            bytes_out=record.bytes_out,
            bytes_back=record.bytes_back,
            reason=record.reason,
        )
        for record, parts in zip(records, phases, strict=True)
    ]


def _separate(records: Sequence[AttemptRecord], phases: list[list[float]]) -> None:
    """Move work that seems to overlap the next tile of its worker to an earlier time.

    A tile arrives at its device before the gateway hears of that, so each tile is placed a little
    late. The true times are earlier and do not overlap, so there is room for this.
    """
    workers: dict[tuple[str, int], list[int]] = {}
    for number, record in enumerate(records):
        if record.received_at is not None and record.times.worker is not None:
            workers.setdefault((record.device, record.times.worker), []).append(number)
    for numbers in workers.values():
        limit = math.inf
        for number in sorted(numbers, key=lambda one: -(records[one].received_at or 0.0)):
            parts = phases[number]
            begin = records[number].ordered_at + sum(parts[:_START])
            excess = begin + sum(parts[_WORK]) - limit
            if excess > 0:
                begin -= _advance(parts, excess)
            limit = begin


def _advance(parts: list[float], excess: float) -> float:
    """Let the work end earlier by `excess` seconds; returns by how much it begins earlier."""
    wanted = excess
    for phase in (_WIRE_OUT, _DEVICE_QUEUE):
        moved = min(parts[phase], wanted)
        parts[phase] -= moved
        wanted -= moved
    moved = excess - wanted
    if wanted > 0:  # the device's clock is fast, or it lies: its work must have been shorter
        work_s = sum(parts[_WORK])
        factor = max(0.0, 1.0 - wanted / work_s) if work_s > 0 else 0.0
        parts[_WORK] = [part * factor for part in parts[_WORK]]
    parts[_WIRE_BACK] += excess
    return moved
