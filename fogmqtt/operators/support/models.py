"""Model files: found by name, known by their hash, loaded once for each thread.

A relative path is looked for in the working directory, and in the folder that the setting `models`
names. Both programs hand it on in its environment variable, so that their child processes know it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fogmqtt.errors import OperatorError
from fogmqtt.images.cv import cv2

#: The environment variable of the setting.
FOLDER_VARIABLE = "FOGMQTT_MODELS"
#: A thread keeps so many networks; they are large.
_KEPT = 2


class _Identity(NamedTuple):
    """A file as it is now; another when it changed."""

    path: Path
    changed_ns: int
    size: int


class _Loaded(threading.local):
    """The networks of one thread, newest last: OpenCV's must not be shared."""

    def __init__(self) -> None:
        self.nets: dict[tuple[_Identity, str], Any] = {}


_loaded = _Loaded()


def find_file(model: str) -> Path:
    """The file of a model. Raises OperatorError that says where it was looked for."""
    folders = Path(), Path(os.environ.get(FOLDER_VARIABLE) or "models")
    # An absolute path stays what it is, whatever stands before it.
    candidates = list(dict.fromkeys((folder / model).absolute() for folder in folders))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise OperatorError(f"model {model}: no such file; looked for {looked}")


def file_digest(model: str) -> str:
    """The SHA-256 of a model's file, in hex. Raises OperatorError where there is none."""
    return _digest(*_identity(model, find_file(model)))


def verified_path(model: str, sha256: str) -> Path:
    """The model's file, if it is the one with this hash.

    Raises OperatorError for no file, and for another: it gives that one's hash.
    """
    path = find_file(model)
    real = _digest(*_identity(model, path))
    if real != sha256:
        raise OperatorError(
            f"model {model}: {path} is another file: its hash is {real}, expected {sha256}"
        )
    return path


def network(model: str, sha256: str) -> Any:
    """The network in a model's file, as a `cv2.dnn.Net` that is this thread's alone.

    Raises OperatorError like `check`, and for a file that OpenCV cannot load.
    """
    key = (_identity(model, verified_path(model, sha256)), sha256)
    nets = _loaded.nets
    nets[key] = nets.pop(key, None) or _load(model, key[0].path, sha256)
    while len(nets) > _KEPT:
        del nets[next(iter(nets))]
    return nets[key]


def _identity(model: str, path: Path) -> _Identity:
    try:
        stat = path.stat()
    except OSError as problem:
        raise OperatorError(f"model {model}: {problem}") from None
    return _Identity(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _digest(path: Path, changed_ns: int, size: int) -> str:
    del changed_ns, size
    return hashlib.sha256(_read(path)).hexdigest()


def _load(model: str, path: Path, sha256: str) -> Any:
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise OperatorError(f"model {model}: {path} was changed while it was read")
    try:
        return cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
    except cv2.error as problem:
        raise OperatorError(
            f"model {model}: {path} is no ONNX model that OpenCV {cv2.__version__} "
            f"can load: {reason(problem)}"
        ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise OperatorError(f"model {path}: {problem}") from None


def reason(problem: cv2.error) -> str:
    """What OpenCV says, on one line, without where in its sources."""
    text = " ".join(str(getattr(problem, "err", "") or problem).split())
    return text[:300]
