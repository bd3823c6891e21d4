"""What a device can say of the machine that it runs on. All of it is cheap and may be absent."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from fogmqtt import __version__

_OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless")
_THERMAL = Path("/sys/class/thermal")
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


def host() -> str:
    return platform.node()


def versions() -> dict[str, str]:
    """Read from the packages' metadata: OpenCV itself is not loaded before there is work."""
    found = {"fogmqtt": __version__, "python": platform.python_version()}
    for name, packages in (("opencv", _OPENCV), ("numpy", ("numpy",))):
        for package in packages:
            with suppress(metadata.PackageNotFoundError):
                found.setdefault(name, metadata.version(package))
    return found


def load() -> float | None:
    """The load average of the last minute."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def temperature_c(folder: Path = _THERMAL) -> float | None:
    """The hottest of the kernel's thermal zones, None where there is none to read."""
    readings = []
    for zone in folder.glob("thermal_zone*/temp"):
        with suppress(OSError, ValueError):
            readings.append(int(zone.read_text()) / 1000)
    return max(readings, default=None)
