"""The memory that the images of all jobs may take together.

The number of jobs alone does not bound it: four images of 500 MP with 16 bits a channel are more
than most machines have.
"""

from __future__ import annotations

import threading
from typing import Final

from fogmqtt.errors import FogError
from fogmqtt.workers.resources import memory_mb

#: A job holds its image, its result, and for a moment what a stage makes in between.
COPIES: Final = 3
#: The part of this machine's memory that images may take.
_SHARE: Final = 0.5


class MemoryBudget:
    """The memory for the images of all jobs. Any thread may call the methods."""

    def __init__(self, limit_bytes: float | None = None) -> None:
        """`limit_bytes` is for all jobs together; by default half of the machine's memory."""
        self.limit = _SHARE * memory_mb() * 2**20 if limit_bytes is None else limit_bytes
        self.used = 0
        self.changed = threading.Condition()

    def reservation(self) -> Reservation:
        """Return a reservation for one job, of 0 bytes at first."""
        return Reservation(self)


class Reservation:
    """The part of the budget that one job uses. Any thread may call the methods."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._bytes = 0
        self._released = False

    def take(self, image_bytes: int) -> None:
        """Wait until there is room for an image of this size; blocks its thread.

        An image that is larger than the whole budget waits until no other job uses memory. Raises
        FogError if the job ends meanwhile.
        """
        budget, needed = self._budget, COPIES * image_bytes
        with budget.changed:
            budget.changed.wait_for(lambda: self._released or self._fits(needed))
            if self._released:
                raise FogError("the job ended before its image was decoded")
            self._bytes += needed
            budget.used += needed

    def release(self) -> None:
        """Return all memory to the budget, and let `take` raise FogError."""
        budget = self._budget
        with budget.changed:
            self._released = True
            budget.used -= self._bytes
            self._bytes = 0
            budget.changed.notify_all()

    def _fits(self, needed: int) -> bool:
        budget = self._budget
        others = budget.used - self._bytes
        return others == 0 or budget.used + needed <= budget.limit
