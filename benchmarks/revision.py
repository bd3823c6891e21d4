"""The code of another revision: a folder that exists, or a temporary work tree of git."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


class NoRevision(Exception):
    """The revision cannot be had; the text says why."""


@contextmanager
def checkout(name: str) -> Iterator[Path]:
    """Yield a folder with the code of a revision, or of a folder. Raises NoRevision."""
    if (Path(name) / "fogmqtt").is_dir():
        yield Path(name).resolve()
        return
    found = _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if found.returncode:
        raise NoRevision(
            f"this clone has no revision {name} to compare with; git fetch --unshallow brings it"
        )
    folder = Path(tempfile.mkdtemp(prefix="fogmqtt-revision-"))
    try:
        added = _git("worktree", "add", "--detach", str(folder / "code"), found.stdout.strip())
        if added.returncode:
            raise NoRevision(f"git makes no work tree of {name}: {added.stderr.strip()}")
        yield folder / "code"
    finally:
        _git("worktree", "remove", "--force", str(folder / "code"))
        shutil.rmtree(folder, ignore_errors=True)


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", "git is not installed")
