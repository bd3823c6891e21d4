"""How a signal ends a program that has nothing to undo: at once, with one line.

This module is loaded before all others of a command, so it imports next to nothing.
"""

from __future__ import annotations

import os
import signal

#: The exit code of a program that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Shows the cursor, which a progress bar hides.
_SHOW_CURSOR = b"\x1b[?25h"
_LINE = b"interrupted\n"


def leave_on_signals() -> None:
    """Let SIGINT and SIGTERM end this program at once, with one line."""
    for number in SIGNALS:
        signal.signal(number, _leave)


def end_at_once() -> None:
    """End this program with one line. The kernel ends its child processes."""
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR)
    os.write(2, _LINE)
    os._exit(INTERRUPTED)


def _leave(number: int, frame: object) -> None:
    del frame
    if number == signal.SIGTERM:  # a service manager expects that this signal ends the program
        os.write(2, _LINE)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    end_at_once()
