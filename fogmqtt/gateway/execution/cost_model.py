"""Decides whether a stage is cut, or done whole on this gateway.

What decides are the times that stages of this kind and size really took, whole and by tiles. As
long as one of the two is not known, it is tried once, unless it should take much longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

from msgspec import Struct

from fogmqtt.core.scheduling.events import JobSubmitted
from fogmqtt.core.scheduling.scheduler import Scheduler
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.registry import AbleDevice, Machine
from fogmqtt.workers.resources import cores

#: A stage that takes longer than this whole, in seconds, is always cut. Then it can be cancelled,
#: shows its progress, and devices that come later can help. Cutting costs little in comparison.
WHOLE_S: Final = 10.0
#: The gateway's own cores help with the tiles of a stage that takes longer than this whole, in
#: seconds. For a shorter one, starting them and copying to them takes more than it saves.
HELP_S: Final = 1.0
#: Tiles must take less than this part of the whole image's time: times vary, and a whole image
#: takes no device's time.
_GAIN: Final = 0.95
#: The same for the first stage of a kind, for which only announced speeds are known.
_FIRST_GAIN: Final = 0.85
#: Later stages of a kind are tried by tiles if they are expected to take less than this many times
#: the whole image's time. A trial that fails costs half of that time at most.
_TRIAL: Final = 1.5
#: If tiles take more than this part of the time that is expected of the whole image, it is
#: tried as well.
_CLOSE: Final = 0.7
#: Seconds to transfer a byte to a device or back (24 MP of `invert` on two cores of 2020: 4 to 6
#: ns).
_TRANSFER_S: Final = 5e-9
#: The number of equal tiles for each worker in a question to the scheduler.
_TILES_PER_WORKER: Final = 4
#: The weight of the newest measurement.
_NEWEST: Final = 0.5
#: Seconds after which a measurement is not used any more: links and fleets change.
STALE_S: Final = 600.0
#: The number of entries in each memory; the oldest is forgotten first.
_REMEMBERED: Final = 1024

K = TypeVar("K")
V = TypeVar("V")


class StageDemand(Struct, frozen=True):
    """The work of a stage: `pixels` of one `kind`, and the bytes that are sent if it is cut."""

    #: The operators as text, by which the scheduler learns service times.
    kind: str
    #: The image's channels and dtype, and the gateway's own operators.
    source: str
    #: The abilities that a device must have.
    needs: frozenset[str]
    pixels: int
    wire_bytes: float

    @property
    def key(self) -> tuple[str, str, int]:
        """The kind with the size as a power of four: small images are mostly transfer time."""
        return self.kind, self.source, int(math.log2(max(1, self.pixels))) // 2


class Decision(Struct, frozen=True):
    """Whether a stage is cut, with the expected seconds.

    `whole_s` is None if the gateway may not do it whole, or if its time is not known. `tiles_s` is
    None if no device can help, or if nothing is known about them.
    """

    by_tiles: bool
    whole_s: float | None = None
    tiles_s: float | None = None
    #: Whether tiles have not been tried yet with these devices.
    is_trial: bool = False
    #: Whether the gateway's own cores should help with the tiles.
    helped: bool = True


class _Time(Struct, frozen=True):
    """Seconds per pixel. A lost time of tiles was not shorter than that of the whole image."""

    rate: float
    measured: bool = True
    lost: bool = False
    #: The cores that the whole image kept busy.
    cores: float = 1.0


class CostModel:
    """Compares the fleet with the gateway alone. It belongs to the event loop."""

    def __init__(
        self, scheduler: Scheduler, here: Machine, clock: Callable[[], float] = now
    ) -> None:
        """`here` is this machine: devices that announce it share its cores."""
        self._scheduler = scheduler
        self._here = here
        self._whole: _Memory[tuple[str, str, int], _Time] = _Memory(clock)
        #: By the demand's key, and the boot ids of the devices that can help.
        self._tiles: _Memory[object, _Time] = _Memory(clock)
        self._clock = clock

    def knows_whole(self, work: StageDemand) -> bool:
        """Whether the gateway's time for this kind of work is known."""
        return self._whole.get(work.key) is not None

    def learn_sample(self, work: StageDemand, pixels: int, seconds: float, busy: float) -> None:
        """Learn the gateway's seconds for a part of the image, which kept `busy` cores busy."""
        self._whole.put(work.key, _Time(seconds / pixels, measured=False, cores=busy))

    def learn_whole(self, work: StageDemand, seconds: float, busy: float) -> None:
        """Learn the seconds of a stage that the gateway did whole, with `busy` cores."""
        known, rate = self._whole.get(work.key), seconds / work.pixels
        if known is not None and known.measured:
            rate = _average(known.rate, rate)
        self._whole.put(work.key, _Time(rate, cores=busy))

    def learn_tiles(
        self, work: StageDemand, able: Mapping[str, AbleDevice], seconds: float, *, lost: bool
    ) -> None:
        """Learn the seconds of a stage by tiles. `lost`: it was longer than the whole image's."""
        known, rate = self._tiles.get(_fleet_key(work, able)), seconds / work.pixels
        if known is not None:
            rate = _average(known.rate, rate)
        whole = self._whole.get(work.key)
        if whole is not None and whole.measured:
            lost = lost or rate > _GAIN * whole.rate
        self._tiles.put(_fleet_key(work, able), _Time(rate, lost=lost))

    def decide(self, work: StageDemand, able: Mapping[str, AbleDevice], *, whole: bool) -> Decision:
        """Decide how a stage is done. `whole`: whether the gateway may do it whole."""
        known = self._whole.get(work.key)
        whole_s = math.inf if known is None else known.rate * work.pixels
        helped = whole_s > HELP_S
        if not whole or known is None or whole_s > WHOLE_S:
            shown_s = whole_s if whole and known is not None else None
            return Decision(True, shown_s, self._expected_s(work, able, known), helped=helped)
        tiles = self._tiles.get(_fleet_key(work, able))
        if tiles is not None:
            tiles_s = tiles.rate * work.pixels
            is_close = not known.measured and tiles_s > _CLOSE * whole_s
            by_tiles = not tiles.lost and tiles_s <= _GAIN * whole_s and not is_close
            return Decision(by_tiles, whole_s, tiles_s, helped=helped)
        expected_s = self._expected_s(work, able, known)
        limit_s = (_TRIAL if known.measured else _FIRST_GAIN) * whole_s
        by_tiles = expected_s is not None and expected_s <= limit_s
        return Decision(by_tiles, whole_s, expected_s, is_trial=True, helped=helped)

    def _expected_s(
        self, work: StageDemand, able: Mapping[str, AbleDevice], whole: _Time | None
    ) -> float | None:
        """Return the seconds that tiles should take; None if no device can help."""
        if not able:
            return None
        fleet_s = self._scheduler.estimate_s(_even_tiles(work, able), self._clock())
        guess_s = None if whole is None else _guess_s(work, able, self._here, whole)
        known = [seconds for seconds in (fleet_s, guess_s) if seconds is not None]
        return min(known) + _TRANSFER_S * work.wire_bytes if known else None


