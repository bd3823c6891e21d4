"""The cores and the memory that worker processes may use on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from msgspec import Struct

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MEMORY = Path("/proc/meminfo")
#: The control groups of this process, and where groups of version 2 and of version 1 are.
_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
#: The memory that a control group of version 1 uses.
_USED_1 = "memory.usage_in_bytes"
#: The resident memory of a worker's process that has loaded OpenCV, in MB.
WORKER_MB = 55
#: Processes that may never get a tile take at most this part of the memory that is free.
SPARE_FACTOR = 4
#: The memory of a machine that does not tell it.
_ASSUMED_BYTES = 2 << 30


def cores(own_groups: Path = _OWN_GROUPS, groups: Path = _GROUPS) -> int:
    """Return the number of cores that this process may use.

    It is limited by the affinity of this process, and by the lowest CPU quota of a control group
    around us, rounded down: `docker run --cpus 1.5` gives 1. It is at least 1.
    """
    if hasattr(os, "sched_getaffinity"):
        least = float(len(os.sched_getaffinity(0)))
    else:
        least = float(os.cpu_count() or 1)
    for group in _own_groups("cpu", own_groups, groups):
        with suppress(OSError, ValueError, ZeroDivisionError):
            if (quota := _cpu_quota(group)) > 0:
                least = min(least, quota)
    return max(1, int(least))


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
    least = _machine_bytes()
    for group in _own_groups("memory", own_groups, groups):
        with suppress(OSError, ValueError):  # the file holds "max" if there is no limit
            least = min(least, int(group.memory_limit.read_text("ascii")))
    return least >> 20


def available_mb(
    memory: Path = _MEMORY, own_groups: Path = _OWN_GROUPS, groups: Path = _GROUPS
) -> int:
    """Return the memory in MB that programs may take before this machine or a group is short.

    Returns 0 if that is unknown.
    """
    try:
        fields = dict(line.split(":", 1) for line in memory.read_text("ascii").splitlines())
        least = int(fields["MemAvailable"].split()[0]) << 10
    except (OSError, ValueError, KeyError):
        return 0  # only Linux has this file
    for group in _own_groups("memory", own_groups, groups):
        used = group.folder / ("memory.current" if group.is_unified else _USED_1)
        with suppress(OSError, ValueError):
            limit = int(group.memory_limit.read_text("ascii"))
            least = min(least, limit - int(used.read_text("ascii")))
    return max(0, least) >> 20


def has_memory_for_workers(workers: int) -> bool:
    """Whether so many processes may run all the time without a use for them."""
    return available_mb() > SPARE_FACTOR * workers * WORKER_MB


def _machine_bytes() -> int:
    with suppress(OSError, ValueError):  # not every system tells
        found = os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES")
        if found > 0:
            return found
    return _ASSUMED_BYTES


class _Group(Struct, frozen=True):
    """The folder of a control group. `is_unified`: of version 2, and not 1."""

    folder: Path
    is_unified: bool

    @property
    def memory_limit(self) -> Path:
        """The file with the limit of its memory."""
        return self.folder / ("memory.max" if self.is_unified else "memory.limit_in_bytes")


def _own_groups(controller: str, own_groups: Path, groups: Path) -> Iterator[_Group]:
    """Yield our groups that have this controller, and all groups around them.

    A container may see itself as the root, and may have no file that names its groups.
    """
    lines = ["0::/", f"0:{controller}:/"]
    with suppress(OSError):
        lines += own_groups.read_text("utf-8", errors="replace").splitlines()
    for line in lines:
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        # Some systems mount both versions, and several controllers of version 1 at one place.
        roots = {controller, controllers} if controllers else {"", "unified"}
        group = PurePosixPath(path.lstrip("/"))
        for root in sorted(roots):
            for each in (group, *group.parents):
                yield _Group(groups / root / each, is_unified=not controllers)


def _cpu_quota(group: _Group) -> float:
    """Return how many cores a group may keep busy; 0 or less if it has no limit.

    Raises OSError if it does not tell, and ValueError for "max".
    """
    if group.is_unified:
        quota, _, period = (group.folder / "cpu.max").read_text("ascii").partition(" ")
    else:
        quota = (group.folder / "cpu.cfs_quota_us").read_text("ascii")
        period = (group.folder / "cpu.cfs_period_us").read_text("ascii")
    return int(quota) / int(period)


def worker_memory_mb(workers: int) -> int:
    """Return the memory that operators may use in each of `workers` workers, in MB.

    The workers share half of the memory. Each gets at least 256 MB, which is enough for tiles of a
    megapixel. With too many workers for that, the kernel ends workers before they reach a limit.
    """
    return max(256, memory_mb() // 2 // workers)
