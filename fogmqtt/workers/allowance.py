"""A limit to the memory of a process that runs operators of others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

#: An idle worker that keeps so much of what it may have is replaced: its next tile would pay.
_WORN = 0.75


class Allowance:
    """How much memory operators may take in this process, beyond what it has when this is made.

    `memory_mb` of 0 is whatever there is; Linux alone knows such a limit.
    """

    def __init__(self, memory_mb: int) -> None:
        self._limit = 0
        if memory_mb and sys.platform == "linux":
            self._limit = _data_bytes() + (memory_mb << 20)
            self._worn = self._limit - int((1 - _WORN) * (memory_mb << 20))
            self._set(self._limit)

    def lift(self) -> None:
        """What is to be said about a lack of memory needs some."""
        if self._limit:
            import resource

            self._set(resource.getrlimit(resource.RLIMIT_DATA)[1])

    def used_up(self) -> bool:
        """Whether too little is left for another tile."""
        return bool(self._limit) and _data_bytes() > self._worn

    @staticmethod
    def _set(limit: int) -> None:
        import resource

        # DATA: what a process has for itself. AS would count the shared tiles and all libraries.
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _data_bytes() -> int:
    """What RLIMIT_DATA counts."""
    pages = Path("/proc/self/statm").read_text("ascii").split()[5]
    return int(pages) * os.sysconf("SC_PAGESIZE")
