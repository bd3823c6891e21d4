"""Which version is older."""

from __future__ import annotations

import pytest

from fogmqtt.core.release import is_older


@pytest.mark.parametrize(
    ("version", "other", "older"),
    [("0.9.0", "0.10.0", True), ("1.0.0", "1.0.0", False), ("1.1", "1.0.9", False)],
)
def test_versions_are_compared_by_their_numbers(version: str, other: str, older: bool) -> None:
    assert is_older(version, other) is older
