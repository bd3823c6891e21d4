"""The program that tries other brokers works on Mosquitto; a part of it writes no page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.broker

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/brokers.md"


def test_a_trial_on_mosquitto_tells_how_it_went(broker: object, tmp_path: Path) -> None:
    del broker  # skips or fails where Mosquitto is missing
    before = PAGE.read_text("utf-8")
    options = ("--only", "mosquitto", "--trials", "e", "--keep", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "tests.brokers", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(" (")[0] for line in lines if line.startswith(" ")] == ["   e: ok: ok"] * 2
    assert [line.rpartition(", ")[2] for line in lines if line.startswith("==")] == [
        "MQTT 5",
        "MQTT 3.1.1",
    ]
    assert PAGE.read_text("utf-8") == before
    assert not (tmp_path / "results.json").exists()
