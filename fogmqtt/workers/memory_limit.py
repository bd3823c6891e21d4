"""A limit to the memory of a process that runs operators of others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

#: An idle worker that keeps so much of what it may have is replaced: its next tile would pay.
_WORN = 0.75


class MemoryLimit:
    """How much memory operators may take in this process, beyond what it has when this is made.

    `memory_mb` of 0 is whatever there is; Linux alone knows such a limit.
    """

    def __init__(self, memory_mb: int) -> None:
        self._limit = 0
        if memory_mb and sys.platform == "linux":
            self._limit = data_bytes() + (memory_mb << 20)
            self._worn = self._limit - int((1 - _WORN) * (memory_mb << 20))
            limit_data(self._limit)

    def lift(self) -> None:
        """What is to be said about a lack of memory needs some."""
        if self._limit:
            limit_data(None)

    def used_up(self) -> bool:
        """Whether too little is left for another tile."""
        return bool(self._limit) and data_bytes() > self._worn


def limit_data(limit: int | None) -> None:
    """Bound this process to so many bytes of memory; None: to what its user may have."""
    import resource

    # DATA: what a process has for itself. AS would count the shared tiles and all libraries.
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if limit is None:
        limit = hard
    elif hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def data_bytes() -> int:
    """What RLIMIT_DATA counts."""
    pages = Path("/proc/self/statm").read_text("ascii").split()[5]
    return int(pages) * os.sysconf("SC_PAGESIZE")
