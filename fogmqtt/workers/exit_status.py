"""How a child process ended."""

from __future__ import annotations

import signal

from msgspec import Struct


class ExitStatus(Struct, frozen=True):
    """The exit code of a process, negative for a signal, and the traceback that it wrote."""

    code: int
    traceback: str

    def __str__(self) -> str:
        return exit_text(self.code)


def exit_text(code: int) -> str:
    """Return the words that follow "the process" in a sentence; a negative code is a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    number = -code
    name = signal.Signals(number).name if number in set(signal.Signals) else "no name"
    return f"was ended by signal {number} ({name})"
