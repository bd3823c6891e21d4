"""What a check found: a level, a sentence, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["ok", "warning", "fault"]
#: The exit code of the worst finding.
EXIT_CODES: Final[dict[Level, int]] = {"ok": 0, "warning": 1, "fault": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check. A warning may be as wanted; a fault keeps something from working."""

    check: str
    level: Level
    sentence: str
    #: What to do; empty where nothing is wrong.
    fix: str = ""


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 0 if all is well, 1 for warnings, 2 for faults."""
    return max((EXIT_CODES[one.level] for one in findings), default=0)


def ok(check: str, sentence: str) -> Finding:
    return Finding(check, "ok", sentence)


def warning(check: str, sentence: str, fix: str) -> Finding:
    return Finding(check, "warning", sentence, fix)


def fault(check: str, sentence: str, fix: str) -> Finding:
    return Finding(check, "fault", sentence, fix)
