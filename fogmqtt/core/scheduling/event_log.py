"""What happened, in order and bounded: for the user's error message, the log and the tests."""

from __future__ import annotations

from collections import deque

#: Enough to tell why a job failed; a job that goes well writes nothing.
_LINES = 60
#: A device writes part of a line: its traceback must not become our memory.
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
        """The oldest first; says how many older ones are gone."""
        gone = self._count - len(self._lines)
        head = (f"({gone} earlier lines are gone)",) if gone else ()
        return (*head, *self._lines)


def short(text: str) -> str:
    """One line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= _CHARACTERS else f"{line[: _CHARACTERS - 1]}…"
