"""What happened, in order and bounded: for error messages, the log and the tests."""

from __future__ import annotations

from collections import deque

#: Enough to explain a failed job; a job that goes well writes nothing.
_LINES = 60
#: Devices write parts of lines: a long traceback must not fill the memory.
_CHARACTERS = 240


class EventLog:
    """The last lines of what happened to one job, each with its time since `began`."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._count = 0

    def add(self, now: float, text: str) -> None:
        self._count += 1
        self._lines.append(f"+{now - self._began:.2f} s {short(text)}")

    def lines(self) -> tuple[str, ...]:
        """The oldest line first, after the number of lines that were dropped."""
        gone = self._count - len(self._lines)
        head = (f"({gone} earlier lines are gone)",) if gone else ()
        return (*head, *self._lines)


def short(text: str) -> str:
    """The text as one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= _CHARACTERS else f"{line[: _CHARACTERS - 1]}…"
