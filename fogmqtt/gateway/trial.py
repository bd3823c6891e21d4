"""One stage at work: what was expected of it, who gave how much, and what that teaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fogmqtt.gateway.prospects import Choice, Helper, Prospect, Prospects, verdict
from fogmqtt.gateway.report import Mark, Report
from fogmqtt.wire.topics import LOCAL

#: A device that gave nothing in so many seconds is taken to give nothing.
_MUTE_S = 1.0
#: Tiles are given up on where what is left would take so many times what a whole takes…
_LATE = 1.2
#: …as far as can be told after this part of it, or a larger one where no tile is done yet.
_SOON, _BLIND = 0.2, 0.5


@dataclass(slots=True)
class Trial:
    """A stage that is cut, done whole here, or both. Owner thread only."""

    kind: str
    pixels: int
    prospect: Prospect
    choice: Choice
    helpers: Mapping[str, Helper]
    began_at: float
    #: Whether the gateway may do it whole at all.
    may_alone: bool
    #: The report before this stage.
    mark: Mark
    #: A whole is under way.
    whole: bool = False
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

    def teach(self, prospects: Prospects, moment: float, *, by_tiles: bool) -> None:
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
