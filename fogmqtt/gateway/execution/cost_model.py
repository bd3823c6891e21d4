"""How long a stage takes by tiles, and on this machine alone: measured, or guessed until then.

A device's speed here is what it gave to whole stages, wire, waiting and all, so it is nothing that
the scheduler's own figures say. It holds for images that are not much larger: of a small one, the
way is most of the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from fogmqtt.gateway.devices.registry import AbleDevice
from fogmqtt.gateway.jobs.report import Report, ReportSnapshot
from fogmqtt.wire.topics import LOCAL
from fogmqtt.workers.resources import cores

#: A stage that takes longer alone, seconds, is always cut: so it can be cancelled, shows how far
#: it is, and devices that come later can help. The longer, the less cutting costs.
WHOLE_S = 10.0
#: While nobody knows what devices can do, this machine does so much beside them, seconds.
BOTH_S = 2.0
#: What is known of a speed is tried again after so many seconds: links and fleets change.
_STALE_S = 600.0
#: It says nothing of images so many times as large.
_LARGER = 4.0
#: Of so many kinds of work, the one learned first is forgotten.
_KINDS = 1024
#: Weight of the newest measurement.
_NEWEST = 0.5
#: Tiles must be worth it: figures vary, and a whole disturbs nobody.
_GAIN = 0.9
#: What tiles leave of this machine's speed, before it is measured.
_BY_TILES = 0.6

Key = TypeVar("Key")
Choice = Literal["tiles", "both", "alone"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds for a stage. `alone_s` is None while nobody knows, `fleet_s` where nobody is there.

    `known` says that every device's speed was measured, `measured` that ours was, on a whole.
    """

    alone_s: float | None
    fleet_s: float | None
    known: bool
    measured: bool = False

    @property
    def worthwhile(self) -> bool:
        """Whether a whole on this machine is short enough to be thought of."""
        return self.alone_s is not None and self.alone_s <= WHOLE_S

    def choice(self) -> Choice:
        """Whether to cut the stage, do it whole on this machine, or both until one is done."""
        if self.alone_s is None or self.alone_s > WHOLE_S:
            return "tiles"
        if self.fleet_s is None or self.fleet_s >= _GAIN * self.alone_s:
            return "alone"
        return "both" if not self.known and self.alone_s <= BOTH_S else "tiles"


@dataclass(frozen=True, slots=True)
class _Speed:
    """Pixels per second, learned on stages of about so many pixels."""

    speed: float
    pixels: int
    boot: str
    at: float


