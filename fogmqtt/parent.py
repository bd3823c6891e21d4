"""What child processes have of their parent: its end, and where it imports from.

They end with their parent, also if it is killed. Only Linux supports this. Elsewhere a child ends
when it finds that its pipe or socket to the parent is closed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def end_with_parent(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends.

    `parent` is the process id of the parent: if it has ended already, this process ends at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def before_exec(number: int) -> Callable[[], None] | None:
    """Return a `preexec_fn` after which the child gets the signal `number` when this thread ends.

    None where the system cannot do this.
    """
    if sys.platform != "linux":
        return None
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: after it, no lock may be taken

    def set_death_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # the parent ended before prctl
            os._exit(1)

    return set_death_signal


def child_path() -> list[str]:
    """Return the folders from which a child process may import: those of this process.

    A thread that imports OpenCV puts the folder of that package into `sys.path` for a moment. Its
    module `typing` would hide that of Python from the child, which could then import nothing. So
    folders of packages are left out where another folder has the package.
    """
    folders = set(sys.path)
    return [
        folder
        for folder in sys.path
        if str(Path(folder).parent) not in folders or not (Path(folder) / "__init__.py").exists()
    ]
