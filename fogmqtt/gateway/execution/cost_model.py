"""How long a stage takes by tiles, and whole on this gateway: which of the two is to be tried.

There is one kind of figure: expected seconds. For the fleet they come from the scheduler, which
has measured the devices, or from the speeds that the devices announce. For the gateway they come
from whole images, or from a sample of this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from fogmqtt.core.scheduling.events import JobSubmitted
from fogmqtt.core.scheduling.scheduler import Scheduler
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.registry import AbleDevice
from fogmqtt.workers.resources import cores

#: A stage that takes longer than this whole, in seconds, is always cut: so it can be cancelled,
#: shows its progress, and devices that come later can help. The longer, the less cutting costs.
WHOLE_S: Final = 10.0
#: Tiles must gain this much: figures vary, and a whole image disturbs nobody.
_GAIN: Final = 0.9
#: What cutting, sending and merging leave of this machine's own speed.
_LOCAL_SHARE: Final = 0.6
#: Seconds for carrying a byte to a device or back, until it is measured (24 MP of `invert` on two
#: cores of 2020: 4 to 6 ns).
_CARRY_S: Final = 5e-9
#: Equal tiles by which the scheduler is asked, for each worker.
_TILES_PER_WORKER: Final = 4
#: The weight of the newest measurement.
_NEWEST: Final = 0.5
#: What was measured is measured again after so many seconds: links and fleets change.
_STALE_S: Final = 600.0
#: Of so many kinds and sizes of work, the one learned first is forgotten.
_REMEMBERED: Final = 1024


@dataclass(frozen=True, slots=True)
class StageDemand:
    """What there is to do: `pixels` of one `kind`, and the bytes that travel if it is cut."""

    #: The operators as the scheduler knows them; with `source` also the gateway's narrowing.
    kind: str
    source: str
    #: What a device must offer.
    needs: frozenset[str]
    pixels: int
    wire_bytes: float

    @property
    def whole_kind(self) -> str:
        return f"whole {self.source} {self.kind}"


@dataclass(frozen=True, slots=True)
class Costs:
    """Expected seconds for a stage.

    `whole_s` is None where the gateway may not do it whole, or nobody knows how long it takes;
    `tiles_s` is None where no device can help. `estimate_s` is `tiles_s` before it was corrected
    by what earlier stages really took.
    """

    whole_s: float | None
    tiles_s: float | None
    estimate_s: float | None = None

    @property
    def by_tiles(self) -> bool:
        """Whether the stage should be cut."""
        if self.whole_s is None or self.whole_s > WHOLE_S:
            return True
        return self.tiles_s is not None and self.tiles_s < _GAIN * self.whole_s


@dataclass(frozen=True, slots=True)
class _Correction:
    factor: float
    at: float


class CostModel:
    """Compares the fleet with the gateway alone. It belongs to the event loop."""

    def __init__(self, scheduler: Scheduler, host: str, clock: Callable[[], float] = now) -> None:
        """`host` is this machine's name: devices on it share its cores."""
        self._scheduler = scheduler
        self._host = host
        self._clock = clock
        #: Measured by estimated seconds, by kind and size.
        self._corrections: dict[tuple[str, int], _Correction] = {}

    def knows_whole(self, work: StageDemand) -> bool:
        """Whether it is known how long the gateway takes for this kind of work."""
        return self._scheduler.whole_s(work.whole_kind, work.pixels) is not None

    def learn_whole(self, work: StageDemand, pixels: int, seconds: float) -> None:
        """The gateway took so long for an image, or for a part of one, without cutting it."""
        self._scheduler.learn_whole(work.whole_kind, pixels, seconds)

    def learn_tiles(self, work: StageDemand, costs: Costs, seconds: float) -> None:
        """The fleet took so long, or would have taken, where `costs` was expected."""
        if not costs.estimate_s:
            return
        factor, key = seconds / costs.estimate_s, _key(work)
        known = self._correction(key)
        if known is not None:
            factor = known * (factor / known) ** _NEWEST
        self._corrections.pop(key, None)
        self._corrections[key] = _Correction(factor, self._clock())
        if len(self._corrections) > _REMEMBERED:
            del self._corrections[next(iter(self._corrections))]

    def costs(self, work: StageDemand, able: Mapping[str, AbleDevice], *, whole: bool) -> Costs:
        """What the stage is expected to take now; `whole` if the gateway may do it whole."""
        whole_s = self._scheduler.whole_s(work.whole_kind, work.pixels) if whole else None
        if not able:
            return Costs(whole_s, None)
        estimate_s = self._tiles_s(work, able, whole_s)
        if estimate_s is None:
            return Costs(whole_s, None)
        factor = self._correction(_key(work)) or 1.0
        return Costs(whole_s, factor * estimate_s, estimate_s)

    def _tiles_s(
        self, work: StageDemand, able: Mapping[str, AbleDevice], whole_s: float | None
    ) -> float | None:
        fleet_s = self._scheduler.estimate_s(_even_tiles(work, able), self._clock())
        if whole_s is None:
            return fleet_s
        others = [device for device in able.values() if device.host != self._host]
        if not others:
            # They share this machine's cores: cutting only adds to the work.
            return max(fleet_s or 0.0, whole_s)
        if fleet_s is None:
            speed = sum(device.workers * device.relative_speed for device in others)
            fleet_s = whole_s * cores() / speed
        together_s = 1 / (1 / max(fleet_s, 1e-6) + _LOCAL_SHARE / max(whole_s, 1e-6))
        return max(together_s, _CARRY_S * work.wire_bytes)

    def _correction(self, key: tuple[str, int]) -> float | None:
        known = self._corrections.get(key)
        if known is None or self._clock() - known.at > _STALE_S:
            return None
        return known.factor


def worth(tiles_s: float, whole_s: float) -> str:
    """What the fleet is worth, for people."""
    if tiles_s < whole_s:
        return f"the fleet makes it {whole_s / tiles_s:.1f} times as fast"
    return (
        f"the fleet cannot help here: by tiles it takes {tiles_s:.2f} s, "
        f"on this gateway alone {whole_s:.2f} s"
    )


def _even_tiles(work: StageDemand, able: Mapping[str, AbleDevice]) -> JobSubmitted:
    """The work as equal tiles: the real plan costs more than this question is worth."""
    count = _TILES_PER_WORKER * sum(device.workers for device in able.values())
    pixels = max(1, work.pixels // count)
    return JobSubmitted("an estimate", work.kind, (pixels,) * count, work.needs)


def _key(work: StageDemand) -> tuple[str, int]:
    """Of a small image, carrying is most of the time; so sizes are told apart by powers of four."""
    return work.whole_kind, int(math.log2(max(1, work.pixels))) // 2