class CostModel:
    """What was learned, by kind of work. Owner thread only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._alone: dict[str, _Speed] = {}
        self._tiles: dict[tuple[str, str], _Speed] = {}

    def alone_known(self, kind: str, pixels: int) -> bool:
        """Whether `look` can tell what this machine takes for so many pixels."""
        return self._alone_s(kind, pixels) is not None

    def learn_alone(self, kind: str, pixels: int, seconds: float) -> None:
        """A whole, or a sample of one, took so long on this machine."""
        _note(self._alone, kind, self._blend(self._alone.get(kind), "", pixels, pixels, seconds))

    def learn_tiles(
        self, kind: str, who: str, boot: str, done: int, pixels: int, seconds: float
    ) -> None:
        """`who` gave so many pixels to a stage of `pixels` in so many seconds."""
        key = kind, who
        known = self._tiles.get(key)
        if known is not None and known.boot != boot:
            known = None
        _note(self._tiles, key, self._blend(known, boot, done, pixels, seconds))

    def look(self, kind: str, pixels: int, helpers: Mapping[str, AbleDevice]) -> Estimate:
        """What a stage of so many pixels would take now."""
        alone_s = self._alone_s(kind, pixels)
        measured = kind in self._alone and self._alone[kind].pixels * _LARGER >= pixels
        if not helpers:
            return Estimate(alone_s, None, known=True, measured=measured)
        if alone_s is None:
            return Estimate(None, None, known=False)
        core = pixels / alone_s / cores()
        speed, known = self._tile_speed(kind, LOCAL, "", pixels), True
        total = core * cores() * _BY_TILES if speed is None else speed
        for name, helper in helpers.items():
            found = self._tile_speed(kind, name, helper.boot, pixels)
            known = known and found is not None
            total += core * helper.workers * helper.relative_speed if found is None else found
        return Estimate(alone_s, pixels / total, known, measured)

    def _alone_s(self, kind: str, pixels: int) -> float | None:
        known = self._alone.get(kind)
        return None if known is None else pixels / known.speed

    def _tile_speed(self, kind: str, who: str, boot: str, pixels: int) -> float | None:
        known = self._tiles.get((kind, who))
        if known is None or known.boot != boot or pixels > known.pixels * _LARGER:
            return None
        return None if self._clock() - known.at > _STALE_S else known.speed

    def _blend(
        self, known: _Speed | None, boot: str, done: int, pixels: int, seconds: float
    ) -> _Speed:
        speed = done / max(seconds, 1e-6)
        if known is not None and pixels <= known.pixels * _LARGER:
            speed = known.speed + _NEWEST * (speed - known.speed)
            pixels = max(pixels, known.pixels)
        return _Speed(speed, pixels, boot, self._clock())


def verdict(fleet_s: float, alone_s: float) -> str:
    """What the fleet is worth, for people."""
    if fleet_s < alone_s:
        return f"the fleet makes it {alone_s / fleet_s:.1f} times as fast"
    return (
        f"the fleet cannot help here: by tiles it takes {fleet_s:.2f} s, "
        f"on this gateway alone {alone_s:.2f} s"
    )


def _note(speeds: dict[Key, _Speed], key: Key, speed: _Speed) -> None:
    speeds.pop(key, None)
    speeds[key] = speed
    if len(speeds) > _KINDS:
        del speeds[next(iter(speeds))]


#: A device that gave nothing in so many seconds is taken to give nothing.
_MUTE_S = 1.0
#: Tiles are given up on where what is left would take so many times what a whole takes…
_LATE = 1.2
#: …as far as can be told after this part of it, or a larger one where no tile is done yet.
_SOON, _BLIND = 0.2, 0.5


@dataclass(slots=True)
class StageTrial:
    """A stage that is cut, done whole here, or both. Owner thread only."""

    kind: str
    pixels: int
    prospect: Estimate
    choice: Choice
    helpers: Mapping[str, AbleDevice]
    began_at: float
    #: Whether the gateway may do it whole at all.
    may_alone: bool
    #: The report before this stage.
    mark: ReportSnapshot
    #: A whole is under way.
    whole: bool = False
    #: Seconds that the whole took, where it was ready first.
    alone_s: float | None = None
    #: By device: pixels given, and when the last of them came.
    given: dict[str, tuple[int, float]] = field(default_factory=dict)

    @property
    def wants_local(self) -> bool:
        """Whether the gateway's own cores should take tiles."""
        return self.choice == "tiles" and not self.whole

    def credit(self, device: str, pixels: int, moment: float) -> None:
        """A device's tile was kept."""
        self.given[device] = self.given.get(device, (0, 0.0))[0] + pixels, moment

    def is_late(self, moment: float) -> bool:
        """Whether a whole, begun now, should be done before the tiles that are left."""
        alone_s = self.prospect.alone_s
        if not self.may_alone or self.whole or alone_s is None:
            return False
        elapsed_s = moment - self.began_at
        done = sum(pixels for pixels, _ in self.given.values())
        if elapsed_s < alone_s * (_SOON if done else _BLIND):
            return False
        return not done or (self.pixels - done) * elapsed_s / done > _LATE * alone_s

    def teach(self, prospects: CostModel, moment: float, *, by_tiles: bool) -> None:
        """Remember how fast everybody was; the stage is over, `by_tiles` or by a whole.

        Tiles to the end: merging and waiting for the last count, so the same fleet's speeds add
        up to what it took.
        """
        boots = {name: helper.boot for name, helper in self.helpers.items()} | {LOCAL: ""}
        for name, boot in boots.items():
            done, at = self.given.get(name, (0, moment))
            at = moment if by_tiles else at
            if done or (name != LOCAL and moment - self.began_at >= _MUTE_S):
                prospects.learn_tiles(self.kind, name, boot, done, self.pixels, at - self.began_at)

    def tell(self, report: Report, moment: float, alone_s: float | None) -> None:
        """Write it into the report; `alone_s` is what a whole took, None where tiles were first."""
        took_s = moment - self.began_at
        report.makespan += took_s
        report.count_alone(alone_s or self.prospect.alone_s, measured=alone_s is not None)
        if alone_s is not None:
            self._tell_alone(report, alone_s)

    def _tell_alone(self, report: Report, alone_s: float) -> None:
        if not self.helpers:
            report.explain(f"no device can do this now: this gateway took {alone_s:.2f} s alone")
            return
        report.explain(verdict(self._fleet_s(alone_s), alone_s))

    def _fleet_s(self, alone_s: float) -> float:
        """What tiles would have taken, by what came of them, or else by what was known."""
        speeds = [
            done / (at - self.began_at) for done, at in self.given.values() if at > self.began_at
        ]
        if speeds:
            return max(self.pixels / sum(speeds), alone_s)
        return max(self.prospect.fleet_s or 0.0, alone_s)
