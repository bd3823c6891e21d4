"""A stage's tape: the pixels of its finished tiles in one file, one after the other."""

from __future__ import annotations

import os
from pathlib import Path

import xxhash

from fogmqtt.gateway.storage.durable_files import Bytes, DurableFiles
from fogmqtt.gateway.storage.spool import TAPE


class TileFile:
    """Finished tiles of one stage, one after the other."""

    def __init__(self, path: Path, disk: DurableFiles) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._end = os.fstat(self._descriptor).st_size
        self._disk = disk

    def append(self, data: Bytes) -> int:
        """Where it begins. Raises OSError; what was written of it is written over then."""
        start = self._end
        self._disk.write_at(self._descriptor, data, start)
        self._end += memoryview(data).nbytes
        return start

    def close(self) -> None:
        os.close(self._descriptor)


def tile_file_path(folder: Path, job: str, stage: str) -> Path:
    """The file of a stage's finished tiles."""
    return folder / f"{job}.{stage}{TAPE}"


def digest(stage: str, tile: int, data: Bytes) -> str:
    """Of a tile's bytes and where they belong."""
    state = xxhash.xxh3_64(f"{stage}/{tile}/".encode())
    state.update(data)
    return state.hexdigest()
