"""Log lines are text for people, or one JSON object for each record."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from datetime import datetime

import pytest

from fogmqtt.cli import log_format
from fogmqtt.cli.common import report_errors
from fogmqtt.cli.log_format import JsonFormatter, use_log_format
from fogmqtt.errors import FogError


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What a handler beside those of pytest writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    before = {one: one.formatter for one in root.handlers}
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)
    for one, formatter in before.items():
        one.setFormatter(formatter)


def logged(message: str = "text", **more: object) -> dict[str, str]:
    made = logging.LogRecord("fogmqtt.some", logging.WARNING, "f", 1, message, (), None)
    made.__dict__.update(more)
    line = JsonFormatter({"gateway": "mariem"}).format(made)
    assert "\n" not in line
    found: dict[str, str] = json.loads(line)
    return found


def test_a_record_has_its_time_with_offset_its_level_logger_and_message() -> None:
    found = logged(created=1_800_000_000.25)
    at = datetime.fromisoformat(found.pop("time"))
    assert at.utcoffset() is not None
    assert at.timestamp() == 1_800_000_000.25
    assert found == {
        "level": "warning",
        "logger": "fogmqtt.some",
        "message": "text",
        "gateway": "mariem",
    }


def test_a_record_is_one_line_whatever_its_message_holds() -> None:
    assert logged("a\nb\r\n\u2028\x1b[31m")["message"] == "a\nb\r\n\u2028\x1b[31m"
    assert logged("caf\udce9.png")["message"] == "caf\\udce9.png"


def test_a_record_may_name_its_job_and_device() -> None:
    found = logged(device="eya", job="j1", other="no")
    assert (found["device"], found["job"]) == ("eya", "j1")
    assert "other" not in found


def test_an_exception_has_a_field_of_its_own() -> None:
    try:
        int("wrong")
    except ValueError:
        found = logged(exc_info=sys.exc_info())
    assert found["exception"].startswith("Traceback")
    assert found["exception"].endswith("base 10: 'wrong'")


def test_text_lines_have_the_date_as_people_write_it(written: io.StringIO) -> None:
    use_log_format("text")
    logging.getLogger("x").warning("hello")
    said = written.getvalue()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d WARNING hello\n", said)


def test_the_reason_why_a_program_ends_is_a_record_too(
    written: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise FogError("no such thing")

    use_log_format("json", device="eya")
    assert report_errors(fail) == FogError.exit_code
    line = json.loads(written.getvalue())
    assert (line["level"], line["message"], line["device"]) == ("error", "no such thing", "eya")
    use_log_format("text")
    assert log_format.log_format() == "text"
    report_errors(fail)
    assert capsys.readouterr().err == "error: no such thing\n"
