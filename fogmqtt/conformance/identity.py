"""What decides the outcome of an examination, found without importing any of it."""

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
#: Lines of it that name the processor and what it can do, on x86 and on ARM.
_CPU = ("model name", "flags", "Features", "CPU implementer", "CPU part", "CPU variant")
#: Variables that choose the code which OpenCV and numpy run.
_CHOOSING = ("OPENCV_", "NPY_", "OPENBLAS_")
#: Of a plug-in's package, no more files than this are looked at.
_MOST_FILES = 1000


def identity() -> str:
    """Hexadecimal digits that change whenever another examination may come out."""
    parts = (
        sys.version,
        *(f"{name}={value}" for name, value in os.environ.items() if name.startswith(_CHOOSING)),
        *_processor(),
        *(state for package in ("cv2", "numpy") for state in _libraries(package)),
        *_files(Path(__file__).parents[1]),
        *_plug_ins(),
        *_modules(),
    )
    return xxhash.xxh3_64_hexdigest("\n".join(sorted(parts)).encode())


def _processor() -> set[str]:
    try:
        lines = _CPUINFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = [platform.processor()]
    return {platform.machine(), *(line for line in lines if line.startswith(_CPU))}


def _libraries(package: str) -> Iterator[str]:
    """Its version, and the one file or all compiled files directly in its folder."""
    place = _place(package)
    if place is None:
        return
    yield _state(place)
    if place.name == "__init__.py":
        yield from map(_state, place.parent.glob("*.so"))
        yield from map(_state, place.parent.glob("version.py"))


def _plug_ins() -> Iterator[str]:
    for entry in metadata.entry_points(group=GROUP):
        version = entry.dist.version if entry.dist else ""
        yield f"{entry.name}={entry.value} {version}"
        place = _place(entry.module.partition(".")[0])
        if place is not None:
            yield from _files(place.parent if place.name == "__init__.py" else place)


def _modules() -> Iterator[str]:
    """What the configuration plugs in, in its order: the first of a name is used."""
    for count, module in enumerate(registry.plug_ins()):
        yield f"plug-in {count} {module}"
        place = Path(module) if is_file(module) else _place(module.partition(".")[0])
        if place is not None:
            yield from _files(place.parent if place.name == "__init__.py" else place)


def _place(package: str) -> Path | None:
    spec = PathFinder.find_spec(package)
    return Path(spec.origin) if spec and spec.origin else None


def _files(place: Path) -> Iterator[str]:
    if place.is_file():
        yield _state(place)
        return
    for count, file in enumerate(sorted(place.rglob("*.py"))):
        if count < _MOST_FILES:
            yield _state(file)


def _state(file: Path) -> str:
    try:
        known = file.stat()
    except OSError:
        return f"{file} is gone"
    return f"{file} {known.st_size} {known.st_mtime_ns}"
