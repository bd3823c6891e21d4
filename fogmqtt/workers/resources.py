"""The cores and the memory that worker processes may use on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: The control groups of this process, and where groups of version 2 and of version 1 are.
_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


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


def memory_mb(own_groups: Path = _OWN_GROUPS, groups: Path = _GROUPS) -> int:
    """Return the memory of this machine in MB, or the lowest limit of a control group around us.

    A container and a systemd service with `MemoryMax` are such groups.
    """
    least = os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _limit_files(own_groups, groups):
        with suppress(OSError, ValueError):  # the file holds "max" if there is no limit
            least = min(least, int(file.read_text("ascii")))
    return least >> 20


def _limit_files(own_groups: Path, groups: Path) -> Iterator[Path]:
    """Yield the files with the limits of our groups and of all groups around them."""
    lines = ["0::/", "0:memory:/"]
    with suppress(OSError):
        lines += own_groups.read_text("utf-8", errors="replace").splitlines()
    for line in lines:
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        root = groups / "memory" if controllers else groups
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        group = PurePosixPath(path.lstrip("/"))
        for each in (group, *group.parents):
            yield root / each / name


def worker_memory_mb(workers: int) -> int:
    """Return the memory that operators may use in each of `workers` workers, in MB.

    The workers share half of the memory. Each gets at least 256 MB, which is enough for tiles of a
    megapixel. With too many workers for that, the kernel ends workers before they reach a limit.
    """
    return max(256, memory_mb() // 2 // workers)
