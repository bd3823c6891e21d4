"""Identifies everything that decides a conformance report, without importing any of it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

import xxhash

from fogmqtt.operators.api import registry
from fogmqtt.operators.api.plugins import GROUP, is_file

_CPUINFO = Path("/proc/cpuinfo")
#: Its lines that name the processor and its features, on x86 and on ARM.
_CPU_FIELDS = ("model name", "flags", "Features", "CPU implementer", "CPU part", "CPU variant")
#: Packages whose compiled files decide the results of operators.
_LIBRARIES = ("cv2", "numpy", "zxingcpp", "onnxruntime")
#: Prefixes of environment variables that select the code paths of OpenCV and numpy.
_VARIABLES = ("OPENCV_", "NPY_", "OPENBLAS_")
#: The most files of a plug-in's package that are looked at.
_MOST_FILES = 1000


def identity() -> str:
    """Return a hash, in hex, that changes whenever the conformance report may change."""
    parts = (
        sys.version,
        *(f"{name}={value}" for name, value in os.environ.items() if name.startswith(_VARIABLES)),
        *_cpu_lines(),
        *(state for package in _LIBRARIES for state in _libraries(package)),
        *_files(Path(__file__).parents[1]),
        *_packages(),
        *_configured_modules(),
    )
    return xxhash.xxh3_64_hexdigest("\n".join(sorted(parts)).encode())


def _cpu_lines() -> set[str]:
    try:
        lines = _CPUINFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = [platform.processor()]
    return {platform.machine(), *(line for line in lines if line.startswith(_CPU_FIELDS))}


def _libraries(package: str) -> Iterator[str]:
    """Yield the states of a package's main file and of the compiled files in its folder."""
    place = _location(package)
    if place is None:
        return
    yield _file_state(place)
    if place.name == "__init__.py":
        yield from map(_file_state, place.parent.glob("*.so"))
        yield from map(_file_state, place.parent.glob("version.py"))


def _packages() -> Iterator[str]:
    for entry in metadata.entry_points(group=GROUP):
        version = entry.dist.version if entry.dist else ""
        yield f"{entry.name}={entry.value} {version}"
        place = _location(entry.module.partition(".")[0])
        if place is not None:
            yield from _files(place.parent if place.name == "__init__.py" else place)


def _configured_modules() -> Iterator[str]:
    """Yield the configured plug-ins in their order: of equal operator names the first is used."""
    for count, module in enumerate(registry.plug_ins()):
        yield f"plug-in {count} {module}"
        place = Path(module) if is_file(module) else _location(module.partition(".")[0])
        if place is not None:
            yield from _files(place.parent if place.name == "__init__.py" else place)


def _location(package: str) -> Path | None:
    spec = PathFinder.find_spec(package)
    return Path(spec.origin) if spec and spec.origin else None


def _files(place: Path) -> Iterator[str]:
    if place.is_file():
        yield _file_state(place)
        return
    for count, file in enumerate(sorted(place.rglob("*.py"))):
        if count < _MOST_FILES:
            yield _file_state(file)


def _file_state(file: Path) -> str:
    try:
        known = file.stat()
    except OSError:
        return f"{file} is missing"
    return f"{file} {known.st_size} {known.st_mtime_ns}"
