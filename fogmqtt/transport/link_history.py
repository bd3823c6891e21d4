"""What a program says of its link to the broker: losses with their cause, outages without a flood.

Gateway and agent each have one. It is pure, and gives texts and times; its owner logs.
"""

from __future__ import annotations

from typing import Final

#: Seconds until a refusal is said again; each further interval is twice as long, …
_FIRST_INTERVAL_S: Final = 10.0
#: … up to this one.
_LONGEST_INTERVAL_S: Final = 3600.0
#: A connection of at most this many seconds is short.
_SHORT_S: Final = 15.0
#: Short connections in a row after which another client with the same id is suspected.
_SUSPICIOUS: Final = 3


class LinkHistory:
    """The connections of one client, with times in seconds of the monotonic clock."""

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self._connected_at = float("-inf")
        self._short_losses = 0
        self._next_at = float("-inf")
        self._interval_s = _FIRST_INTERVAL_S

    def connected(self, now: float) -> None:
        """Note a new connection: the next outage is said at once."""
        self._connected_at = now
        self._next_at, self._interval_s = float("-inf"), _FIRST_INTERVAL_S

    def lost(self, reason: str, now: float) -> str:
        """Note the end of a connection; return the reason, with what a quick series means."""
        is_short = now - self._connected_at <= _SHORT_S
        self._short_losses = self._short_losses + 1 if is_short else 0
        if self._short_losses < _SUSPICIOUS:
            return reason
        return (
            f"{reason} ({self._short_losses} short connections in a row: another client probably "
            f"uses the client id {self._client_id!r}, or this user where the broker makes that the "
            "client id, and the broker lets in only one; give every gateway and device at this "
            "broker an id, and a user if it needs one, of its own)"
        )

    def is_due(self, now: float) -> bool:
        """Whether to say that an attempt to connect failed: at once, then less and less often."""
        if now < self._next_at:
            return False
        self._next_at = now + self._interval_s
        self._interval_s = min(2 * self._interval_s, _LONGEST_INTERVAL_S)
        return True
