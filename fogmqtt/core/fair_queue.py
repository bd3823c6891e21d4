"""Fair shares: whoever was served least for its weight is next.

Start-time fair queueing (Goyal, Vin and Cheng, 1996): every key has a virtual time that grows by
what it got, divided by its weight. Who comes, or comes again, starts at the virtual time of now:
neither behind the others nor with a claim to what it did not ask for.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

#: Each step of priority doubles the share.
_STEP = 2.0

K = TypeVar("K", bound=Hashable)


def weight(priority: int) -> float:
    """How many times the share of priority 0 this one has."""
    return _STEP**priority


class FairQueue(Generic[K]):
    """Virtual times of those who want to be served."""

    def __init__(self) -> None:
        self._served: dict[K, float] = {}
        self._now = 0.0

    def __contains__(self, key: K) -> bool:
        return key in self._served

    def join(self, key: K) -> None:
        """It wants to be served from now on; nothing changes for one who did already."""
        self._served.setdefault(key, self._now)

    def leave(self, key: K) -> None:
        self._served.pop(key, None)

    def served(self, key: K) -> float:
        """Its virtual time. Raises KeyError for one that did not join."""
        return self._served[key]

    def charge(self, key: K, cost: float, weight: float) -> None:
        """It was served. Raises KeyError for one that did not join."""
        self._now = max(self._now, self._served[key])
        self._served[key] += cost / weight
