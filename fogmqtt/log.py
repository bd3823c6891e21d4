"""Complaints about what others send us: all counted by reason, few logged."""

from __future__ import annotations

import logging
from collections import Counter

log = logging.getLogger(__name__)

#: Seconds between two lines about one reason: a peer gone mad must not fill the disk.
EVERY_S = 1.0


class CountedWarnings:
    """Counts every complaint and logs the newest of each reason at a bounded rate.

    Reasons are a few fixed words of our own, never a peer's.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._said_at: dict[str, float] = {}
        self._unsaid: Counter[str] = Counter()

    def add(self, reason: str, text: str, now: float) -> None:
        """One more; `now` is monotonic seconds."""
        self.counts[reason] += 1
        if now - self._said_at.get(reason, float("-inf")) < EVERY_S:
            self._unsaid[reason] += 1
            return
        self._said_at[reason] = now
        more = self._unsaid.pop(reason, 0)
        log.warning("%s: %s%s", reason, one_line(text), f" (and {more} more)" if more else "")


class RateLimitedLog:
    """Lets so many lines a second into the log, where others decide how much there is to tell."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._began = float("-inf")
        self._told = 0
        self._untold = 0

    def tell(self, level: int, text: str, now: float) -> None:
        """Log this, unless too much was logged within this second; `now` is monotonic seconds."""
        if now - self._began >= EVERY_S:
            if self._untold:
                log.info("and %d more that came or went", self._untold)
            self._began, self._told, self._untold = now, 0, 0
        if self._told < self._lines:
            log.log(level, "%s", text)
        else:
            self._untold += 1
        self._told += 1


def one_line(text: str) -> str:
    """What a peer wrote, safe for a log and a terminal: short, no line breaks, no control codes."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:500]
    )
