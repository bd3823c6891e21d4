"""Words of other programs cannot act on a terminal or forge a line of the log."""

from __future__ import annotations

import logging

import pytest

from fogmqtt.cli.log_format import TextFormatter, report_line
from fogmqtt.log import printable

EVIL = "\x1b]0;owned\x07\x1b[2J\u202edlrow\x9b31m\r2026-11-29 10:00:00 INFO forged"


def is_harmless(text: str) -> bool:
    return all(letter in "\n\t" or letter.isprintable() for letter in text)


def record(message: str) -> str:
    made = logging.LogRecord("x", logging.WARNING, __file__, 1, "%s", (message,), None)
    return TextFormatter().format(made)


def test_escapes_of_a_foreign_text_are_shown_and_not_done() -> None:
    assert is_harmless(record(EVIL))
    assert "\\x1b[2J" in record(EVIL)


def test_a_message_with_a_line_break_is_no_second_record() -> None:
    first, second = record("begins\n2026-11-29 10:00:00 INFO    forged").split("\n")
    assert first.endswith("begins")
    assert second.startswith("    ")


def test_the_reason_for_the_end_of_a_command_is_harmless(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report_line(logging.ERROR, "error: ", f"{EVIL}\n  a line of a traceback")
    told = capsys.readouterr().err
    assert is_harmless(told)
    assert told.endswith("\n  a line of a traceback\n")


def test_other_writing_stays_as_it_is() -> None:
    text = "Müller 写真 10:00\u202fAM éß\tλ\n한국어"
    assert printable(text) == text
