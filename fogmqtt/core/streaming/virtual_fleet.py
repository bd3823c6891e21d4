"""A stream with memory on devices in virtual time, whose messages get lost, doubled and reordered.

Tests of operators and of `homes` run on it: the real decisions of the gateway and of the devices,
without a clock or a network.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Generic, Protocol, TypeVar

from fogmqtt.core.streaming.homes import EpochBegan, FrameFailed, Homes, Send
from fogmqtt.core.streaming.memory_store import (
    Ask,
    Granted,
    MemoryKey,
    MemoryStore,
    Mismatch,
    Remembered,
)

F = TypeVar("F")
M = TypeVar("M")
R = TypeVar("R")
_Frame = TypeVar("_Frame", contravariant=True)
_Result = TypeVar("_Result", covariant=True)

#: Seconds of virtual time in which the next frame must begin, and all must end.
_CALM_S: Final = 3600.0
_MEMORY_BYTES: Final = 1 << 40


class Chance(Protocol):
    """What is used of `random.Random`."""

    def random(self) -> float: ...

    def uniform(self, a: float, b: float) -> float: ...

    def choice(self, seq: Sequence[str]) -> str: ...


class DeviceWork(Protocol[_Frame, M, _Result]):
    """What devices do with a frame and a memory."""

    def do(self, tile: int, frame: _Frame, memory: M | None, count: int) -> tuple[_Result, M]: ...

    def save(self, memory: M) -> bytes: ...

    def load(self, tile: int, data: bytes) -> M: ...


@dataclass(frozen=True, slots=True)
class StreamFaults:
    """How likely faults are, each between 0 and 1."""

    lost: float = 0.0
    doubled: float = 0.0
    #: A message takes up to a second; otherwise they arrive in order.
    reordered: bool = False
    #: For each frame: a device is killed; a worker of one forgets all memories.
    killed: float = 0.0
    forgotten: float = 0.0


@dataclass(slots=True)
class StreamOutcome(Generic[R]):
    """What came of a stream."""

    #: Tile and frame → the result, and the first frame of the tile's epoch at that time.
    results: dict[tuple[int, int], tuple[R, int]] = field(default_factory=dict)
    failed: list[FrameFailed] = field(default_factory=list)
    epochs: list[EpochBegan] = field(default_factory=list)


class VirtualFleet(Generic[F, M, R]):
    """Runs a stream over devices of these names. `random` decides about faults and delays."""

    def __init__(
        self,
        homes: Homes,
        work: DeviceWork[F, M, R],
        devices: Sequence[str],
        random: Chance,
        faults: StreamFaults,
    ) -> None:
        self._homes = homes
        self._work = work
        self._devices = tuple(devices)
        self._random = random
        self._faults = faults
        self._stores: dict[str, MemoryStore[M, R]] = {}
        self._frames: dict[int, F] = {}
        self._now = 0.0
        self._numbers = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._last_arrival: dict[str, float] = {}
        self._outcome: StreamOutcome[R] = StreamOutcome()

    def run(self, frames: Sequence[F]) -> StreamOutcome[R]:
        """Run the whole stream. Raises AssertionError if a frame never ends."""
        for device in self._devices:
            self._stores[device] = MemoryStore(_MEMORY_BYTES)
        self._tell_devices()
        for seq, frame in enumerate(frames, 1):
            self._wait(lambda: self._homes.is_ready)
            self._frames[seq] = frame
            self._homes.begin(seq, self._now)
            self._misfortune()
            self._act()
            self._advance(self._random.uniform(0, 0.3))
        self._faults = StreamFaults(reordered=self._faults.reordered)
        self._restore()
        self._wait(lambda: self._ended(len(frames)))
        return self._outcome

    # --- time -----------------------------------------------------------------------------

    def _wait(self, is_done: Callable[[], bool]) -> None:
        deadline = self._now + _CALM_S
        self._act()
        while not is_done():
            if not self._stores:
                self._restore()
            assert self._now < deadline, f"nothing moves: {self._homes.homes()}"  # noqa: S101
            self._advance(0.1)

    def _advance(self, seconds: float) -> None:
        until = self._now + seconds
        while True:
            at = min(self._events[0][0] if self._events else until, self._homes.wake_at(), until)
            self._now = max(self._now, at)
            while self._events and self._events[0][0] <= self._now:
                heapq.heappop(self._events)[2]()
                self._act()
            if self._homes.wake_at() <= self._now:
                self._homes.tick(self._now)
                self._act()
            if self._now >= until:
                return
            assert self._homes.wake_at() > self._now, "tick leaves what is due"  # noqa: S101

    def _later(self, route: str, event: Callable[[], None]) -> None:
        """Let a message arrive some time from now, never, or twice."""
        chance = self._random
        copies = 0 if chance.random() < self._faults.lost else 1
        copies += chance.random() < self._faults.doubled
        for _ in range(copies):
            at = self._now + chance.uniform(0.001, 1.0 if self._faults.reordered else 0.05)
            if not self._faults.reordered:
                at = self._last_arrival[route] = max(at, self._last_arrival.get(route, 0.0))
            heapq.heappush(self._events, (at, next(self._numbers), event))

    # --- faults ---------------------------------------------------------------------------

    def _misfortune(self) -> None:
        chance, alive = self._random, sorted(self._stores)
        if alive and chance.random() < self._faults.killed:
            device = chance.choice(alive)
            del self._stores[device]
            told, back = chance.uniform(0, 2), chance.uniform(2, 6)
            self._at(told, self._tell_devices)
            self._at(back, lambda: self._return(device))
        if alive and chance.random() < self._faults.forgotten:
            device = chance.choice(alive)
            if device in self._stores:
                self._stores[device] = MemoryStore(_MEMORY_BYTES)

    def _at(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._numbers), event))

    def _return(self, device: str) -> None:
        if device not in self._stores:
            self._stores[device] = MemoryStore(_MEMORY_BYTES)
            self._homes.restart_device(device, self._now)
        self._tell_devices()

    def _restore(self) -> None:
        for device in self._devices:
            self._return(device)

    def _tell_devices(self) -> None:
        speeds = {one: 1.0 + self._devices.index(one) for one in self._stores}
        self._homes.set_devices(speeds, self._now)

    # --- the gateway ----------------------------------------------------------------------

    def _act(self) -> None:
        for action in self._homes.actions():
            match action:
                case Send():
                    self._send(action)
                case FrameFailed():
                    self._outcome.failed.append(action)
                case EpochBegan():
                    self._outcome.epochs.append(action)
        for seq in [one for one in self._frames if one < self._homes.kept_from]:
            del self._frames[seq]

    def _send(self, send: Send) -> None:
        needs_frame = send.deed in ("apply", "begin")
        frame = self._frames[send.seq] if needs_frame else None  # KeyError: it was not kept
        self._later(f"to {send.device}", lambda: self._arrived(send, frame))

    def _ended(self, frames: int) -> bool:
        failed = {(one.tile, one.seq) for one in self._outcome.failed}
        ended = failed | self._outcome.results.keys()
        return len(ended) == frames * len(self._homes.homes())

    # --- the devices ----------------------------------------------------------------------

    def _arrived(self, send: Send, frame: F | None) -> None:
        store = self._stores.get(send.device)
        if store is None:
            return
        key = MemoryKey("gateway", "stream", send.tile)
        ask = Ask(send.deed, send.epoch, send.attempt, send.after)
        match store.look(key, ask):
            case Mismatch(have):
                self._later(send.device, lambda: self._refused(send, have))
            case Remembered(answer):
                self._later(send.device, lambda: self._answered(send, answer))
            case Granted(memory):
                self._do(store, key, ask, send, frame, memory)

    def _do(
        self,
        store: MemoryStore[M, R],
        key: MemoryKey,
        ask: Ask,
        send: Send,
        frame: F | None,
        memory: M | None,
    ) -> None:
        if send.deed == "load":
            store.keep(key, ask, self._work.load(send.tile, send.copy), 1, None, self._now)
        elif send.deed == "save":
            assert memory is not None  # noqa: S101  # only `begin` and `load` are granted without
            data = self._work.save(memory)
            self._later(send.device, lambda: self._saved(send, data))
        else:
            assert frame is not None  # noqa: S101  # see `_send`
            result, memory = self._work.do(send.tile, frame, memory, send.after)
            store.keep(key, ask, memory, 1, result, self._now)
            self._later(send.device, lambda: self._answered(send, result))

    # --- answers, at the gateway ----------------------------------------------------------

    def _refused(self, send: Send, have: int) -> None:
        self._homes.refused(
            send.device, send.tile, send.attempt, send.epoch, send.after, have, self._now, send.deed
        )

    def _answered(self, send: Send, result: R) -> None:
        is_first = self._homes.answered(
            send.device, send.tile, send.attempt, send.epoch, send.after, send.seq, self._now
        )
        if is_first and not send.silent:
            base = self._homes.first_frame(send.tile)
            self._outcome.results[send.tile, send.seq] = result, base
            self._homes.took(send.tile, send.seq, self._now)

    def _saved(self, send: Send, data: bytes) -> None:
        self._homes.saved(
            send.device, send.tile, send.attempt, send.epoch, send.after, data, self._now
        )
