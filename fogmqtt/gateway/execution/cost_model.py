"""Compares the expected time of a stage by tiles with its time whole on this gateway.

All figures are expected seconds. For the fleet they come from the scheduler, which has measured the
devices, or from the speeds that the devices announce. For the gateway they come from earlier whole
images, or from a sample of this image.
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

#: A stage that takes longer than this whole, in seconds, is always cut. Then it can be cancelled,
#: shows its progress, and devices that come later can help. Cutting costs little in comparison.
WHOLE_S: Final = 10.0
#: Tiles must take less than this part of the whole image's time: figures vary, and a whole image
#: takes no device's time.
_GAIN: Final = 0.9
#: The part of this machine's speed that is left beside cutting, sending and merging.
_LOCAL_SHARE: Final = 0.6
#: Seconds to transfer a byte to a device or back, until it is measured (24 MP of `invert` on two
#: cores of 2020: 4 to 6 ns).
_TRANSFER_S: Final = 5e-9
#: The number of equal tiles for each worker in a question to the scheduler.
_TILES_PER_WORKER: Final = 4
#: The weight of the newest measurement.
_NEWEST: Final = 0.5
#: Seconds after which a measurement is not used any more: links and fleets change.
_STALE_S: Final = 600.0
#: The number of kinds and sizes of work that are remembered; the oldest is forgotten first.
_REMEMBERED: Final = 1024


@dataclass(frozen=True, slots=True)
class StageDemand:
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
    def whole_kind(self) -> str:
        return f"whole {self.source} {self.kind}"


@dataclass(frozen=True, slots=True)
class Costs:
    """Expected seconds for a stage.

    `whole_s` is None if the gateway may not do it whole, or if its time is not known. `tiles_s` is
    None if no device can help. `estimate_s` is `tiles_s` without the correction by the measured
    times of earlier stages.
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
        #: Measured divided by estimated seconds, by kind and size.
        self._corrections: dict[tuple[str, int], _Correction] = {}

    def knows_whole(self, work: StageDemand) -> bool:
        """Whether the time of the gateway for this kind of work is known."""
        return self._scheduler.whole_s(work.whole_kind, work.pixels) is not None

    def learn_whole(self, work: StageDemand, pixels: int, seconds: float) -> None:
        """Learn the gateway's seconds for an image, or a part of it, without cutting it."""
        self._scheduler.learn_whole(work.whole_kind, pixels, seconds)

    def learn_tiles(self, work: StageDemand, costs: Costs, seconds: float) -> None:
        """Learn the seconds that the fleet took, or would have taken, instead of `costs`."""
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
        """Return the expected costs now. `whole`: whether the gateway may do the stage whole."""
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
            # All devices share this machine's cores, so cutting only adds work.
            return max(fleet_s or 0.0, whole_s)
        if fleet_s is None:
            speed = sum(device.workers * device.relative_speed for device in others)
            fleet_s = whole_s * cores() / speed
        together_s = 1 / (1 / max(fleet_s, 1e-6) + _LOCAL_SHARE / max(whole_s, 1e-6))
        return max(together_s, _TRANSFER_S * work.wire_bytes)

    def _correction(self, key: tuple[str, int]) -> float | None:
        known = self._corrections.get(key)
        if known is None or self._clock() - known.at > _STALE_S:
            return None
        return known.factor


def compare_times(tiles_s: float, whole_s: float) -> str:
    """Return a sentence about the gain by the fleet."""
    if tiles_s < whole_s:
        return f"the fleet makes it {whole_s / tiles_s:.1f} times as fast"
    return (
        f"the fleet cannot help here: by tiles it takes {tiles_s:.2f} s, "
        f"on this gateway alone {whole_s:.2f} s"
    )


def _even_tiles(work: StageDemand, able: Mapping[str, AbleDevice]) -> JobSubmitted:
    """Return the work as equal tiles. Making the real plan takes too long for an estimate."""
    count = _TILES_PER_WORKER * sum(device.workers for device in able.values())
    pixels = max(1, work.pixels // count)
    return JobSubmitted("an estimate", work.kind, (pixels,) * count, work.needs)


def _key(work: StageDemand) -> tuple[str, int]:
    """Return the kind with the size as a power of four: small images are mostly transfer time."""
    return work.whole_kind, int(math.log2(max(1, work.pixels))) // 2
