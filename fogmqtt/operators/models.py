"""Model files: found by name, known by their hash, loaded once for each thread.

A relative path is looked for in the working directory, in `models/` there, and in the folders of
the environment variable that `FOLDERS` names.
"""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from fogmqtt.errors import OperatorError
from fogmqtt.images.cv import cv2

#: Folders with a separator between them, as in PATH.
FOLDERS = "FOGMQTT_MODELS"
#: A thread keeps so many networks; they are large.
_KEPT = 2

_Key = tuple[Path, int, int, str]


class _Loaded(threading.local):
    """The networks of one thread, newest last: OpenCV's must not be shared."""

    def __init__(self) -> None:
        self.nets: dict[_Key, Any] = {}


_loaded = _Loaded()


def find(model: str) -> Path:
    """The file of a model. Raises OperatorError that says where it was looked for."""
    places = [folder / model for folder in _folders()] if not Path(model).is_absolute() else []
    candidates = [place.absolute() for place in (places or [Path(model)])]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise OperatorError(f"model {model}: no such file; looked for {looked}")


def digest(model: str) -> str:
    """The SHA-256 of a model's file, in hex. Raises OperatorError where there is none."""
    return hashlib.sha256(_read(model, find(model))).hexdigest()


def network(model: str, sha256: str) -> Any:
    """The network in a model's file, as a `cv2.dnn.Net` that is this thread's alone.

    Raises OperatorError for no file, a file with another hash, and one that OpenCV cannot load.
    """
    path = find(model)
    try:
        stat = path.stat()
    except OSError as problem:
        raise OperatorError(f"model {model}: {problem}") from None
    key = (path, stat.st_mtime_ns, stat.st_size, sha256)
    nets = _loaded.nets
    nets[key] = nets.pop(key, None) or _load(model, path, sha256)
    while len(nets) > _KEPT:
        del nets[next(iter(nets))]
    return nets[key]


def _folders() -> list[Path]:
    named = os.environ.get(FOLDERS, "").split(os.pathsep)
    return [Path(), Path("models"), *(Path(folder) for folder in named if folder)]


def _load(model: str, path: Path, sha256: str) -> Any:
    data = _read(model, path)
    real = hashlib.sha256(data).hexdigest()
    if real != sha256:
        raise OperatorError(
            f"model {model}: {path} is another file: its hash is {real}, expected {sha256}"
        )
    try:
        # From the bytes that were hashed, whatever happens to the file meanwhile.
        return cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
    except cv2.error as problem:
        raise OperatorError(
            f"model {model}: {path} is no ONNX model that OpenCV {cv2.__version__} "
            f"can load: {reason(problem)}"
        ) from None


def _read(model: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise OperatorError(f"model {model}: {problem}") from None


def reason(problem: cv2.error) -> str:
    """What OpenCV says, on one line, without where in its sources."""
    text = " ".join(str(getattr(problem, "err", "") or problem).split())
    return text[:300]
