"""Which abilities a device may be used for: those with the same fingerprint as on this gateway.

The gateway's own conformance report is the reference: the gateway does what no device can do, and
`verify` compares with what the gateway computes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import lru_cache

from msgspec import Struct, field

from fogmqtt.conformance.report import ConformanceReport, version_difference
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.pipeline import Stage, required_abilities
from fogmqtt.wire.messages import DTYPES, DeviceInfo


class AbilityCheck(Struct, frozen=True):
    """The abilities that a device may be used for, and the reason for each other ability."""

    abilities: frozenset[str] = frozenset()
    lacks: Mapping[str, str] = field(default_factory=dict)


class Compatibility:
    """Compares devices with this gateway.

    If `exact` is False, nothing is compared: a device may be used for every operator that it has,
    on every dtype that it takes.
    """

    def __init__(self, *, exact: bool) -> None:
        self._exact = exact
        self._reference: ConformanceReport | None = None
        self._fingerprints: Mapping[str, str] = {}
        #: Set with the next report, and replaced by another one then.
        self._next_report = asyncio.Event()

    @property
    def is_complete(self) -> bool:
        """Whether devices can be compared for every operator yet."""
        return not self._exact or (self._reference is not None and self._reference.is_complete)

    def set_reference(self, report: ConformanceReport) -> None:
        """Compare devices with this gateway's report from now on; more may follow."""
        self._reference = report
        self._fingerprints = report.fingerprints
        self._next_report.set()
        self._next_report = asyncio.Event()

    async def wait_until_complete(self) -> None:
        """Wait until devices can be compared for every operator."""
        while not self.is_complete:
            await self._next_report.wait()

    async def wait_for(self, stage: Stage) -> None:
        """Wait until devices can be compared for the operators of a stage."""
        while not all(self._can_compare(operator.name) for operator in stage.operators):
            await self._next_report.wait()

    def _can_compare(self, name: str) -> bool:
        return self.is_complete or (
            self._reference is not None and self._reference.has_checked(name)
        )

    def needs(self, stage: Stage) -> frozenset[str]:
        """Return the abilities that a device must have for a stage's tiles."""
        return required(stage, exact=self._exact)

    @property
    def rates(self) -> Mapping[str, float]:
        """The measured times of this gateway: nanoseconds per pixel, by operator."""
        return self._reference.rates if self._reference is not None else {}

    def check(self, info: DeviceInfo) -> AbilityCheck:
        """Compare the fingerprints of a device with this gateway's."""
        if not self._exact:
            return _announced(tuple(info.operators), tuple(info.dtypes))
        ours, theirs = self._fingerprints, info.fingerprints
        abilities = frozenset(name for name in ours if theirs.get(name) == ours[name])
        lacks = {
            name: self._reason(info, name) for name in (*ours, *theirs) if name not in abilities
        }
        return AbilityCheck(abilities, lacks)

    def differences(self, info: DeviceInfo) -> dict[str, str]:
        """Return the abilities with another fingerprint than here, each with the reason."""
        ours, theirs = self._fingerprints, info.fingerprints
        common = sorted(ours.keys() & theirs.keys())
        return {name: self._reason(info, name) for name in common if ours[name] != theirs[name]}

    def _reason(self, info: DeviceInfo, ability: str) -> str:
        """Return why a device is not used for an ability; the text follows the ability's name."""
        name = ability.partition("/")[0]
        if ability not in self._fingerprints:
            if not self._can_compare(name):
                return "is not compared yet"
            advice = _advice(ability)
            return f"this gateway {advice}" if advice else "this gateway could not examine it"
        if ability in info.fingerprints:
            versions = self._version_difference(info, name)
            return f"rounds differently ({versions})" if versions else "rounds differently"
        if info.conformance_running:
            return "is still being examined"
        if name not in info.operators:
            return "is not installed"
        if advice := _advice(ability):
            return advice
        problems = (problem for problem in info.problems if problem.startswith(f"{name}: "))
        return next(problems, "announces no fingerprint").removeprefix(f"{name}: ")

    def _version_difference(self, info: DeviceInfo, operator: str) -> str:
        reference = self._reference or ConformanceReport()
        package = reference.package_of(operator)
        return version_difference(info.versions, reference.versions, package)


def _advice(ability: str) -> str:
    """Return what a machine lacks that does not announce a variant; empty for other abilities."""
    name, _, variant = ability.split("/", 2) if ability.count("/") > 1 else (ability, "", "")
    if not variant or name not in registry.names():
        return ""
    known = registry.load(name).probed_variants.get(variant)
    return known.advice if known is not None else ""


def required(stage: Stage, *, exact: bool) -> frozenset[str]:
    """Return the abilities that a device must have for a stage; variants count only if `exact`."""
    abilities = required_abilities(stage.operators, stage.sent)
    if exact:
        return abilities
    return frozenset("/".join(ability.split("/")[:2]) for ability in abilities)


@lru_cache(maxsize=64)  # for many devices that are alike, and repeat their info every few seconds
def _announced(operators: tuple[str, ...], dtypes: tuple[str, ...]) -> AbilityCheck:
    """Return what a device says that it can do, of what this gateway knows."""
    taken = dtypes or DTYPES
    known = frozenset(registry.names()).intersection(operators)
    abilities = {f"{name}/{dtype}" for name in known for dtype in taken}
    reason = f"takes {' and '.join(taken)} only"
    others = (dtype for dtype in DTYPES if dtype not in taken)
    lacks = {f"{name}/{dtype}": reason for dtype in others for name in known}
    return AbilityCheck(frozenset(abilities), lacks)
