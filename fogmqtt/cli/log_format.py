"""How log lines look: text for people, or one JSON object for each record.

It uses nothing heavy, since a device's agent starts with it.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from fogmqtt.log import printable

if TYPE_CHECKING:
    from fogmqtt.config.schema import LogFormat

TEXT: Final = "%(asctime)s %(levelname)-7s %(message)s"
#: The date as people write it. It is local time.
TEXT_TIME: Final = "%Y-%m-%d %H:%M:%S"
#: What a record may say of its subject, as `extra` of the call that made it.
SUBJECTS: Final = ("job", "device", "gateway")


class TextFormatter(logging.Formatter):
    """A line of text for each record. Words of others in it cannot act on a terminal.

    Control characters become escapes. A further line begins with blanks, so that no message can
    look like two records.
    """

    def __init__(self) -> None:
        super().__init__(TEXT, TEXT_TIME)

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record)).replace("\n", "\n    ")


class JsonFormatter(logging.Formatter):
    """One line of JSON for each record, whatever its message holds.

    `subjects` are added to each record, such as the device whose agent this is.
    """

    def __init__(self, subjects: dict[str, str] | None = None) -> None:
        super().__init__()
        self._subjects = subjects or {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. The time is local, in ISO 8601 with the offset from UTC."""
        at = datetime.fromtimestamp(record.created, UTC).astimezone()
        line: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._subjects,
            **{name: record.__dict__[name] for name in SUBJECTS if name in record.__dict__},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return _encoded(line)


def _encoded(line: dict[str, Any]) -> str:
    import msgspec  # text needs none of it

    try:
        return msgspec.json.encode(line).decode()
    except UnicodeEncodeError:  # an unpaired surrogate, in the name of a file
        shown = {
            name: value.encode("utf-8", "backslashreplace").decode() for name, value in line.items()
        }
        return msgspec.json.encode(shown).decode()


def set_up_logging(verbose: int = 0, *, quiet: bool = False, form: LogFormat | None = None) -> None:
    """Log to stderr from level INFO on, or WARNING if `quiet`; each `verbose` is a level more."""
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=max(logging.DEBUG, level - 10 * verbose))
    use_log_format(form or "text")


def use_log_format(form: LogFormat, **subjects: str) -> None:
    """Let all further lines have this format; in JSON, each names these subjects."""
    formatter = TextFormatter() if form == "text" else JsonFormatter(subjects)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)


def log_format() -> LogFormat:
    """Return the format that is in use."""
    formatters = (handler.formatter for handler in logging.getLogger().handlers)
    return "json" if any(isinstance(one, JsonFormatter) for one in formatters) else "text"


def report_line(level: int, prefix: str, text: str) -> None:
    """Tell the user on stderr why a command ends: a line of text, or a record if logs are JSON."""
    if log_format() == "json":
        logging.getLogger("fogmqtt").log(level, "%s", text)
    else:
        print(f"{prefix}{printable(text)}", file=sys.stderr)
