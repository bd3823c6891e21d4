"""Which devices can help with a stage, and how fast they say they are beside this gateway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fogmqtt.gateway.prospects import Helper
from fogmqtt.gateway.roster import Roster
from fogmqtt.operators.pipeline import Stage

#: What is announced is not believed beyond this many times our own speed, either way.
_MOST = 100.0


def helpers(roster: Roster, ready: Iterable[str], stage: Stage) -> dict[str, Helper]:
    """Those of the `ready` devices that can do the stage's tiles."""
    needs = roster.standard.needs_of(stage)
    names = [operator.name for operator in stage.operators]
    ours = roster.standard.rates
    found = {}
    for device in ready:
        info = roster.infos.get(device)
        if info is not None and needs <= roster.operators(device):
            relative = _relative(names, ours, info.rates)
            found[device] = Helper(info.boot, info.workers, relative)
    return found


def _relative(
    names: Iterable[str], ours: Mapping[str, float], theirs: Mapping[str, float]
) -> float:
    """How many times as fast as one of our cores: 1 where that was not announced."""
    both = [name for name in names if name in ours and name in theirs]
    here, there = (sum(rates[name] for name in both) for rates in (ours, theirs))
    if not here > 0 or not there > 0:
        return 1.0
    return min(max(here / there, 1 / _MOST), _MOST)
