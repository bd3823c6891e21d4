"""How processes end, in words."""

from __future__ import annotations

import signal


def exit_text(code: int) -> str:
    """What follows "the process" in a sentence; `code` is negative for a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    number = -code
    name = signal.Signals(number).name if number in set(signal.Signals) else "no name"
    return f"was ended by signal {number} ({name})"
