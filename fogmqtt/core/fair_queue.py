"""Fair shares: the key that was served least for its weight is next.

Start-time fair queueing (Goyal, Vin and Cheng, 1996): every key has a virtual time, which grows by
the cost of what it got, divided by its weight. A key that joins starts at the current virtual time:
neither behind the others nor with a claim to the past.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

#: Each step of priority doubles the share.
_STEP = 2.0

K = TypeVar("K", bound=Hashable)


def weight(priority: int) -> float:
    """The share relative to that of priority 0."""
    return _STEP**priority


class FairQueue(Generic[K]):
    """The virtual times of all keys that want to be served."""

    def __init__(self) -> None:
        self._served: dict[K, float] = {}
        self._now = 0.0

    def __contains__(self, key: K) -> bool:
        return key in self._served

    def join(self, key: K) -> None:
        """Let a key take part from now on. Nothing changes for one that takes part already."""
        self._served.setdefault(key, self._now)

    def leave(self, key: K) -> None:
        self._served.pop(key, None)

    def served(self, key: K) -> float:
        """The virtual time of a key. Raises KeyError for one that did not join."""
        return self._served[key]

    def charge(self, key: K, cost: float, weight: float) -> None:
        """Charge a key for what it got. Raises KeyError for one that did not join."""
        self._now = max(self._now, self._served[key])
        self._served[key] += cost / weight
