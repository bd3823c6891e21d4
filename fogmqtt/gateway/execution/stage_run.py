"""A tiled stage of a job: its plan, its tasks, and the decoding of its results.

The functions work on pixels and may take long: call them in a worker thread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from random import SystemRandom

import msgspec
import numpy as np

from fogmqtt.core.geometry import Auto, Grid, Seams, Size, Tile, TilePlan, cut
from fogmqtt.core.tiling import HEADER_BYTES, auto_plan, check_plan, halve, parts
from fogmqtt.errors import PlanError, WireError
from fogmqtt.images import codec
from fogmqtt.images.source import ArrayImage, ImageSource, as_array
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import registry, results
from fogmqtt.operators.api.base import Merger, Operator, PasteMerger, StageOutput
from fogmqtt.operators.api.measuring import Measuring
from fogmqtt.operators.api.pipeline import (
    Stage,
    for_tile,
    format_pipeline,
    prepare,
    run_gateway_operators,
    run_tile,
    to_calls,
)
from fogmqtt.wire.messages import Call, Encoding, Result, TileTask, check_digest, with_digest
from fogmqtt.workers.resources import cores

#: Bytes per pixel of the codec bitplanes in the worst case: two bits, and what zlib adds to data
#: that it cannot compress.
BITPLANES_PIXEL_BYTES = 0.26
#: The codecs of a result beside the operator's own, as (codec, own).
_OTHER_CODECS = frozenset({("png", "raw"), ("raw", "bitplanes")})
#: A light tile has at most this many bytes of pixels, sent or returned.
_LIGHT_BYTES = 4 * 2**20
#: The strips that are done at the same time, at most, and the pixels of all of them together: they
#: stay in the processor's cache.
_MOST_STRIPS = 4
_STRIPS_PIXELS = 2 * 2**20


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """How large a message may be, with its header."""

    message_bytes: int
    encoding: Encoding
    #: `wire.max_message_bytes` where the broker's limit is lower; None where it is not.
    configured_bytes: int | None = None

    @property
    def pixel_bytes(self) -> int:
        """The limit in bytes before encoding: base64 makes four bytes of three."""
        return self.message_bytes if self.encoding == "binary" else self.message_bytes * 3 // 4


@dataclass(frozen=True, slots=True)
class StageRun:
    """A tiled stage of one job: the image that enters it, its tiles, and what merges them."""

    key: str
    stage: Stage
    operators: tuple[Operator, ...]
    image: ImageSource
    tiles: tuple[Tile, ...]
    merger: Merger
    #: Tiles that a second device does again, to compare; see `core.scheduling.spot_checks`.
    check_tiles: tuple[int, ...] = ()
    #: Whether tiles may be halved. A plan of the user's own is kept.
    splits: bool = False
    #: Halves of tiles by their index, and the tiles that they replace. For the event loop only.
    halves: dict[int, Tile] = field(default_factory=dict)
    halved: set[int] = field(default_factory=set)
    #: The device of each tile that an earlier run of the gateway finished. They are merged.
    done: Mapping[int, str] = field(default_factory=dict)

    #: What `is_light` asks for each tile, which is the same for all of them.
    _is_quick: bool = field(init=False)
    _pixel_bytes: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        stage = self.stage
        object.__setattr__(self, "_is_quick", self._works_quickly())
        object.__setattr__(self, "_pixel_bytes", (stage.sent.pixel_bytes, stage.result.pixel_bytes))

    def tile(self, index: int) -> Tile:
        """Return a tile of the image, a check tile or a half. Indices follow this order."""
        if index < len(self.tiles):
            return self.tiles[index]
        if index in self.halves:
            return self.halves[index]
        return msgspec.structs.replace(
            self.tiles[self.check_tiles[index - len(self.tiles)]], index=index
        )

    def is_check_tile(self, index: int) -> bool:
        return len(self.tiles) <= index < len(self.tiles) + len(self.check_tiles)

    @property
    def count(self) -> int:
        """The number of tiles, check tiles and halves now."""
        return len(self.tiles) + len(self.check_tiles) + len(self.halves)

    def split(self, index: int, first: int, second: int) -> None:
        """Replace a tile by two halves with these indices.

        Raises ValueError if the tile cannot be halved.
        """
        tile = self.tile(index)
        halves = halve(tile, halo=self.stage.halo, align=self.stage.align)
        if halves is None:
            raise ValueError(f"{tile} cannot be halved")
        self.halved.add(index)
        for half_index, half in zip((first, second), halves, strict=True):
            self.halves[half_index] = msgspec.structs.replace(half, index=half_index)

    @property
    def planned_tiles(self) -> tuple[Tile, ...]:
        """The tiles and halves that exist before anything is sent."""
        return (*self.tiles, *self.halves.values())

    @property
    def tile_pixels(self) -> tuple[int, ...]:
        """The pixels of each planned tile, halo included."""
        return tuple(tile.outer.pixels for tile in self.planned_tiles)

    @property
    def halves_pixels(self) -> tuple[tuple[int, ...], ...]:
        """For each planned tile, the pixels of its parts after each halving.

        Empty if tiles may not be halved.
        """
        if not self.splits:
            return ()
        return parts(self.planned_tiles, halo=self.stage.halo, align=self.stage.align)

    def is_light(self, tile: Tile) -> bool:
        """Whether cutting, checking or pasting this tile takes about a millisecond.

        Then the event loop does it, since a hop to a thread and back takes longer.
        """
        sent_bytes, result_bytes = self._pixel_bytes
        return (
            self._is_quick
            and tile.outer.pixels * sent_bytes <= _LIGHT_BYTES
            and tile.core.pixels * result_bytes <= _LIGHT_BYTES
        )

    def _works_quickly(self) -> bool:
        return (
            # Pixels in a file may have to come from a disk first.
            isinstance(self.image, ArrayImage)
            and isinstance(self.merger, PasteMerger)
            and self.operators[-1].result_codec in ("raw", "bitplanes")
            # A plug-in may hang.
            and all(
                registry.is_built_in(one.name)
                for one in (*self.stage.gateway_operators, *self.operators)
            )
        )

    @property
    def kind(self) -> str:
        """The operators as text, by which the scheduler learns service times."""
        return format_pipeline(self.operators)


def plan_stage(
    key: str,
    stage: Stage,
    image: ImageSource,
    original: ImageSource,
    *,
    plan: TilePlan,
    limits: MessageLimits,
    workers: int,
    sample: float = 0.0,
) -> StageRun:
    """Prepare a tiled stage: its operators for this image, its tiles and its merger.

    `sample` is the share of tiles that a second device does too: at least one tile unless it is 0.
    Raises PlanError if the plan is impossible or makes messages that are too large.
    """
    operators = stage.operators
    if operators[0].reads_image:
        operators = prepare(stage, as_array(image), as_array(original))
    tiles = _tiles_within(stage, plan, limits, _excess_call_bytes(operators), workers)
    merger = operators[-1].merger(stage.result)
    check_tiles = sample_tiles(range(len(tiles)), sample)
    splits = isinstance(plan, Auto)
    return StageRun(key, stage, operators, image, tiles, merger, check_tiles, splits)


def run_in_strips(stage: Stage, image: ImageSource, original: ImageSource) -> StageOutput:
    """Do a stage on this machine in strips, as exact as tiles are.

    It takes little more memory than the result, however large the image is.
    """
    operators = stage.operators
    if operators[0].reads_image:
        operators = prepare(stage, as_array(image), as_array(original))
    threads = min(cores(), _MOST_STRIPS)
    height, width = stage.source.size
    rows = max(1, _STRIPS_PIXELS // threads // (width * stage.align)) * stage.align
    strips = cut((height, width), Size(rows, width), halo=stage.halo, align=stage.align)
    run = StageRun("", stage, operators, image, strips, operators[-1].merger(stage.result))

    def do(strip: Tile) -> None:
        local = for_tile(operators, strip.outer, stage.source.size)
        core = strip.core.within(strip.outer)
        run.merger.paste(strip, run_tile(local, cut_tile(run, strip), core, strip.seams))

    with ThreadPoolExecutor(threads, thread_name_prefix="strips") as pool:
        for _ in pool.map(do, strips):
            pass  # raises what the operators raise
    return run.merger.finish()


def replace_tiles(run: StageRun, tiles: tuple[Tile, ...]) -> StageRun:
    """Return the same stage with other tiles, an empty merger and no check tiles."""
    merger = run.operators[-1].merger(run.stage.result)
    return replace(run, tiles=tiles, merger=merger, check_tiles=(), halves={}, halved=set())


def _tiles_within(
    stage: Stage, plan: TilePlan, limits: MessageLimits, call_bytes: int, workers: int
) -> tuple[Tile, ...]:
    """Cut a stage into tiles; smaller than planned where the broker's limit demands it.

    That limit may be learned in the middle of a job, from a lost connection, so a plan that fits
    into the configured limit must not make the job fail.
    """
    limit_bytes = limits.pixel_bytes - call_bytes
    try:
        return plan_tiles(stage, plan, limit_bytes, workers)
    except PlanError:
        if isinstance(plan, Auto) or limits.configured_bytes is None:
            raise
        configured = replace(limits, message_bytes=limits.configured_bytes)
        plan_tiles(stage, plan, configured.pixel_bytes - call_bytes, workers)
    return plan_tiles(stage, Auto(), limit_bytes, workers)


def plan_tiles(stage: Stage, plan: TilePlan, limit_bytes: int, workers: int) -> tuple[Tile, ...]:
    """Cut a stage into tiles for this number of workers, none of them over `limit_bytes`.

    Raises PlanError if the plan is impossible or makes messages that are too large.
    """
    size = stage.source.size
    sent_bytes = stage.sent.pixel_bytes
    result_bytes = result_pixel_bytes(stage)
    grid: Size | Grid
    if isinstance(plan, Auto):
        grid = auto_plan(
            size,
            sent_pixel_bytes=sent_bytes,
            result_pixel_bytes=result_bytes,
            limit_bytes=limit_bytes,
            workers=workers,
            halo=stage.halo,
            align=stage.align,
        )
    else:
        grid = plan
    tiles = cut(size, grid, halo=stage.halo, align=stage.align)
    check_plan(
        tiles,
        sent_pixel_bytes=sent_bytes,
        result_pixel_bytes=result_bytes,
        limit_bytes=limit_bytes,
    )
    return tiles


def sample_tiles(tiles: Sequence[int], share: float) -> tuple[int, ...]:
    """Choose this share of the tiles at random: at least one tile unless the share is 0."""
    # The system's randomness: a device that cheats must not predict which tiles are checked.
    return tuple(sorted(SystemRandom().sample(tiles, math.ceil(len(tiles) * share))))


def result_pixel_bytes(stage: Stage) -> float:
    """Return the bytes of a result for each pixel of the core, at most."""
    last = stage.operators[-1]
    if isinstance(last, Measuring):
        return last.part_pixel_bytes
    return BITPLANES_PIXEL_BYTES if last.result_codec == "bitplanes" else stage.result.pixel_bytes


def cut_tile(run: StageRun, tile: Tile) -> Image:
    """Return the pixels that a device gets for a tile: the contiguous array of its outer rectangle.

    The stage's gateway operators have run on it, so that fewer bytes travel.
    """
    return np.ascontiguousarray(
        run_gateway_operators(run.stage.gateway_operators, run.image.read(tile.outer))
    )


def make_task(
    run: StageRun,
    tile: Tile,
    *,
    pixels: Image | None = None,
    attempt: int,
    gateway: str,
    lease_s: float,
    wire_codec: str,
    result_codec: str = "",
    budget_s: float = 0.0,
    priority: int = 0,
    traceparent: str = "",
    tracestate: str = "",
) -> TileTask:
    """Make the message that asks a device to process a tile, and cut it unless `pixels` are given.

    A `wire_codec` that makes the tile larger is not used. Without a `result_codec` the result has
    the operator's own.
    """
    pixels = cut_tile(run, tile) if pixels is None else pixels
    encoded, used_codec = codec.encode_smaller(pixels, wire_codec)
    spec = Spec.of(pixels)
    core = tile.core.within(tile.outer)
    calls = to_calls(for_tile(run.operators, tile.outer, run.stage.source.size))
    return with_digest(
        TileTask(
            job=run.key,
            tile=tile.index,
            attempt=attempt,
            gateway=gateway,
            stage=[Call(name, params) for name, params in calls],
            shape=(spec.height, spec.width, spec.channels),
            dtype=spec.dtype,  # type: ignore[arg-type]  # the codec refuses others
            core=(core.top, core.left, core.height, core.width),
            seams=format_seams(tile.seams),
            codec=used_codec,
            result_codec=result_codec or run.operators[-1].result_codec,
            lease_s=lease_s,
            budget_s=budget_s,
            priority=priority,
            traceparent=traceparent,
            tracestate=tracestate,
            pixels=memoryview(encoded),
        )
    )


def format_seams(seams: Seams) -> str:
    """Return seams as in a message: letters of "tlbr"."""
    sides = zip("tlbr", (seams.top, seams.left, seams.bottom, seams.right), strict=True)
    return "".join(letter for letter, is_seam in sides if is_seam)


def decode_result(run: StageRun, tile: Tile, result: Result) -> results.TileResult:
    """Check the message with a tile's result, and decode it.

    Raises WireError for a wrong digest, codec, shape or dtype, and for damaged pixels or facts.
    """
    check_digest(result)
    own_codec = run.operators[-1].result_codec
    if result.codec != own_codec and (result.codec, own_codec) not in _OTHER_CODECS:
        raise WireError(f"{result.job} tile {tile.index}: codec {result.codec!r} was not asked for")
    encoded = results.EncodedResult(result.pixels, result.shape, result.dtype, result.codec)
    return decode_output(run, tile, encoded)


def decode_output(run: StageRun, tile: Tile, output: results.EncodedResult) -> results.TileResult:
    """Decode the output of a worker. Raises WireError for a wrong shape or dtype, or bad data."""
    shape, dtype = _expected_output(run, tile)
    if (output.shape, output.dtype) != (shape, dtype):
        raise WireError(
            f"{run.key} tile {tile.index}: a result of {output.shape} {output.dtype}, "
            f"expected {shape} {dtype}"
        )
    return results.decode(run.operators[-1], output)


def decode_stored(run: StageRun, tile: Tile, data: memoryview | bytes) -> results.TileResult:
    """Decode the bytes of a tile's result from the journal. Raises WireError."""
    last = run.operators[-1]
    shape, dtype = _expected_output(run, tile)
    encoded = results.EncodedResult(memoryview(data), shape, dtype, last.result_codec)
    return results.decode(last, encoded)


def _expected_output(run: StageRun, tile: Tile) -> tuple[tuple[int, int, int], str]:
    """Return the shape (height, width, channels) and the dtype of a tile's result."""
    size = tile.core.height, tile.core.width
    if run.stage.measures:
        return (*size, 1), "uint8"
    return (*size, run.stage.result.channels), run.stage.result.dtype


def _excess_call_bytes(operators: Sequence[Operator]) -> int:
    """Return the bytes of the calls beyond the header's room: some operators learn large tables."""
    return max(0, len(msgspec.json.encode(to_calls(operators))) - HEADER_BYTES // 2)
