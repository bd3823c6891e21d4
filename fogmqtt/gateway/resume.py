"""A stage that an earlier life began: the same tiles again, and the finished ones from disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import xxhash

from fogmqtt import __version__
from fogmqtt.core.geometry import Tile
from fogmqtt.core.plan import check_plan
from fogmqtt.errors import PlanError, WireError
from fogmqtt.gateway import stages
from fogmqtt.gateway.diary import Diary, Finished
from fogmqtt.gateway.stages import Limits, StageRun
from fogmqtt.operators.pipeline import calls

log = logging.getLogger(__name__)


def take_up(
    run: StageRun, diary: Diary, position: int, *, limits: Limits, sample: float
) -> StageRun:
    """The stage as an earlier life cut it, with what it finished merged; else this one, noted.

    `sample` is as in `stages.begin`: what is finished is not done again for its sake, and where
    tiles were halved nothing is.
    """
    kind = _kind(run)
    tiles = diary.tiles(position, kind)
    if tiles is None or not _fit(run, tiles, limits):
        diary.begin(position, kind, run.tiles)
        return run
    again = stages.with_tiles(run, tiles)
    for tile, first, second in diary.halved(position):
        again.split(tile, first, second)
    done = dict(_merged(again, diary.finished(position)))
    again = replace(again, done=done)
    if again.halves:
        return again
    rest = [tile.index for tile in tiles if tile.index not in done]
    return replace(again, twins=stages.sampled(rest, sample))


def _merged(run: StageRun, finished: Iterator[Finished]) -> Iterator[tuple[int, str]]:
    """Which tiles are merged now, and who did them."""
    for one in finished:
        tile = run.tile(one.tile)
        try:
            run.merger.paste(tile, stages.decoded(run, tile, one.data))
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
        calls(run.operators),
        str(stage.source),
        str(stage.result),
        stage.halo,
        stage.align,
        run.operators[-1].result_codec,
    )
    return xxhash.xxh3_128_hexdigest(msgspec.json.encode(facts))


def _fit(run: StageRun, tiles: tuple[Tile, ...], limits: Limits) -> bool:
    """Whether the broker of today takes them."""
    try:
        check_plan(
            tiles,
            sent_pixel_bytes=run.stage.sent.pixel_bytes,
            result_pixel_bytes=stages.result_pixel_bytes(run.stage),
            limit_bytes=limits.pixel_bytes,
        )
    except PlanError:
        return False
    return tiles[0].size == run.stage.source.size
