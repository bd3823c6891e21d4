"""Which abilities a device may be used for: those with the same fingerprint as on this gateway.

The gateway's own conformance report is the reference: the gateway does what no device can do, and
`verify` compares with what the gateway computes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from fogmqtt.conformance.report import ConformanceReport, version_difference
from fogmqtt.operators.api.pipeline import Stage, required_abilities
from fogmqtt.wire.messages import DeviceInfo


@dataclass(frozen=True, slots=True)
class AbilityCheck:
    """The abilities that a device may be used for, and the reason for each other ability."""

    abilities: frozenset[str] = frozenset()
    lacks: Mapping[str, str] = field(default_factory=dict)


class Compatibility:
    """Compares devices with this gateway.

    If `exact` is False, nothing is compared: a device may be used for every operator that it has.
    """

    def __init__(self, *, exact: bool) -> None:
        self._exact = exact
        self._reference: ConformanceReport | None = None
        #: Set as soon as devices can be compared.
        self.ready = asyncio.Event()
        if not exact:
            self.ready.set()
        self._fingerprints: Mapping[str, str] = {}

    @property
    def is_ready(self) -> bool:
        """Whether devices can be compared yet."""
        return self.ready.is_set()

    def set_reference(self, report: ConformanceReport) -> None:
        """Compare devices with this gateway's report from now on."""
        self._reference = report
        self._fingerprints = report.fingerprints
        self.ready.set()

    def needs(self, stage: Stage) -> frozenset[str]:
        """Return the abilities that a device must have for a stage's tiles."""
        if not self._exact:
            return frozenset(operator.name for operator in stage.operators)
        return required_abilities(stage.operators, stage.sent)

    @property
    def rates(self) -> Mapping[str, float]:
        """The measured times of this gateway: nanoseconds per pixel, by operator."""
        return self._reference.rates if self._reference is not None else {}

    def check(self, info: DeviceInfo) -> AbilityCheck:
        """Compare the fingerprints of a device with this gateway's."""
        if not self._exact:
            return AbilityCheck(frozenset(info.operators))
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
            return "this gateway could not examine it" if self.is_ready else "is not compared yet"
        if ability in info.fingerprints:
            versions = self._version_difference(info, name)
            return f"rounds differently ({versions})" if versions else "rounds differently"
        if info.conformance_running:
            return "is still being examined"
        if name not in info.operators:
            return "is not installed"
        problems = (problem for problem in info.problems if problem.startswith(f"{name}: "))
        return next(problems, "announces no fingerprint").removeprefix(f"{name}: ")

    def _version_difference(self, info: DeviceInfo, operator: str) -> str:
        reference = self._reference or ConformanceReport()
        package = reference.package_of(operator)
        return version_difference(info.versions, reference.versions, package)
