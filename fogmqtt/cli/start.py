"""Where the programs start: signals end them with one line, and a system that cannot run is told.

Loading the modules of a program takes most of its start, so both come before it. Only the standard
library is imported until then: a system that is refused lacks the other packages.
"""

from __future__ import annotations

import sys

from fogmqtt.cli.leaving import leave_on_signals

TYPE_CHECKING = False  # type checkers know the name, and `typing` is slow to load
if TYPE_CHECKING:
    from typing import NoReturn

_USAGE = 2


def gateway() -> NoReturn:
    """Run `fog-gateway` and end the process."""
    _prepare("fog-gateway")
    with _NamedImports("fog-gateway"):
        from fogmqtt.cli.gateway import main
        from fogmqtt.cli.program import run_program
    run_program(main)


def device() -> NoReturn:
    """Run `fog-device` and end the process."""
    _prepare("fog-device")
    with _NamedImports("fog-device"):
        from fogmqtt.cli.device import main
        from fogmqtt.cli.program import run_program
    run_program(main)


def dashboard() -> NoReturn:
    """Run `fog-dashboard` and end the process."""
    _prepare("fog-dashboard")
    with _NamedImports("fog-dashboard"):
        from fogmqtt.cli.dashboard import main
        from fogmqtt.cli.program import run_program
    run_program(main)


class _NamedImports:
    """Ends the program with one sentence where a package of others cannot be imported."""

    def __init__(self, program: str) -> None:
        self._program = program

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, problem: object, traceback: object) -> None:
        del kind, traceback
        if isinstance(problem, ImportError):
            from fogmqtt.errors import missing_package

            if text := missing_package(problem):
                print(f"{self._program}: a package is missing: {text}", file=sys.stderr)
                sys.exit(_USAGE)


def _prepare(program: str) -> None:
    leave_on_signals()
    reason = _why_not_here()
    if reason:
        print(f"{program}: {reason}", file=sys.stderr)
        sys.exit(_USAGE)


def _why_not_here() -> str:
    """Return why this system cannot run the programs, and the way out; empty if it can."""
    if sys.platform == "win32":
        return (
            "it does not run on Windows, which has no fork, signals and memory files as it needs "
            "them; use a Linux in WSL (wsl --install), or another machine"
        )
    if sys.maxsize > 2**32:
        return ""
    import platform

    # A 64-bit kernel may have a 32-bit Python, too.
    return (
        f"64-bit system needed: this Python has 32 bits ({platform.machine()}), and OpenCV and "
        "NumPy offer no packages for it; install a 64-bit system, such as Raspberry Pi OS (64-bit)"
    )
