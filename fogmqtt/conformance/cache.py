"""What was found before, kept in the user's cache folder: one file for each identity."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from fogmqtt.conformance.report import ConformanceReport

log = logging.getLogger(__name__)

#: More files than this, and the oldest go.
KEPT: Final = 16
_LARGEST_BYTES = 4_000_000


def folder() -> Path:
    """Where the user's programs keep what they can find out again."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # the specification says to ignore such
        try:
            base = Path("~/.cache").expanduser()
        except RuntimeError:  # a user without a home: a place that nothing can be written to
            base = Path(os.devnull)
    return base / "fogmqtt"


def load(place: Path, identity: str) -> ConformanceReport | None:
    """What was found; None where nothing was, or its file is damaged, which is logged."""
    file = _file(place, identity)
    try:
        with file.open("rb") as opened:
            return msgspec.json.decode(opened.read(_LARGEST_BYTES), type=ConformanceReport)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, RecursionError, ValueError) as problem:
        log.warning("%s cannot be used, examining anew: %s", file, problem)
        return None


def store(place: Path, identity: str, found: ConformanceReport) -> None:
    """Keep it, whole or not at all; where the folder cannot be written, that is logged."""
    file = _file(place, identity)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place, suffix=".new", delete=False) as opened:
            opened.write(msgspec.json.encode(found))
        Path(opened.name).replace(file)
        _drop_oldest(place)
    except OSError as problem:
        log.warning("%s: operators will be examined at every start: %s", file, problem)


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """Wait until no other process is within; at once where the folder cannot be written."""
    with contextlib.ExitStack() as opened:
        try:
            place.mkdir(parents=True, exist_ok=True)
            lock = opened.enter_context((place / "examination.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as problem:
            log.warning("%s: other programs may examine at the same time: %s", place, problem)
        yield


def _file(place: Path, identity: str) -> Path:
    return place / f"examination-{identity}.json"


def _drop_oldest(place: Path) -> None:
    files = sorted(place.glob("examination-*.json"), key=lambda file: file.stat().st_mtime)
    for file in files[:-KEPT]:
        file.unlink(missing_ok=True)
