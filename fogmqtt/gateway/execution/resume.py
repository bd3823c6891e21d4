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
    """Return the stage with its recorded tiles, and the finished ones merged.

    If nothing is recorded, or its tiles do not fit any more, `run` is recorded and returned.
    `sample` is as in `stage_run.plan_stage`. Finished tiles are not checked again. If tiles were
    split, no tile is checked. Blocking: call from a worker thread.
    """
    kind = _stage_digest(run)
    recorded = journal.recorded_stage(position, kind)
    if recorded is None or not _fit(run, recorded.tiles, limits):
        journal.begin_stage(position, kind, run.tiles)
        return run
    resumed = stage_run.replace_tiles(run, recorded.tiles)
    for tile, first, second in recorded.splits:
        resumed.split(tile, first, second)
    resumed = replace(resumed, done=dict(_merge(resumed, journal.continue_stage(position))))
    if resumed.halves:
        return resumed
    unfinished = [tile.index for tile in resumed.tiles if tile.index not in resumed.done]
    return replace(resumed, check_tiles=stage_run.sample_tiles(unfinished, sample))


def _merge(run: StageRun, finished: Iterator[StoredTile]) -> Iterator[tuple[int, str]]:
    """Merge finished tiles; yields the index and the device of each."""
    for stored in finished:
        if stored.tile >= run.count:
            log.warning("%s: tile %d is repeated: its split is not recorded", run.key, stored.tile)
            continue
        tile = run.tile(stored.tile)
        try:
            run.merger.paste(tile, stage_run.decode_stored(run, tile, stored.data))
        except WireError as problem:
            log.warning("%s: tile %d is repeated: %s", run.key, stored.tile, problem)
            continue
        yield stored.tile, stored.device


def _stage_digest(run: StageRun) -> str:
    """Return a digest of what determines a tile's result, except its place and its pixels.

    It covers our version: tiles that an operator made before a fix must not be used after it.
    """
    stage = run.stage
    description = (
        __version__,
        to_calls(run.operators),
        str(stage.source),
        str(stage.result),
        stage.halo,
        stage.align,
        run.operators[-1].result_codec,
    )
    return xxhash.xxh3_128_hexdigest(msgspec.json.encode(description))


def _fit(run: StageRun, tiles: tuple[Tile, ...], limits: MessageLimits) -> bool:
    """Whether the tiles are of this image and within the broker's limit now."""
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
