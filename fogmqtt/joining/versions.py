"""The versions of fogmqtt that a board has: `launch.sh` runs, tries and takes back what is here.

The agent reads it at each start, so nothing heavy is imported here.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from fogmqtt.errors import ConfigError, reason_of

#: The exit code by which an agent asks `launch.sh` to start it again (EX_TEMPFAIL).
START_AGAIN: Final = 75
#: Seconds in which a new version must be online, or the one before runs again.
TRIAL_S: Final = 120
#: The program that reads the folder.
LAUNCHER: Final = Path(__file__).with_name("launch.sh")


class Versions:
    """The folder. `launch.sh` says what is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def base(self) -> Path:
        """The Python environment that was installed first."""
        return (self.folder / "base").resolve()

    def environment(self, version: str) -> Path:
        """The Python environment of a version that a gateway sent."""
        return self.folder / version

    @property
    def refused(self) -> tuple[str, str]:
        """The version that was taken back, and why; empty if the last one was not."""
        version, _, reason = self._read("refused").partition(" ")
        return version, reason

    def note_online(self) -> None:
        """Let `launch.sh` know that the agent is online. Raises ConfigError."""
        self._write("online", "")

    def clear(self) -> None:
        """Forget what was taken back, and remove all versions but the one that runs.

        Raises ConfigError.
        """
        kept = {"base", self._read("current")}
        try:
            (self.folder / "refused").unlink(missing_ok=True)
            for path in self.folder.iterdir():
                if path.is_dir() and path.name not in kept:
                    shutil.rmtree(path)
        except OSError as problem:
            raise self._error(problem) from None

    def choose(self, version: str) -> None:
        """Let `launch.sh` try a version at the next start. Raises ConfigError."""
        self._write("trial", f"{version}\n")

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text("utf-8").strip()
        except FileNotFoundError:
            return ""
        except OSError as problem:
            raise self._error(problem) from None

    def _write(self, name: str, text: str) -> None:
        part = self.folder / f"{name}.part"
        try:
            part.write_text(text, "utf-8")
            part.replace(self.folder / name)
        except OSError as problem:
            raise self._error(problem) from None

    def _error(self, problem: OSError) -> ConfigError:
        return ConfigError(f"{self.folder}: {reason_of(problem, self.folder)}")
