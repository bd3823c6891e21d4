"""Continue a tiled stage that the gateway had begun before a restart."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import xxhash

from fogmqtt import __version__
from fogmqtt.core.geometry import Tile
from fogmqtt.core.tiling import check_plan
from fogmqtt.errors import PlanError, WireError
from fogmqtt.gateway.execution import stage_run
from fogmqtt.gateway.execution.stage_run import MessageLimits, StageRun
from fogmqtt.gateway.storage.api import JobJournal, StoredTile
from fogmqtt.operators.api.pipeline import to_calls

log = logging.getLogger(__name__)


def resume_stage(
    run: StageRun, journal: JobJournal, position: int, *, limits: MessageLimits, sample: float
) -> StageRun:
    """The stage with its recorded tiles, the finished ones merged; else `run`, newly recorded.

    `sample` is as in `stage_run.begin`. Finished tiles are not checked again, and none are where
    tiles were split. Blocking: call from a worker thread.
    """
    kind = _kind(run)
    recorded = journal.recorded_stage(position, kind)
    if recorded is None or not _fit(run, recorded.tiles, limits):
        journal.begin_stage(position, kind, run.tiles)
        return run
    resumed = stage_run.with_tiles(run, recorded.tiles)
    for tile, first, second in recorded.splits:
        resumed.split(tile, first, second)
    resumed = replace(resumed, done=dict(_merge(resumed, journal.continue_stage(position))))
    if resumed.halves:
        return resumed
    rest = [tile.index for tile in resumed.tiles if tile.index not in resumed.done]
    return replace(resumed, check_tiles=stage_run.sampled(rest, sample))


def _merge(run: StageRun, stored: Iterator[StoredTile]) -> Iterator[tuple[int, str]]:
    """Merge finished tiles; yields the index and the device of each."""
    for one in stored:
        if one.tile >= run.count:
            log.warning("%s: tile %d is repeated: its split is not recorded", run.key, one.tile)
            continue
        tile = run.tile(one.tile)
        try:
            run.merger.paste(tile, stage_run.decoded(run, tile, one.data))
        except WireError as problem:
            log.warning("%s: tile %d is repeated: %s", run.key, one.tile, problem)
            continue
        yield one.tile, one.device


def _kind(run: StageRun) -> str:
    """Identifies everything that determines a tile's result except its place and its pixels.

    That includes our version: tiles of an operator before a fix must not be used after it.
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
    """Whether the tiles are of this image and within the broker's present limit."""
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
