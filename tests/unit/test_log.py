"""Warnings: all are counted, few are logged, and none can change a terminal."""

from __future__ import annotations

import pytest

from fogmqtt.log import INTERVAL_S, CountedWarnings, one_line, shown_name


def test_a_flood_is_one_line_a_second_with_the_number_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warnings = CountedWarnings()
    for _ in range(1000):
        warnings.add("strange", "text", 0.0)
    warnings.add("strange", "newest", INTERVAL_S)
    assert warnings.counts["strange"] == 1001
    assert caplog.messages == ["strange: text", "strange: newest (and 999 more)"]


def test_one_reason_does_not_suppress_another(caplog: pytest.LogCaptureFixture) -> None:
    warnings = CountedWarnings()
    warnings.add("one", "a", 0.0)
    warnings.add("other", "b", 0.0)
    assert caplog.messages == ["one: a", "other: b"]


def test_text_of_other_clients_is_short_and_has_no_control_characters() -> None:
    assert one_line("Grüße\n\x1b[31mrot\x00") == "Grüße��[31mrot�"
    assert len(one_line("x" * 100_000)) == 500


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("in.png", "in.png"),
        ("写真\N{IDEOGRAPHIC SPACE}1.jpg", "写真\N{IDEOGRAPHIC SPACE}1.jpg"),
        ("at 9.00\N{NARROW NO-BREAK SPACE}AM.png", "at 9.00\N{NARROW NO-BREAK SPACE}AM.png"),
        ("caf\udce9.png", r"caf\xe9.png"),
        ("two\nlines\r.png", r"two\nlines\r.png"),
        ("\x1b[31mred.png", r"\x1b[31mred.png"),
        ("gpj\N{RIGHT-TO-LEFT OVERRIDE}.exe", r"gpj\u202e.exe"),
        ("\ud800.png", r"\ud800.png"),
    ],
)
def test_a_name_is_shown_on_one_line_and_remains_recognisable(name: str, shown: str) -> None:
    assert shown_name(name) == shown
    assert shown.encode("utf-8")
