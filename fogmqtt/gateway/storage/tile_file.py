"""A stage's tile file: the results of its finished tiles, one after the other."""

from __future__ import annotations

import os
from pathlib import Path

import xxhash

from fogmqtt.gateway.storage.api import Bytes
from fogmqtt.gateway.storage.durable_files import DurableFiles

#: A tile file is named `<job>.<stage's token>.tiles`.
TILES_SUFFIX = ".tiles"


class TileFile:
    """An open tile file."""

    def __init__(self, path: Path, disk: DurableFiles) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._end = os.fstat(self._descriptor).st_size
        self._disk = disk

    def append(self, data: Bytes) -> int:
        """Append a result; returns its offset.

        Raises OSError; the next result overwrites what was written then.
        """
        start = self._end
        self._disk.write_at(self._descriptor, data, start)
        self._end += memoryview(data).nbytes
        return start

    def close(self) -> None:
        os.close(self._descriptor)


def tile_file_path(folder: Path, job: str, stage: str) -> Path:
    """The path of a stage's tile file; `stage` is the stage's token."""
    return folder / f"{job}.{stage}{TILES_SUFFIX}"


def digest(stage: str, tile: int, data: Bytes) -> str:
    """The digest of a result's bytes, its stage and its tile's index."""
    state = xxhash.xxh3_64(f"{stage}/{tile}/".encode())
    state.update(data)
    return state.hexdigest()
