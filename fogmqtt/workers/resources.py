"""How much of this machine worker processes may take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

#: What control groups say of a container's memory, in their second version and their first.
_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_mb(limits: Sequence[Path] = _MEMORY_LIMITS) -> int:
    """Memory that this process and its children may use; of a container, what it was given."""
    least = os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in limits:
        with suppress(OSError, ValueError):  # without a limit, "max" stands there
            least = min(least, int(file.read_text("ascii")))
    return least >> 20


def worker_memory_mb(workers: int) -> int:
    """A fair share for what operators take in each of so many workers.

    Half of the memory is for them. 256 MB are enough for tiles of a megapixel, and too many
    workers for that would be ended by the kernel first.
    """
    return max(256, memory_mb() // 2 // workers)
