"""The journal of one job on disk: what a restarted gateway needs to continue it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec

from fogmqtt.core.geometry import Rect, Tile
from fogmqtt.errors import FogError
from fogmqtt.gateway.storage import pixel_cache
from fogmqtt.gateway.storage.api import (
    Bytes,
    JobHistory,
    RecordedStage,
    StageHistory,
    StoredTile,
    TileRecord,
)
from fogmqtt.gateway.storage.journal_db import (
    StageBegun,
    TileKept,
    TileRevoked,
    TileSplit,
    new_token,
)
from fogmqtt.gateway.storage.spool import Spool
from fogmqtt.gateway.storage.tile_file import digest, tile_file_path
from fogmqtt.gateway.storage.writer import SpoolWriter
from fogmqtt.images.spec import Image

log = logging.getLogger(__name__)

_Box = tuple[int, int, Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1)]]


class _Plan(msgspec.Struct, frozen=True, array_like=True):
    """A stage's tiles: the core and the outer rectangle of each, as top, left, height, width."""

    size: tuple[int, int]
    tiles: list[tuple[_Box, _Box]]


class DiskJobJournal:
    """The `JobJournal` of a job in the spool. Blocking methods read, all others only queue."""

    def __init__(self, spool: Spool, writer: SpoolWriter, job: str, history: JobHistory) -> None:
        self._spool = spool
        self._writer = writer
        self._job = job
        self._history = history
        self._tokens: dict[int, str] = {}

    def read_pixels(self) -> Image | None:
        return pixel_cache.read(self._spool.pixels_path(self._job))

    def keep_pixels(self, image: Image) -> None:
        if pixel_cache.is_worthwhile(image):
            self._writer.submit(lambda: self._keep_pixels(image))

    def recorded_stage(self, position: int, kind: str) -> RecordedStage | None:
        stage = self._history.stages.get(position)
        if stage is None or stage.kind != kind:
            return None
        tiles = _read_plan(stage)
        return None if tiles is None else RecordedStage(tiles, stage.splits)

    def continue_stage(self, position: int) -> Iterator[StoredTile]:
        stage = self._history.stages[position]
        self._tokens[position] = stage.token
        return self._stored_tiles(stage)

    def begin_stage(self, position: int, kind: str, tiles: Sequence[Tile]) -> None:
        token = self._tokens[position] = new_token()
        self._writer.append(StageBegun(token, self._job, position, kind, _write_plan(tiles)))

    def keep_tile(self, position: int, tile: int, device: str, data: Bytes) -> None:
        self._writer.append(TileKept(self._job, self._tokens[position], tile, device, data))

    def split_tile(self, position: int, tile: int, first: int, second: int) -> None:
        self._writer.append(TileSplit(self._job, self._tokens[position], tile, first, second))

    def revoke_tile(self, position: int, tile: int) -> None:
        self._writer.append(TileRevoked(self._job, self._tokens[position], tile))

    def _keep_pixels(self, image: Image) -> None:
        try:
            self._spool.keep_pixels(self._job, image)
        except (OSError, MemoryError, FogError) as problem:
            log.info("%s: its decoded pixels are not stored: %r", self._job, problem)

    def _stored_tiles(self, stage: StageHistory) -> Iterator[StoredTile]:
        path = tile_file_path(self._spool.folder, self._job, stage.token)
        if not stage.tiles or not path.exists():
            return
        with path.open("rb") as tile_file:
            for index, record in sorted(stage.tiles.items(), key=lambda item: item[1].start):
                tile_file.seek(record.start)
                data = tile_file.read(record.length)
                if _is_intact(stage, index, record, data):
                    yield StoredTile(index, record.device, data)
                else:
                    log.warning("%s: tile %d is damaged and is repeated", path.name, index)


def _is_intact(stage: StageHistory, index: int, record: TileRecord, data: bytes) -> bool:
    return len(data) == record.length and digest(stage.token, index, data) == record.digest


def _write_plan(tiles: Sequence[Tile]) -> bytes:
    boxes = [(_box(tile.core), _box(tile.outer)) for tile in tiles]
    return msgspec.msgpack.encode(_Plan(tiles[0].size, boxes))


def _read_plan(stage: StageHistory) -> tuple[Tile, ...] | None:
    try:
        plan = msgspec.msgpack.decode(stage.plan, type=_Plan)
    except msgspec.MsgspecError as problem:
        log.warning("a stage's recorded tiles cannot be read (%s): the stage restarts", problem)
        return None
    return tuple(
        Tile(index, Rect(*core), Rect(*outer), plan.size)
        for index, (core, outer) in enumerate(plan.tiles)
    )


def _box(rect: Rect) -> _Box:
    return rect.top, rect.left, rect.height, rect.width
