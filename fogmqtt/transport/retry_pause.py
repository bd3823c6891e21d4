"""How long a client waits before it connects again.

A broker that restarts is back within seconds, and what is sent to nobody in the meantime is lost:
so the first attempts follow each other quickly. Pure logic without a clock.
"""

from __future__ import annotations

from typing import Final

#: The pause after a loss, in seconds. It grows to a part of the time without a broker, …
_FIRST_S: Final = 0.2
_PART: Final = 1 / 20
#: … up to this.
_LONGEST_S: Final = 5.0
#: The pause if only a human can remove the cause, or another client has the id: attempts would fill
#: the broker's log.
_HOPELESS_S: Final = 5.0
_TAKEN_OVER_S: Final = 1.0
#: A shorter connection does not end an outage: whoever loses every one must not hurry.
_STABLE_S: Final = 10.0
#: The first attempt to open a connection ends after so many seconds, and each further one after one
#: and a half times as many: a SYN that is lost is repeated later and later.
_FIRST_ATTEMPT_S: Final = 2.0
_GROWTH: Final = 1.5


class RetryPause:
    """The outages of one client, with times in seconds of the monotonic clock."""

    def __init__(self, connect_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._attempts = 0
        self._out_since: float | None = None
        self._connected_at: float | None = None

    @property
    def attempt_s(self) -> float:
        """Seconds that the next attempt to open a connection may take."""
        attempt_s = _FIRST_ATTEMPT_S * _GROWTH ** min(self._attempts, 32)
        return min(attempt_s, self._connect_timeout_s)

    def connected(self, now: float) -> None:
        """Note that a connection is ready."""
        self._connected_at = now
        self._attempts = 0

    def after_loss(self, now: float, *, taken_over: bool) -> float:
        """Return the pause after the end of a connection that was ready."""
        if self._connected_at is None or now - self._connected_at >= _STABLE_S:
            self._out_since = now
        return max(self._pause_s(now), _TAKEN_OVER_S if taken_over else 0.0)

    def after_refusal(self, now: float, *, final: bool) -> float:
        """Return the pause after an attempt that failed."""
        self._attempts += 1
        return _HOPELESS_S if final else self._pause_s(now)

    def _pause_s(self, now: float) -> float:
        if self._out_since is None:
            self._out_since = now
        return min(max(_FIRST_S, _PART * (now - self._out_since)), _LONGEST_S)
