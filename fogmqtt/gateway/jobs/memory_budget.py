"""The memory that the images of all jobs may take together.

The number of jobs alone does not bound it: four images of 500 MP with 16 bits a channel are more
than most machines have.
"""

from __future__ import annotations

import threading
from typing import Final

from fogmqtt.errors import FogError, ImageError
from fogmqtt.workers.resources import memory_mb

#: A job holds its image, its result, and for a moment what a stage makes in between.
COPIES: Final = 3
#: The part of this machine's memory that the images of all jobs may take.
_SHARE: Final = 0.5
#: The part that the image of a single job may take while no other job has one.
_SHARE_ALONE: Final = 0.9


class MemoryBudget:
    """The memory for the images of all jobs. Any thread may call the methods."""

    def __init__(self, limit_bytes: float | None = None) -> None:
        """`limit_bytes` is for all jobs together; by default half of the machine's memory.

        The memory is that of the container or the service if that may use less.
        """
        machine = memory_mb() * 2**20
        self.limit = _SHARE * machine if limit_bytes is None else limit_bytes
        #: The most that one job may take while no other job has an image.
        self.limit_alone = _SHARE_ALONE * machine
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

    def take(self, image_bytes: int, work_bytes: int = 0) -> None:
        """Wait until there is room for images of this size; blocks its thread.

        `work_bytes` are needed while they are decoded. Images that are larger than the whole budget
        wait until no other job uses memory. Raises ImageError if this machine has too little memory
        for them, and FogError if the job ends meanwhile.
        """
        budget = self._budget
        needed = max(COPIES * image_bytes, image_bytes + work_bytes)
        if COPIES * image_bytes > budget.limit_alone:
            raise ImageError(
                f"its pixels take {image_bytes >> 20} MB, and a job holds {COPIES} such images, "
                f"over the {int(budget.limit_alone) >> 20} MB that this machine has for one job; "
                "use a smaller image, or a gateway with more memory"
            )
        with budget.changed:
            budget.changed.wait_for(lambda: self._released or self._fits(needed))
            if self._released:
                raise FogError("the job ended before its image was decoded")
            self._bytes += needed
            budget.used += needed

    def keep(self, image_bytes: int) -> None:
        """Return what only decoding needed: the job holds images of this size from now on."""
        budget, needed = self._budget, COPIES * image_bytes
        with budget.changed:
            if needed < self._bytes:
                budget.used -= self._bytes - needed
                self._bytes = needed
                budget.changed.notify_all()

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
