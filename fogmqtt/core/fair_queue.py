"""Fair sharing: the member that was served least for its weight is next.

This is start-time fair queueing (Goyal, Vin and Cheng, 1996). Each member has a virtual time. The
virtual time grows by the cost of each service, divided by the member's weight. A member that joins
starts at the current virtual time, so it neither falls behind nor gets credit for the time before.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

#: Each step of priority doubles the share.
_STEP = 2.0

K = TypeVar("K", bound=Hashable)


def weight(priority: int) -> float:
    """Return the share of a priority, as a multiple of the share of priority 0."""
    return _STEP**priority


class FairQueue(Generic[K]):
    """The virtual times of all members, by key."""

    def __init__(self) -> None:
        self._virtual_times: dict[K, float] = {}
        self._now = 0.0

    def __contains__(self, key: K) -> bool:
        return key in self._virtual_times

    def join(self, key: K) -> None:
        """Add a member at the current virtual time. A member that joined before is unchanged."""
        self._virtual_times.setdefault(key, self._now)

    def leave(self, key: K) -> None:
        """Remove a member. Does nothing for a key that is no member."""
        self._virtual_times.pop(key, None)

    def virtual_time(self, key: K) -> float:
        """Return the virtual time of a member. Raises KeyError for a key that is no member."""
        return self._virtual_times[key]

    def charge(self, key: K, cost: float, weight: float) -> None:
        """Record a service of a member. Raises KeyError for a key that is no member."""
        self._now = max(self._now, self._virtual_times[key])
        self._virtual_times[key] += cost / weight
