"""Which devices may do what: those that round as this gateway does.

The measure is the gateway's own examination, since what it cannot give to devices it does itself,
and what it does is what `verify` compares with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from fogmqtt.conformance.report import ConformanceReport, version_difference
from fogmqtt.operators.api.pipeline import Stage, required_abilities
from fogmqtt.wire.messages import DeviceInfo


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a device may do, and of all else that it might, why not."""

    abilities: frozenset[str] = frozenset()
    lacks: Mapping[str, str] = field(default_factory=dict)


class Compatibility:
    """Compares devices with this gateway. With `exact` False it takes them at their word."""

    def __init__(self, *, exact: bool) -> None:
        self._exact = exact
        self._here: ConformanceReport | None = None
        #: Set as soon as devices can be judged.
        self.ready = asyncio.Event()
        if not exact:
            self.ready.set()
        self._fingerprints: Mapping[str, str] = {}

    @property
    def known(self) -> bool:
        """Whether devices can be judged yet."""
        return self.ready.is_set()

    def examined(self, found: ConformanceReport) -> None:
        """This gateway was examined: devices are judged by that from now on."""
        self._here = found
        self._fingerprints = found.fingerprints
        self.ready.set()

    def needs(self, stage: Stage) -> frozenset[str]:
        """What a device must offer to do a stage's tiles."""
        if not self._exact:
            return frozenset(operator.name for operator in stage.operators)
        return required_abilities(stage.operators, stage.sent)

    @property
    def rates(self) -> Mapping[str, float]:
        """How fast this gateway is, as it was examined: nanoseconds per pixel, by operator."""
        return self._here.rates if self._here is not None else {}

    def judge(self, info: DeviceInfo) -> Verdict:
        """What a device that says this of itself may do."""
        if not self._exact:
            return Verdict(frozenset(info.operators))
        ours, theirs = self._fingerprints, info.fingerprints
        able = frozenset(one for one in ours if theirs.get(one) == ours[one])
        lacks = {one: self._why(info, one) for one in (*ours, *theirs) if one not in able}
        return Verdict(able, lacks)

    def differs(self, info: DeviceInfo) -> dict[str, str]:
        """The abilities in which it rounds differently, each with the reason."""
        ours, theirs = self._fingerprints, info.fingerprints
        both = sorted(ours.keys() & theirs.keys())
        return {one: self._why(info, one) for one in both if ours[one] != theirs[one]}

    def _why(self, info: DeviceInfo, ability: str) -> str:
        name = ability.partition("/")[0]
        if ability not in self._fingerprints:
            return "this gateway could not examine it" if self.known else "is not compared yet"
        if ability in info.fingerprints:
            why = self._difference(info, name)
            return f"rounds differently ({why})" if why else "rounds differently"
        if info.conformance_running:
            return "is still being examined"
        if name not in info.operators:
            return "is not installed"
        problems = (one for one in info.problems if one.startswith(f"{name}: "))
        return next(problems, "announces no fingerprint").removeprefix(f"{name}: ")

    def _difference(self, info: DeviceInfo, name: str) -> str:
        here = self._here or ConformanceReport()
        return version_difference(info.versions, here.versions, here.package_of(name))
