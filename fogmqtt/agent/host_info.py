"""What a device can say of the machine that it runs on. All of it is cheap and may be absent."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from fogmqtt import __version__

_OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless")
_THERMAL = Path("/sys/class/thermal")


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
