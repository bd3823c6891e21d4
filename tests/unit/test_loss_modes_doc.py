"""Every test that the list of loss modes names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/loss-modes.md").read_text("utf-8")


def test_every_named_test_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 30
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or f"def {name}(" not in (ROOT / path).read_text("utf-8")
    ]
    assert missing == []


def test_every_mode_has_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    modes = [row for row in rows if not row.startswith("| what is lost")]
    assert modes
    assert [row for row in modes if "::test_" not in row] == []