def _guess_s(
    work: StageDemand, able: Mapping[str, AbleDevice], here: Machine, whole: _Time
) -> float:
    """Return the seconds of tiles by announced speeds.

    Devices on this machine have only its own cores.
    """
    core_s = whole.rate * work.pixels * whole.cores
    others = [device for device in able.values() if not device.machine.is_same(here)]
    if others:
        return core_s / sum(device.workers * device.relative_speed for device in others)
    return core_s / min(cores(), sum(device.workers for device in able.values()))


class _Memory(Generic[K, V]):
    """Remembers a value for each key, for STALE_S seconds since it was put there."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[K, tuple[V, float]] = {}

    def get(self, key: K) -> V | None:
        value, at = self._entries.get(key, (None, -math.inf))
        return value if self._clock() - at <= STALE_S else None

    def put(self, key: K, value: V) -> None:
        self._entries.pop(key, None)
        self._entries[key] = value, self._clock()
        if len(self._entries) > _REMEMBERED:
            del self._entries[next(iter(self._entries))]


#: The beginning of the sentence about a fleet that is no faster.
CANNOT_HELP: Final = "the fleet cannot help here"


def compare_times(tiles_s: float, whole_s: float) -> str:
    """Return a sentence about the gain by the fleet."""
    if tiles_s < whole_s:
        return f"the fleet makes it {whole_s / tiles_s:.1f} times as fast"
    return (
        f"{CANNOT_HELP}: by tiles it takes {tiles_s:.2f} s, on this gateway alone {whole_s:.2f} s"
    )


def _average(known: float, newest: float) -> float:
    return known * (newest / known) ** _NEWEST if known > 0 and newest > 0 else newest


def _fleet_key(work: StageDemand, able: Mapping[str, AbleDevice]) -> object:
    return work.key, frozenset(device.boot for device in able.values())


def _even_tiles(work: StageDemand, able: Mapping[str, AbleDevice]) -> JobSubmitted:
    """Return the work as equal tiles. Making the real plan takes too long for an estimate."""
    count = _TILES_PER_WORKER * sum(device.workers for device in able.values())
    pixels = max(1, work.pixels // count)
    return JobSubmitted("an estimate", work.kind, (pixels,) * count, work.needs)
