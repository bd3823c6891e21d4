"""The result of a conformance run. Import-light: an idle agent has this module loaded.

A conformance run executes every operator on test images and records a hash of its results (its
*fingerprints*) and its speed. Two machines whose fingerprints agree round alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from fogmqtt.errors import FogError

#: The longest sentence about a plug-in or operator, characters.
LONGEST_PROBLEM = 400

#: What can explain a difference in rounding, the likeliest first, and the name that people use.
_TITLES = {
    "opencv": "OpenCV",
    "machine": "",
    "fogmqtt": "fogmqtt",
    "zxing": "ZXing",
    "onnxruntime": "ONNX Runtime",
    "numpy": "numpy",
}


class ImportStarted(msgspec.Struct, frozen=True, tag=True):
    """The conformance process is about to import this plug-in."""

    module: str


class ChecksStarted(msgspec.Struct, frozen=True, tag=True):
    """All plug-ins are imported. The process now checks these operators, one after the other."""

    names: list[str]
    versions: dict[str, str]
    #: Sentences about plug-ins that are skipped.
    problems: list[str]


class OperatorReport(msgspec.Struct, frozen=True, tag=True):
    """One operator on this machine."""

    name: str
    #: The package that the operator comes with, and its version.
    package: str = ""
    version: str = ""
    #: Ability → hash of the results. Equal hashes mean equal rounding.
    fingerprints: dict[str, str] = {}
    #: For one thread and 8-bit images, gray ones if the operator accepts them.
    ns_per_pixel: float | None = None
    #: Why the operator cannot be checked; empty if it can.
    problem: str = ""


class MemoryUsedUp(msgspec.Struct, frozen=True, tag=True):
    """The process has too little memory left for the remaining operators, and ends."""


class CannotCheck(msgspec.Struct, frozen=True, tag=True):
    """The process can check nothing, and ends."""

    reason: str


class ConformanceReport(msgspec.Struct, frozen=True):
    """The operators on this machine, as far as they are checked."""

    operators: dict[str, OperatorReport] = {}
    #: Sentences for people, for example about plug-ins that cannot be imported.
    problems: list[str] = []
    #: Versions that decide how pixels are rounded: opencv, zxing, onnxruntime, numpy, and so on.
    versions: dict[str, str] = {}
    #: Plug-in modules whose import ends or hangs a process → how it ended.
    fatal: dict[str, str] = {}
    #: Operators whose check is still to come, in this order.
    unchecked: list[str] = []

    @property
    def is_complete(self) -> bool:
        """Whether all operators were checked."""
        return not self.unchecked

    def has_checked(self, name: str) -> bool:
        """Return whether no later report says more about this operator."""
        return self.is_complete or name in self.operators

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprints of all operators, by ability."""
        each = (one.fingerprints for one in self.operators.values())
        return {ability: found for prints in each for ability, found in prints.items()}

    def package_of(self, name: str) -> str:
        """Return the package that an operator comes with; empty if it is not known."""
        return self.operators[name].package if name in self.operators else ""

    @property
    def rates(self) -> dict[str, float]:
        """Nanoseconds per pixel, by operator."""
        return {
            name: one.ns_per_pixel
            for name, one in self.operators.items()
            if one.ns_per_pixel is not None
        }


#: What the conformance process writes to its parent, one message per line of JSON.
ChildMessage = ImportStarted | ChecksStarted | OperatorReport | MemoryUsedUp | CannotCheck


@dataclass
class ChildOutput:
    """What one conformance process reported before it ended."""

    #: The last plug-in whose import was started.
    importing: str = ""
    started: ChecksStarted | None = None
    reports: list[OperatorReport] = field(default_factory=list)
    #: Whether it ended early so that a new process has memory for the remaining operators.
    memory_used_up: bool = False
    #: Why it could check nothing; empty if it could.
    reason: str = ""
    #: How it ended.
    ending: str = ""

    @property
    def unchecked(self) -> list[str]:
        """The operators that have no report, in the order in which they are checked."""
        return self.started.names[len(self.reports) :] if self.started else []

    def record(self, message: ChildMessage) -> None:
        """Add one message of the process."""
        match message:
            case ImportStarted(module):
                self.importing = module
            case ChecksStarted():
                self.started = message
            case OperatorReport():
                self.reports.append(message)
            case MemoryUsedUp():
                self.memory_used_up = True
            case CannotCheck(reason):
                self.reason = reason


def problem_text(name: str, problem: Exception) -> str:
    """Return the sentence for an operator that cannot be checked, at most LONGEST_PROBLEM long."""
    text = str(problem) if isinstance(problem, FogError) else f"{type(problem).__name__}: {problem}"
    return f"{name}: {text}"[:LONGEST_PROBLEM]


def version_difference(there: Mapping[str, str], here: Mapping[str, str], package: str = "") -> str:
    """Return why two machines round differently, judged by their versions; empty if unknown.

    Both mappings are those of `ConformanceReport.versions`; `package` is one more name to compare.
    """
    for name in filter(None, (package, *_TITLES)):
        if name in there and name in here and there[name] != here[name]:
            title = _TITLES.get(name, name)
            return f"{title} {there[name]} there, {here[name]} here".lstrip()
    ours, theirs = (set(at.get("cpu", "").split()) for at in (here, there))
    for missing, place in ((ours - theirs, "there"), (theirs - ours, "here")):
        if missing and ours and theirs:
            return f"without {' '.join(sorted(missing))} {place}"
    return ""
