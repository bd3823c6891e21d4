"""Model files: found by name, verified by hash, and loaded once for each thread.

A relative path is looked for in the working directory and in the folder of the setting `models`.
A device and a serving gateway, which take names from others, look in that folder only: otherwise
these could ask for the hash of any file. The settings are passed to child processes in environment
variables.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from fogmqtt.errors import OperatorError
from fogmqtt.images.cv import cv2
from fogmqtt.operators.support import onnx_runtime
from fogmqtt.operators.support.onnx_file import external_files

#: The environment variable of the setting `models`.
FOLDER_VARIABLE = "FOGMQTT_MODELS"
#: Set where names of models come from others: a model is a file of the folder, and nothing else.
ONLY_FOLDER_VARIABLE = "_FOGMQTT_ONLY_MODELS"
#: Models that come with this package.
_OURS = Path(__file__).parents[2]
#: What runs a network.
Engine = Literal["opencv", "onnx"]
_ONE_FILE = "python -c \"import onnx; onnx.save(onnx.load('{}'), 'single.onnx')\""
_PIECE_BYTES = 1024 * 1024
#: Networks that a thread keeps; they are large.
_MOST_NETWORKS = 2


class _FileState(NamedTuple):
    """The present state of a file; it differs after the file changed."""

    path: Path
    changed_ns: int
    size: int


#: A model's file, and behind it those that hold its weights, in the order in which it names them.
_Files = tuple[_FileState, ...]


class _ThreadNetworks(threading.local):
    """The networks of one thread, the newest last: OpenCV's networks are not thread-safe."""

    def __init__(self) -> None:
        self.nets: dict[tuple[Engine, _Files, str], Any] = {}


_networks = _ThreadNetworks()


def find_file(model: str) -> Path:
    """Return the file of a model. Raises OperatorError that names the places of the search."""
    folder = Path(os.environ.get(FOLDER_VARIABLE) or "models")
    if os.environ.get(ONLY_FOLDER_VARIABLE):
        return _file_in(folder, model)
    folders = Path(), folder
    # Joining a folder with an absolute path gives the absolute path.
    candidates = list(dict.fromkeys((folder / model).absolute() for folder in folders))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    places = ", ".join(str(candidate) for candidate in candidates)
    raise OperatorError(f"model {model}: no such file; looked for {places}")


def _file_in(folder: Path, model: str) -> Path:
    """Return a model's file in the folder. Raises OperatorError, which says nothing of others."""
    path = Path(os.path.normpath(folder.absolute() / model))
    if not (path.is_relative_to(folder.absolute()) or path.is_relative_to(_OURS)):
        raise OperatorError(
            f"model {model[:80]}: give the name of a file in the folder of the setting `models`"
        )
    if not path.is_file():
        raise OperatorError(
            f"model {model[:80]}: no such file in the folder of the setting `models`"
        )
    return path


def file_digest(model: str) -> str:
    """Return the SHA-256 of a model, in hex.

    If its weights are in other files, theirs follow: `cat model.onnx model.onnx.data | sha256sum`.
    Raises OperatorError if a file is missing.
    """
    return _digest(_files(model, find_file(model)))


def verify(model: str, sha256: str) -> None:
    """Raise OperatorError if there is no such model, or it has another hash, which is named."""
    _verified(model, sha256)


def network(model: str, sha256: str, engine: Engine) -> Any:
    """Return the network of a model for the calling thread.

    It is a `cv2.dnn.Net` or, with the engine `onnx`, an `onnx_runtime.Run`. Raises OperatorError
    like `verify`, and for a model that the engine cannot load.
    """
    key = (engine, _verified(model, sha256), sha256)
    nets = _networks.nets
    nets[key] = nets.pop(key, None) or _LOADERS[engine](model, key[1], sha256)
    while len(nets) > _MOST_NETWORKS:
        del nets[next(iter(nets))]
    return nets[key]


def _verified(model: str, sha256: str) -> _Files:
    files = _files(model, find_file(model))
    if (digest := _digest(files)) != sha256:
        names = " ".join(file.path.name for file in files)
        hint = f"; a model that is not one file has the hash of all: cat {names} | sha256sum"
        raise OperatorError(
            f"model {model}: this is another file: its hash is {digest}, "
            f"expected {sha256}{hint if len(files) > 1 else ''}"
        )
    return files


def _files(model: str, path: Path) -> _Files:
    main = _file_state(model, path)
    return (main, *(_file_state(model, _beside(model, path, name)) for name in _weights(main)))


@lru_cache(maxsize=16)
def _weights(main: _FileState) -> tuple[str, ...]:
    """Return the names of other files with weights."""
    return tuple(external_files(_read(main.path)))


def _beside(model: str, path: Path, name: str) -> Path:
    """Return a file with weights. Raises OperatorError if it is missing, or is anywhere else."""
    place = PurePosixPath(name)
    if not name or place.is_absolute() or ".." in place.parts:
        raise OperatorError(
            f"model {model}: its weights are in {name!r}, which is not in the model's folder; save "
            f"it as a single file: {_ONE_FILE.format(model)}"
        )
    file = path.parent / place
    if not file.is_file():
        raise OperatorError(
            f"model {model}: its weights are in {name}, which is missing beside it; copy it, too, "
            f"or save the model as a single file: {_ONE_FILE.format(model)}"
        )
    return file


def _file_state(model: str, path: Path) -> _FileState:
    try:
        stat = path.stat()
    except OSError as problem:
        raise OperatorError(f"model {model}: {problem.strerror}") from None
    return _FileState(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _digest(files: _Files) -> str:
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.path.open("rb") as opened:
                while piece := opened.read(_PIECE_BYTES):
                    digest.update(piece)
        except OSError as problem:
            raise OperatorError(f"model {file.path.name}: {problem.strerror}") from None
    return digest.hexdigest()


def _contents(model: str, files: _Files, sha256: str) -> list[bytes]:
    """Read all files. Raises OperatorError if they are not those with the hash any more."""
    contents = [_read(file.path) for file in files]
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    if digest.hexdigest() != sha256:
        raise OperatorError(f"model {model}: it changed while it was read")
    return contents


def _load_opencv(model: str, files: _Files, sha256: str) -> Any:
    try:
        if len(files) == 1:
            (data,) = _contents(model, files, sha256)
            return cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
        # OpenCV looks for other files beside the model, so it must open all of them itself.
        net = cv2.dnn.readNetFromONNX(str(files[0].path))
    except cv2.error as problem:
        raise OperatorError(
            f"model {model} is not an ONNX model that OpenCV {cv2.__version__} "
            f"can load: {reason(problem)}; engine=onnx may"
        ) from None
    if _files(model, files[0].path) != files:
        raise OperatorError(f"model {model}: it changed while it was read")
    return net


def _load_onnx(model: str, files: _Files, sha256: str) -> Any:
    data, *weights = _contents(model, files, sha256)
    try:
        return onnx_runtime.session(data, dict(zip(_weights(files[0]), weights, strict=True)))
    except OperatorError as problem:
        raise OperatorError(f"model {model}: {problem}") from None


_LOADERS: Final[dict[Engine, Callable[[str, _Files, str], Any]]] = {
    "opencv": _load_opencv,
    "onnx": _load_onnx,
}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise OperatorError(f"model {path.name}: {problem.strerror}") from None


def reason(problem: cv2.error) -> str:
    """Return OpenCV's message on one line, without the position in its source code."""
    text = " ".join(str(getattr(problem, "err", "") or problem).split())
    return text[:300]
