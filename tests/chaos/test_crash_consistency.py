"""A gateway that is killed at any change on its disk keeps every promise after a restart.

Every other change is tested, with one of four kinds of kill; `python -m tests.crashes` tests all.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Dozens of lives one after the other; a slow machine may take minutes for them.
PATIENCE_S = 1500

pytestmark = [pytest.mark.chaos, pytest.mark.proof, pytest.mark.timeout(PATIENCE_S + 10)]


@pytest.mark.parametrize(
    ("kind", "changes", "tiles"),
    [("inbox", 10, 8), ("reply", 10, 8), ("dead", 7, 0), ("retry", 10, 8)],
)
def test_a_kill_at_any_change_loses_no_job_and_no_tile_and_repeats_no_result(
    kind: str, changes: int, tiles: int, tmp_path: Path
) -> None:
    # In its own process: it forks, which is not safe beside the threads of other tests.
    ran = subprocess.run(
        [sys.executable, "-m", "tests.crashes", str(tmp_path), kind, "--every", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    kills = [line for line in ran.stdout.splitlines() if "killed" in line]
    assert len(kills) > changes, ran.stdout
    assert any(f"{tiles} tiles were finished" in line for line in kills)


def test_a_second_kill_after_the_restart_changes_nothing(tmp_path: Path) -> None:
    command = ["-m", "tests.crashes", str(tmp_path), "inbox", "--twice", "--every", "4"]
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
