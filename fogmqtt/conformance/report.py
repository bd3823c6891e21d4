"""What an examination finds. Import-light: an idle agent has it loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from fogmqtt.errors import FogError

#: A sentence about a plug-in is no longer than this.
LONGEST_PROBLEM = 400

#: What a difference may come from, the likeliest first, and how people call it.
_TITLES = {"opencv": "OpenCV", "machine": "", "fogmqtt": "fogmqtt", "numpy": "numpy"}


class Importing(msgspec.Struct, frozen=True, tag=True):
    """The process that examines is about to import this plug-in."""

    module: str


class Began(msgspec.Struct, frozen=True, tag=True):
    """It has imported all, and examines these operators one after the other."""

    names: list[str]
    versions: dict[str, str]
    #: Sentences about plug-ins that are skipped.
    problems: list[str]


class Examined(msgspec.Struct, frozen=True, tag=True):
    """One operator on this machine."""

    name: str
    #: What it came with.
    package: str = ""
    version: str = ""
    #: By ability: a hash over results; equal hashes mean equal rounding.
    fingerprints: dict[str, str] = {}
    #: Of 8-bit images, gray if it takes them; for one thread.
    ns_per_pixel: float | None = None
    #: Why it cannot be examined, if it cannot.
    problem: str = ""


class Worn(msgspec.Struct, frozen=True, tag=True):
    """Too little memory is left here for the operators that are left: another process may go on."""


class ConformanceReport(msgspec.Struct, frozen=True):
    """All operators on this machine."""

    operators: dict[str, Examined] = {}
    #: What people should know: plug-ins that cannot be imported and so on.
    problems: list[str] = []
    #: What decides how pixels are rounded: opencv, numpy, machine, cpu, and operators' packages.
    versions: dict[str, str] = {}
    #: Modules that end or hang the process which imports them, and how.
    fatal: dict[str, str] = {}

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of all operators, by ability."""
        each = (one.fingerprints for one in self.operators.values())
        return {ability: found for prints in each for ability, found in prints.items()}

    def package_of(self, name: str) -> str:
        """What an operator came with; empty where that is not known."""
        return self.operators[name].package if name in self.operators else ""

    @property
    def rates(self) -> dict[str, float]:
        """Nanoseconds per pixel, by operator."""
        return {
            name: one.ns_per_pixel
            for name, one in self.operators.items()
            if one.ns_per_pixel is not None
        }


#: What the process that examines says, a line each.
Said = Importing | Began | Examined | Worn


@dataclass
class Attempt:
    """How far one process came."""

    #: The last plug-in that it began to import.
    importing: str = ""
    began: Began | None = None
    found: list[Examined] = field(default_factory=list)
    #: It ended because others are better off in another process.
    worn: bool = False
    #: How it ended.
    ending: str = ""

    @property
    def left(self) -> list[str]:
        """The operators that it did not come to, or not past."""
        return self.began.names[len(self.found) :] if self.began else []

    def note(self, said: Said) -> None:
        """Take down what it says."""
        match said:
            case Importing(module):
                self.importing = module
            case Began():
                self.began = said
            case Examined():
                self.found.append(said)
            case Worn():
                self.worn = True


def problem_with(name: str, problem: Exception) -> str:
    """The sentence for an operator that cannot be examined."""
    text = str(problem) if isinstance(problem, FogError) else f"{type(problem).__name__}: {problem}"
    return f"{name}: {text}"[:LONGEST_PROBLEM]


def difference(there: Mapping[str, str], here: Mapping[str, str], package: str = "") -> str:
    """Why two machines round differently, as far as their versions tell; empty where they do not.

    Both map what `Examination.versions` does; `package` is one of the names there, besides.
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
