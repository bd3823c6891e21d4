"""What is written down of one job while it runs, and what an earlier life wrote."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec
import xxhash

from fogmqtt import __version__
from fogmqtt.core.geometry import Rect, Tile
from fogmqtt.core.tiling import check_plan
from fogmqtt.errors import FogError, PlanError, WireError
from fogmqtt.gateway.execution import stage_run
from fogmqtt.gateway.execution.stage_run import MessageLimits, StageRun
from fogmqtt.gateway.storage import pixel_cache
from fogmqtt.gateway.storage.durable_files import Bytes
from fogmqtt.gateway.storage.journal_db import (
    Begun,
    Halved,
    Kept,
    PastJob,
    PastStage,
    PastTile,
    Revoked,
    new_token,
)
from fogmqtt.gateway.storage.spool import Spool
from fogmqtt.gateway.storage.tile_file import digest, tile_file_path
from fogmqtt.gateway.storage.writer import SpoolWriter
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.pipeline import to_calls

log = logging.getLogger(__name__)

_Box = tuple[int, int, Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1)]]


class _Plan(msgspec.Struct, frozen=True, array_like=True):
    """A stage's tiles: each its core and what it is given, as top, left, height, width."""

    size: tuple[int, int]
    tiles: list[tuple[_Box, _Box]]


@dataclass(frozen=True, slots=True)
class Finished:
    """A tile that needs no work: its result as it travels."""

    tile: int
    device: str
    data: bytes


class JobJournal:
    """One job's. Reading belongs to the pool, writing to any one thread."""

    def __init__(self, spool: Spool, clerk: SpoolWriter, job: str, past: PastJob) -> None:
        self._spool = spool
        self._clerk = clerk
        self._job = job
        self._past = past
        self._tokens: dict[int, str] = {}

    def pixels(self) -> Image | None:
        """The image that an earlier life decoded; None where that is sooner done again."""
        return pixel_cache.read(self._spool.pixels(self._job))

    def keep_pixels(self, image: Image) -> None:
        """Spare the next life the decoding of a large image. The image must not be changed."""
        if pixel_cache.is_worthwhile(image):
            self._clerk.order(lambda: self._keep_pixels(image))

    def _keep_pixels(self, image: Image) -> None:
        try:
            self._spool.keep_pixels(self._job, image)
        except (OSError, FogError) as problem:
            log.info("%s: its pixels are not kept: %s", self._job, problem)

    def tiles(self, position: int, kind: str) -> tuple[Tile, ...] | None:
        """How an earlier life cut this stage; None if it did not, or the stage is another now."""
        stage = self._past.stages.get(position)
        return _read_plan(stage) if stage is not None and stage.kind == kind else None

    def halved(self, position: int) -> tuple[tuple[int, int, int], ...]:
        """Which of those it halved: the index of a tile and those of its halves, in order."""
        return self._past.stages[position].halved

    def finished(self, position: int) -> Iterator[Finished]:
        """The stage's tiles that an earlier life finished; damaged ones are left out."""
        stage = self._past.stages[position]
        self._tokens[position] = stage.token
        path = tile_file_path(self._spool.folder, self._job, stage.token)
        if not stage.tiles or not path.exists():
            return
        with path.open("rb") as tape:
            for index, past in sorted(stage.tiles.items(), key=lambda item: item[1].start):
                tape.seek(past.start)
                data = tape.read(past.length)
                if _is_whole(stage, index, past, data):
                    yield Finished(index, past.device, data)
                else:
                    log.warning("%s: tile %d is damaged on disk, done again", path.name, index)

    def begin(self, position: int, kind: str, tiles: Sequence[Tile]) -> None:
        """A stage begins, cut like this; what an earlier life did of it is void."""
        token = self._tokens[position] = new_token()
        self._clerk.line(Begun(token, self._job, position, kind, _write_plan(tiles)))

    def keep(self, position: int, tile: int, device: str, data: Bytes) -> None:
        """A tile's result counts."""
        self._clerk.line(Kept(self._job, self._tokens[position], tile, device, data))

    def split(self, position: int, tile: int, first: int, second: int) -> None:
        """Two halves stand for a tile."""
        self._clerk.line(Halved(self._tokens[position], tile, first, second))

    def revoke(self, position: int, tile: int) -> None:
        """It does not count any more."""
        self._clerk.line(Revoked(self._tokens[position], tile))


def _is_whole(stage: PastStage, index: int, past: PastTile, data: bytes) -> bool:
    return len(data) == past.length and digest(stage.token, index, data) == past.digest


def _write_plan(tiles: Sequence[Tile]) -> bytes:
    boxes = [(_box(tile.core), _box(tile.outer)) for tile in tiles]
    return msgspec.msgpack.encode(_Plan(tiles[0].size, boxes))


def _read_plan(stage: PastStage) -> tuple[Tile, ...] | None:
    try:
        plan = msgspec.msgpack.decode(stage.plan, type=_Plan)
    except msgspec.MsgspecError as problem:
        log.warning("a stage's plan cannot be read (%s): cut anew", problem)
        return None
    return tuple(
        Tile(index, Rect(*core), Rect(*outer), plan.size)
        for index, (core, outer) in enumerate(plan.tiles)
    )


def _box(rect: Rect) -> _Box:
    return rect.top, rect.left, rect.height, rect.width


log = logging.getLogger(__name__)


def take_up(
    run: StageRun, journal: JobJournal, position: int, *, limits: MessageLimits, sample: float
) -> StageRun:
    """The stage as an earlier life cut it, with what it finished merged; else this one, noted.

    `sample` is as in `stages.begin`: what is finished is not done again for its sake, and where
    tiles were halved nothing is.
    """
    kind = _kind(run)
    tiles = journal.tiles(position, kind)
    if tiles is None or not _fit(run, tiles, limits):
        journal.begin(position, kind, run.tiles)
        return run
    again = stage_run.with_tiles(run, tiles)
    for tile, first, second in journal.halved(position):
        again.split(tile, first, second)
    done = dict(_merged(again, journal.finished(position)))
    again = replace(again, done=done)
    if again.halves:
        return again
    rest = [tile.index for tile in tiles if tile.index not in done]
    return replace(again, check_tiles=stage_run.sampled(rest, sample))


def _merged(run: StageRun, finished: Iterator[Finished]) -> Iterator[tuple[int, str]]:
    """Which tiles are merged now, and who did them."""
    for one in finished:
        tile = run.tile(one.tile)
        try:
            run.merger.paste(tile, stage_run.decoded(run, tile, one.data))
        except WireError as problem:
            log.warning("%s: tile %d is done again: %s", run.key, one.tile, problem)
            continue
        yield one.tile, one.device


def _kind(run: StageRun) -> str:
    """Stands for all that decides what a tile's result is, beside its place and its pixels.

    Ours included: an operator that was mended must not meet tiles from before.
    """
    stage = run.stage
    facts = (
        __version__,
        to_calls(run.operators),
        str(stage.source),
        str(stage.result),
        stage.halo,
        stage.align,
        run.operators[-1].result_codec,
    )
    return xxhash.xxh3_128_hexdigest(msgspec.json.encode(facts))


def _fit(run: StageRun, tiles: tuple[Tile, ...], limits: MessageLimits) -> bool:
    """Whether the broker of today takes them."""
    try:
        check_plan(
            tiles,
            sent_pixel_bytes=run.stage.sent.pixel_bytes,
            result_pixel_bytes=stage_run.result_pixel_bytes(run.stage),
            limit_bytes=limits.pixel_bytes,
        )
    except PlanError:
        return False
    return tiles[0].size == run.stage.source.size
