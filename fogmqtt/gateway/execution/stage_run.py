"""One stage of a job at work: its pixels, cut, sent, checked and merged. Runs in the pool."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import SystemRandom

import msgspec
import numpy as np

from fogmqtt.core.geometry import Auto, Grid, Seams, Size, Tile, TilePlan, cut
from fogmqtt.core.tiling import HEADER_BYTES, auto_plan, check_plan, halve, parts
from fogmqtt.errors import WireError
from fogmqtt.images import codec
from fogmqtt.images.source import ImageSource, as_array
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import results
from fogmqtt.operators.api.base import Merger, Operator
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

#: The planes codec in the worst case: two bits a pixel and what zlib adds to the incompressible.
PLANES_PIXEL_BYTES = 0.26


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """What a message may be, header and all."""

    message_bytes: int
    encoding: Encoding

    @property
    def pixel_bytes(self) -> int:
        """The same before base64 makes four bytes of three."""
        return self.message_bytes if self.encoding == "binary" else self.message_bytes * 3 // 4


@dataclass(frozen=True, slots=True)
class StageRun:
    """A stage with the image that enters it, its tiles and what merges them."""

    key: str
    stage: Stage
    operators: tuple[Operator, ...]
    image: ImageSource
    tiles: tuple[Tile, ...]
    merger: Merger
    #: Tiles that a second device does once more, see `core.checks`.
    check_tiles: tuple[int, ...] = ()
    #: False: the plan is the user's own, and kept to.
    splits: bool = False
    #: Halves of tiles, by index, and the tiles that they stand for. Owner thread only.
    halves: dict[int, Tile] = field(default_factory=dict)
    halved: set[int] = field(default_factory=set)
    #: Tiles that an earlier life of this gateway finished, merged already, and who did each.
    done: Mapping[int, str] = field(default_factory=dict)

    def tile(self, index: int) -> Tile:
        """A tile of the image, the twin of one, or half of one, in this order of indices."""
        if index < len(self.tiles):
            return self.tiles[index]
        if index in self.halves:
            return self.halves[index]
        return replace(self.tiles[self.check_tiles[index - len(self.tiles)]], index=index)

    def is_check_tile(self, index: int) -> bool:
        return len(self.tiles) <= index < len(self.tiles) + len(self.check_tiles)

    @property
    def count(self) -> int:
        """How many indices there are now."""
        return len(self.tiles) + len(self.check_tiles) + len(self.halves)

    def split(self, index: int, first: int, second: int) -> None:
        """Let two halves stand for a tile. Raises ValueError for one that cannot be halved."""
        tile = self.tile(index)
        halves = halve(tile, halo=self.stage.halo, align=self.stage.align)
        if halves is None:
            raise ValueError(f"{tile} cannot be halved")
        self.halved.add(index)
        for place, half in zip((first, second), halves, strict=True):
            self.halves[place] = replace(half, index=place)

    @property
    def known(self) -> tuple[Tile, ...]:
        """The tiles and halves that there are before anything is sent."""
        return (*self.tiles, *self.halves.values())

    @property
    def work(self) -> tuple[int, ...]:
        """Pixels that a device handles for each of them, halo and all."""
        return tuple(tile.outer.pixels for tile in self.known)

    @property
    def halves_pixels(self) -> tuple[tuple[int, ...], ...]:
        """The pixels of their parts after each halving; empty where none may be halved."""
        return _parts(self.stage, self.known) if self.splits else ()

    @property
    def kind(self) -> str:
        return format_pipeline(self.operators)


def begin(
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
    """Prepare a tiled stage: what it must know of the whole image, its tiles, its merger.

    `sample` is the share of tiles that a second device does too, at least one if it is not 0.

    Raises PlanError where the plan is impossible or makes messages that are too large.
    """
    operators = stage.operators
    if operators[0].begins_stage:
        operators = prepare(stage, as_array(image), as_array(original))
    tiles = planned(stage, plan, limits.pixel_bytes - _long_calls(operators), workers)
    merger = operators[-1].merger(stage.result)
    check_tiles = sampled(range(len(tiles)), sample)
    splits = isinstance(plan, Auto)
    return StageRun(key, stage, operators, image, tiles, merger, check_tiles, splits)


def _parts(stage: Stage, tiles: Sequence[Tile]) -> tuple[tuple[int, ...], ...]:
    # Counted once for all cores that are cut alike: it takes half a millisecond.
    alike = [_cut_alike(tile, stage.align) for tile in tiles]
    found = {
        key: parts(tile, halo=stage.halo, align=stage.align)
        for key, tile in dict(zip(alike, tiles, strict=True)).items()
    }
    return tuple(found[key] for key in alike)


def _cut_alike(tile: Tile, align: int) -> tuple[int, ...]:
    core, outer = tile.core, tile.outer
    # Middles are rounded to even multiples of the alignment.
    phase = core.top % (2 * align), core.left % (2 * align)
    above, beside = core.top - outer.top, core.left - outer.left
    return core.height, core.width, *phase, above, beside, outer.height, outer.width


def sampled(tiles: Sequence[int], share: float) -> tuple[int, ...]:
    """This share of tiles, at least one if it is not 0 and there is one."""
    # Of the system's randomness: a device that cheats must not know where nobody looks.
    return tuple(sorted(SystemRandom().sample(tiles, math.ceil(len(tiles) * share))))


def with_tiles(run: StageRun, tiles: tuple[Tile, ...]) -> StageRun:
    """The same stage, cut otherwise, with nothing merged and no twins."""
    merger = run.operators[-1].merger(run.stage.result)
    return replace(run, tiles=tiles, merger=merger, check_tiles=(), halves={}, halved=set())


def _long_calls(operators: Sequence[Operator]) -> int:
    """Bytes of the operators beyond what a header has room for: some learn whole tables."""
    return max(0, len(msgspec.json.encode(to_calls(operators))) - HEADER_BYTES // 2)


def planned(stage: Stage, plan: TilePlan, limit_bytes: int, workers: int) -> tuple[Tile, ...]:
    """The tiles of a stage for so many workers, none of them over `limit_bytes`.

    Raises PlanError where the plan is impossible or makes messages that are too large.
    """
    size = stage.source.size
    sent = stage.sent.pixel_bytes
    back = result_pixel_bytes(stage)
    chosen: Size | Grid
    if isinstance(plan, Auto):
        chosen = auto_plan(
            size,
            sent_pixel_bytes=sent,
            result_pixel_bytes=back,
            limit_bytes=limit_bytes,
            workers=workers,
            halo=stage.halo,
            align=stage.align,
        )
    else:
        chosen = plan
    tiles = cut(size, chosen, halo=stage.halo, align=stage.align)
    check_plan(tiles, sent_pixel_bytes=sent, result_pixel_bytes=back, limit_bytes=limit_bytes)
    return tiles


def result_pixel_bytes(stage: Stage) -> float:
    """Bytes that come back for a pixel of the core, at the worst."""
    last = stage.operators[-1]
    if isinstance(last, Measuring):
        return last.part_pixel_bytes
    return PLANES_PIXEL_BYTES if last.result_codec == "planes" else stage.result.pixel_bytes


def cut_tile(run: StageRun, tile: Tile) -> Image:
    """The pixels that a device gets for a tile: contiguous, narrowed."""
    return np.ascontiguousarray(
        run_gateway_operators(run.stage.gateway_operators, run.image.read(tile.outer))
    )


def do_tile(run: StageRun, tile: Tile) -> results.TileResult:
    """The work of a device, done here."""
    core = tile.core.within(tile.outer)
    operators = for_tile(run.operators, tile.outer, run.stage.source.size)
    return run_tile(operators, cut_tile(run, tile), core, tile.seams)


def task(
    run: StageRun,
    tile: Tile,
    *,
    attempt: int,
    gateway: str,
    lease_s: float,
    wire_codec: str,
    priority: int = 0,
) -> TileTask:
    """The message that asks a device for a tile."""
    pixels = cut_tile(run, tile)
    spec = Spec.of(pixels)
    core = tile.core.within(tile.outer)
    stage = to_calls(for_tile(run.operators, tile.outer, run.stage.source.size))
    return with_digest(
        TileTask(
            job=run.key,
            tile=tile.index,
            attempt=attempt,
            gateway=gateway,
            stage=[Call(name, params) for name, params in stage],
            shape=(spec.height, spec.width, spec.channels),
            dtype=spec.dtype,  # type: ignore[arg-type]  # the codec refuses others
            core=(core.top, core.left, core.height, core.width),
            seams=letters(tile.seams),
            codec=wire_codec,
            result_codec=run.operators[-1].result_codec,
            lease_s=lease_s,
            priority=priority,
            pixels=memoryview(codec.encode(pixels, wire_codec)),
        )
    )


def letters(seams: Seams) -> str:
    """Seams as they travel: letters of "tlbr"."""
    sides = zip("tlbr", (seams.top, seams.left, seams.bottom, seams.right), strict=True)
    return "".join(letter for letter, cut_here in sides if cut_here)


def given(run: StageRun, tile: Tile, result: Result) -> results.TileResult:
    """What a result holds, if it is what this tile must give.

    Raises WireError for a wrong digest, shape or dtype, and for damaged pixels or facts.
    """
    check_digest(result)
    if result.codec != run.operators[-1].result_codec:
        raise WireError(f"{result.job} tile {tile.index}: codec {result.codec!r} was not asked for")
    return fitting(run, tile, result.shape, result.dtype, result.pixels)


def fitting(
    run: StageRun, tile: Tile, shape: tuple[int, int, int], dtype: str, data: memoryview
) -> results.TileResult:
    """What the bytes of a result hold. Raises WireError where this tile gives no such thing."""
    expected = _expected(run, tile)
    if (shape, dtype) != expected:
        raise WireError(
            f"{run.key} tile {tile.index}: a result of {shape} {dtype}, "
            f"expected {expected[0]} {expected[1]}"
        )
    return decoded(run, tile, data)


def decoded(run: StageRun, tile: Tile, data: memoryview | bytes) -> results.TileResult:
    """What the bytes of this tile's result hold. Raises WireError where it is no such thing."""
    last = run.operators[-1]
    encoded = results.EncodedResult(memoryview(data), *_expected(run, tile))
    return results.decode(last, last.result_codec, encoded)


def encoded(run: StageRun, tile: Tile, given: results.TileResult) -> memoryview:
    """A result's bytes as a device would send them."""
    last = run.operators[-1]
    return results.encode(last, given, tile.core, last.result_codec).data


def _expected(run: StageRun, tile: Tile) -> tuple[tuple[int, int, int], str]:
    size = tile.core.height, tile.core.width
    if run.stage.measures:
        return (*size, 1), "uint8"
    return (*size, run.stage.result.channels), run.stage.result.dtype
