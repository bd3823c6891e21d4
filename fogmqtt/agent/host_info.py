"""Facts about the machine of a device. All are cheap to read, and some may be missing."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from fogmqtt import __version__

_OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless")
_THERMAL = Path("/sys/class/thermal")


def host_name() -> str:
    """Return the network name of this machine."""
    return platform.node()


def versions() -> dict[str, str]:
    """Return the versions of fogmqtt, Python, OpenCV and NumPy, as far as they are installed.

    They come from the metadata of the packages, because OpenCV is not loaded before the first tile.
    """
    found = {"fogmqtt": __version__, "python": platform.python_version()}
    for name, packages in (("opencv", _OPENCV), ("numpy", ("numpy",))):
        for package in packages:
            with suppress(metadata.PackageNotFoundError):
                found.setdefault(name, metadata.version(package))
    return found


def load_average() -> float | None:
    """Return the load average of the last minute, or None where the system has none."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def temperature_c(folder: Path = _THERMAL) -> float | None:
    """Return the temperature of the hottest thermal zone in °C, or None if none is readable."""
    readings = []
    for zone in folder.glob("thermal_zone*/temp"):
        with suppress(OSError, ValueError):
            readings.append(int(zone.read_text()) / 1000)
    return max(readings, default=None)
