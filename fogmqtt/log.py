"""Warnings about messages of other clients: all are counted, few are logged."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter

log = logging.getLogger(__name__)

#: Seconds between two log lines with one reason. A faulty client must not fill the disk.
INTERVAL_S = 1.0


class CountedWarnings:
    """Counts all warnings by reason and logs the newest of each reason at a bounded rate.

    A reason is one of a few fixed words of this program and never the text of another client.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._logged_at: dict[str, float] = {}
        self._suppressed: Counter[str] = Counter()

    def add(self, reason: str, text: str, now: float) -> None:
        """Count a warning, and log it if its reason is due. `now` is monotonic seconds."""
        self.counts[reason] += 1
        if now - self._logged_at.get(reason, float("-inf")) < INTERVAL_S:
            self._suppressed[reason] += 1
            return
        self._logged_at[reason] = now
        more = self._suppressed.pop(reason, 0)
        log.warning("%s: %s%s", reason, one_line(text), f" (and {more} more)" if more else "")


class RateLimitedLog:
    """Logs at most `lines` lines per second, for events whose number other clients decide."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._second_began = float("-inf")
        self._logged = 0
        self._suppressed = 0

    def log(self, level: int, text: str, now: float, **subjects: str) -> None:
        """Log the text unless this second has enough lines. `now` is monotonic seconds.

        `subjects` says what it is about, such as a device.
        """
        if now - self._second_began >= INTERVAL_S:
            if self._suppressed:
                log.info("and %d more lines", self._suppressed)
            self._second_began, self._logged, self._suppressed = now, 0, 0
        if self._logged < self._lines:
            log.log(level, "%s", text, extra=subjects)
        else:
            self._suppressed += 1
        self._logged += 1


def shown_name(name: str) -> str:
    """Return the name or path of a file as one printable line of valid UTF-8.

    Line breaks, control characters and bytes that are no UTF-8 become escapes, such as `\\n` and
    `\\xe9`. Every other name stays as it is.
    """
    return "".join(letter if _is_shown(letter) else _escape(letter) for letter in name)


def _is_shown(letter: str) -> bool:
    # Names have other spaces too: of CJK text, and between a time and "AM".
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _escape(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # Python's stand-in for a byte that is no UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def printable(text: str) -> str:
    """Return a text for a log or a terminal, with its line breaks and tabs.

    Other control characters, which could move the cursor, clear the screen or reverse the writing,
    become escapes, such as `\\x1b`.
    """
    return "".join(
        letter if letter in "\n\t" or _is_shown(letter) else _escape(letter) for letter in text
    )


def one_line(text: str) -> str:
    """Make a foreign text safe for a log and a terminal.

    Returns at most 500 characters. Line breaks and control characters are replaced.
    """
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:500]
    )
