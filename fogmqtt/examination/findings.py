"""What an examination finds. Import-light: an idle agent has it loaded."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fogmqtt.errors import FogError

#: A sentence about a plug-in is no longer than this.
LONGEST_PROBLEM = 400


class Examined(msgspec.Struct, frozen=True):
    """One operator on this machine."""

    name: str
    #: Of the package that it came with.
    version: str = ""
    #: By ability: a hash over results; equal hashes mean equal rounding.
    fingerprints: dict[str, str] = {}
    #: Of 8-bit images, gray if it takes them; for one thread.
    ns_per_pixel: float | None = None
    #: Why it cannot be examined, if it cannot.
    problem: str = ""


class Examination(msgspec.Struct, frozen=True):
    """All operators on this machine."""

    operators: dict[str, Examined] = {}
    #: What people should know: plug-ins that cannot be imported and so on.
    problems: list[str] = []
    #: What decides how pixels are rounded: opencv, numpy, machine, cpu, and plug-ins' packages.
    versions: dict[str, str] = {}

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of all operators, by ability."""
        each = (one.fingerprints for one in self.operators.values())
        return {ability: found for prints in each for ability, found in prints.items()}

    @property
    def rates(self) -> dict[str, float]:
        """Nanoseconds per pixel, by operator."""
        return {
            name: one.ns_per_pixel
            for name, one in self.operators.items()
            if one.ns_per_pixel is not None
        }


def problem_with(name: str, problem: Exception) -> str:
    """The sentence for an operator that cannot be examined."""
    text = str(problem) if isinstance(problem, FogError) else f"{type(problem).__name__}: {problem}"
    return f"{name}: {text}"[:LONGEST_PROBLEM]


def difference(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Why two machines round differently, as far as their versions tell; empty where they do not.

    Both map what `Examination.versions` and `DeviceInfo.versions` do.
    """
    for name, title in (("opencv", "OpenCV"), ("machine", ""), ("numpy", "numpy")):
        if there.get(name) != here.get(name):
            unknown = f"another {title or name}"
            sides = (f"{at.get(name, unknown)} {place}" for at, place in _places(there, here))
            return f"{title} {', '.join(sides)}".strip()
    missing = [_features(here) - _features(there), _features(there) - _features(here)]
    for features, place in zip(missing, ("there", "here"), strict=True):
        if features:
            return f"without {' '.join(sorted(features))} {place}"
    return ""


def _places(
    there: Mapping[str, str], here: Mapping[str, str]
) -> tuple[tuple[Mapping[str, str], str], ...]:
    return (there, "there"), (here, "here")


def _features(versions: Mapping[str, str]) -> set[str]:
    return set(versions.get("cpu", "").split())
