"""The cores and the memory that worker processes may use on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

#: The files that hold a container's memory limit, in control groups of version 2 and version 1.
_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
#: The same with the files that hold the memory in use.
_MEMORY_USAGES = (
    (_MEMORY_LIMITS[0], Path("/sys/fs/cgroup/memory.current")),
    (_MEMORY_LIMITS[1], Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
#: Megabytes of a worker process that has loaded the operators.
WARM_WORKER_MB = 55
#: Workers that nobody asked for may use one part in this many of the free memory.
EARLY_WARM_FACTOR = 4
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MEMINFO = Path("/proc/meminfo")


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine_id(file: Path = _BOOT_ID) -> str:
    """Return an id that all programs on these cores share, in containers too; empty if unknown.

    It is new at each start of the machine. Host names do not serve: boards with a copy of one
    memory card have the same, and each container has its own.
    """
    try:
        return file.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""  # only Linux has this file


def memory_mb(limits: Sequence[Path] = _MEMORY_LIMITS) -> int:
    """Return the memory of this machine, or of the container if that has a lower limit, in MB."""
    least = os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in limits:
        with suppress(OSError, ValueError):  # the file holds "max" if there is no limit
            least = min(least, int(file.read_text("ascii")))
    return least >> 20


def available_mb(
    meminfo: Path = _MEMINFO, usages: Sequence[tuple[Path, Path]] = _MEMORY_USAGES
) -> int:
    """Return the memory that is free on this machine, or in the container if less, in MB.

    It is 0 if that is not known.
    """
    free = [_available_bytes(meminfo)]
    for limit, used in usages:
        with suppress(OSError, ValueError):  # the file holds "max" if there is no limit
            free.append(int(limit.read_text("ascii")) - int(used.read_text("ascii")))
    return max(0, min(free)) >> 20


def _available_bytes(meminfo: Path) -> int:
    with suppress(OSError, ValueError):
        for line in meminfo.read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0  # a system without this file


def worker_memory_mb(workers: int) -> int:
    """Return the memory that operators may use in each of `workers` workers, in MB.

    The workers share half of the memory. Each gets at least 256 MB, which is enough for tiles of a
    megapixel. With too many workers for that, the kernel ends workers before they reach a limit.
    """
    return max(256, memory_mb() // 2 // workers)
