"""Lets a gateway update a board that `launch.sh` runs: in a program of its own, beside the agent.

`python -m fogmqtt.cli.updating eya FOLDER VERSION` is that program: what it needs is large.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fogmqtt.errors import FogError
from fogmqtt.joining.identity import folders, load_identity
from fogmqtt.joining.versions import Versions
from fogmqtt.log import one_line
from fogmqtt.wire.messages import UpdateReport

if TYPE_CHECKING:
    from fogmqtt.agent.service import Updater

log = logging.getLogger(__name__)

_MOST_REASON: Final = 400


def make_updater(device: str, folder: Path) -> Callable[[Callable[[UpdateReport], None]], Updater]:
    """Return what makes the updater of an agent; it reports on threads of its own."""
    return lambda report: BoardUpdater(device, Versions(folder), report)


class BoardUpdater:
    """Does one update at a time."""

    def __init__(
        self, device: str, versions: Versions, report: Callable[[UpdateReport], None]
    ) -> None:
        self._device = device
        self._versions = versions
        self._report = report
        self._running = threading.Lock()

    @property
    def last(self) -> UpdateReport | None:
        """Why the last update was taken back, if it was."""
        version, reason = self._versions.refused
        return UpdateReport(version, "taken back", reason[:_MOST_REASON]) if version else None

    def online(self) -> None:
        """Let the version that runs be kept."""
        try:
            self._versions.note_online()
        except FogError as problem:
            log.warning("this version may be taken back: %s", problem)

    def begin(self, version: str) -> bool:
        """Begin an update, unless one goes on; return whether it has begun."""
        if not self._running.acquire(blocking=False):
            return False
        threading.Thread(target=self._update, args=(version,), name="update", daemon=True).start()
        return True

    def _update(self, version: str) -> None:
        try:
            self._report(UpdateReport(version, "fetching"))
            self._report(self._outcome(version))
        finally:
            self._running.release()

    def _outcome(self, version: str) -> UpdateReport:
        command = [sys.executable, "-m", "fogmqtt.cli.updating"]
        command += [self._device, str(self._versions.folder), version]
        try:
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as program:
                assert program.stdout is not None  # noqa: S101  # they are pipes
                assert program.stderr is not None  # noqa: S101
                for _ in program.stdout:
                    self._report(UpdateReport(version, "installing"))
                reason = one_line(program.stderr.read().strip())[-_MOST_REASON:]
        except OSError as problem:
            return UpdateReport(version, "failed", problem.strerror or str(problem))
        if program.returncode:
            return UpdateReport(version, "failed", reason)
        return UpdateReport(version, "starting")


def main() -> int:
    """Update this board. Returns the exit code."""
    from fogmqtt.joining.board_update import update

    device, folder, version = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    try:
        found = load_identity(device, folders(os.environ))
        if found is None:
            print(f"{device} has joined no gateway", file=sys.stderr)
            return 2
        update(*found, Versions(folder), version, lambda: print("installing", flush=True))
    except FogError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    except OSError as problem:
        print(f"{problem.filename or folder}: {problem.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
