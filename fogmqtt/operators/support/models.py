"""Model files: found by name, verified by hash, and loaded once for each thread.

A relative path is looked for in the working directory and in the folder of the setting `models`.
Gateway and device pass that setting to their child processes in an environment variable.
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
from fogmqtt.operators.support.onnx_file import external_files

#: The environment variable of the setting `models`.
FOLDER_VARIABLE = "FOGMQTT_MODELS"
#: Networks that a thread keeps; they are large.
_MOST_NETWORKS = 2


class _FileState(NamedTuple):
    """The present state of a file; it differs after the file changed."""

    path: Path
    changed_ns: int
    size: int


class _ModelFile(NamedTuple):
    """What is known of a file's content: its SHA-256 in hex, and other files with its weights."""

    digest: str
    external: tuple[str, ...]


class _ThreadNetworks(threading.local):
    """The networks of one thread, the newest last: OpenCV's networks are not thread-safe."""

    def __init__(self) -> None:
        self.nets: dict[tuple[_FileState, str], Any] = {}


_networks = _ThreadNetworks()


def find_file(model: str) -> Path:
    """Return the file of a model. Raises OperatorError that names the places of the search."""
    folders = Path(), Path(os.environ.get(FOLDER_VARIABLE) or "models")
    # Joining a folder with an absolute path gives the absolute path.
    candidates = list(dict.fromkeys((folder / model).absolute() for folder in folders))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    places = ", ".join(str(candidate) for candidate in candidates)
    raise OperatorError(f"model {model}: no such file; looked for {places}")


def file_digest(model: str) -> str:
    """Return the SHA-256 of a model's file, in hex. Raises OperatorError if there is none."""
    return _read_model(*_file_state(model, find_file(model))).digest


def verified_path(model: str, sha256: str) -> Path:
    """Return the model's file if it has this hash.

    Raises OperatorError if there is no such file, if it has another hash, which is named, or if its
    weights are in other files, which the hash does not cover.
    """
    path = find_file(model)
    file = _read_model(*_file_state(model, path))
    if file.digest != sha256:
        raise OperatorError(
            f"model {model}: {path} is another file: its hash is {file.digest}, expected {sha256}"
        )
    if file.external:
        others = ", ".join(file.external[:3]) + (", …" if len(file.external) > 3 else "")
        raise OperatorError(
            f"model {model}: its weights are in other files ({others}), which the hash does not "
            "cover; save the model as a single file: "
            f"python -c \"import onnx; onnx.save(onnx.load('{model}'), 'single.onnx')\", and give "
            "that one's sha256"
        )
    return path


def network(model: str, sha256: str) -> Any:
    """Return the network of a model's file, as a `cv2.dnn.Net` of the calling thread.

    Raises OperatorError like `verified_path`, and for a file that OpenCV cannot load.
    """
    key = (_file_state(model, verified_path(model, sha256)), sha256)
    nets = _networks.nets
    nets[key] = nets.pop(key, None) or _load(model, key[0].path, sha256)
    while len(nets) > _MOST_NETWORKS:
        del nets[next(iter(nets))]
    return nets[key]


def _file_state(model: str, path: Path) -> _FileState:
    try:
        stat = path.stat()
    except OSError as problem:
        raise OperatorError(f"model {model}: {problem}") from None
    return _FileState(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _read_model(path: Path, changed_ns: int, size: int) -> _ModelFile:
    del changed_ns, size
    data = _read(path)
    return _ModelFile(hashlib.sha256(data).hexdigest(), tuple(external_files(data)))


def _load(model: str, path: Path, sha256: str) -> Any:
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise OperatorError(f"model {model}: {path} changed while it was read")
    try:
        return cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
    except cv2.error as problem:
        raise OperatorError(
            f"model {model}: {path} is not an ONNX model that OpenCV {cv2.__version__} "
            f"can load: {reason(problem)}"
        ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise OperatorError(f"model {path}: {problem}") from None


def reason(problem: cv2.error) -> str:
    """Return OpenCV's message on one line, without the position in its source code."""
    text = " ".join(str(getattr(problem, "err", "") or problem).split())
    return text[:300]
