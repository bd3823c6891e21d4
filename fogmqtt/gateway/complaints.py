"""Complaints about what others send us: all counted, few logged."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

#: Seconds between two lines: a device gone mad must not fill the disk.
EVERY_S = 1.0


class Complaints:
    """Logs the newest complaint and how many there were, at a bounded rate."""

    def __init__(self) -> None:
        self.total = 0
        self._unsaid = 0
        self._newest = ""
        self._said_at = float("-inf")

    def add(self, text: str, now: float) -> None:
        self.total += 1
        self._unsaid += 1
        self._newest = text
        self.flush(now)

    def flush(self, now: float) -> None:
        """Say what was held back, if it is time."""
        if not self._unsaid or now - self._said_at < EVERY_S:
            return
        more = f" (and {self._unsaid - 1} more)" if self._unsaid > 1 else ""
        log.warning("%s%s", self._newest, more)
        self._unsaid = 0
        self._said_at = now
