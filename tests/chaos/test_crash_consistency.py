"""Killed at any change of its disk, a gateway's next life keeps every promise: see tests.crashes.

One of four ways at each change here; all ways at each by `python -m tests.crashes`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize(
    ("kind", "changes", "tiles"),
    [("inbox", 20, 8), ("reply", 20, 8), ("dead", 15, 0), ("retry", 20, 8)],
)
def test_a_kill_at_any_change_costs_no_job_no_tile_and_doubles_no_result(
    kind: str, changes: int, tiles: int, tmp_path: Path
) -> None:
    # In a process of its own: it forks, which threads of other tests would not survive.
    ran = subprocess.run(
        [sys.executable, "-m", "tests.crashes", str(tmp_path), kind],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    survived = [line for line in ran.stdout.splitlines() if "killed" in line]
    assert len(survived) > changes, ran.stdout
    assert any(f"{tiles} tiles were finished" in line for line in survived)


def test_a_kill_of_the_next_life_too_changes_nothing(tmp_path: Path) -> None:
    command = ["-m", "tests.crashes", str(tmp_path), "inbox", "--twice", "--every", "4"]
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
