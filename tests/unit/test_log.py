"""Complaints: all counted, few logged, none able to harm a terminal."""

from __future__ import annotations

import pytest

from fogmqtt.log import EVERY_S, CountedWarnings, one_line


def test_a_flood_is_one_line_a_second_and_says_how_many(caplog: pytest.LogCaptureFixture) -> None:
    complaints = CountedWarnings()
    for _ in range(1000):
        complaints.add("strange", "text", 0.0)
    complaints.add("strange", "newest", EVERY_S)
    assert complaints.counts["strange"] == 1001
    assert caplog.messages == ["strange: text", "strange: newest (and 999 more)"]


def test_one_reason_does_not_silence_another(caplog: pytest.LogCaptureFixture) -> None:
    complaints = CountedWarnings()
    complaints.add("one", "a", 0.0)
    complaints.add("other", "b", 0.0)
    assert caplog.messages == ["one: a", "other: b"]


def test_what_peers_write_is_short_and_cannot_steer_a_terminal() -> None:
    assert one_line("Grüße\n\x1b[31mrot\x00") == "Grüße��[31mrot�"
    assert len(one_line("x" * 100_000)) == 500
