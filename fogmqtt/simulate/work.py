"""The jobs of a simulation: their stages, cut into tiles by the real plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fogmqtt.core.geometry import Auto, Grid, Size, TilePlan, cut
from fogmqtt.core.tiling import auto_plan, check_plan, parts
from fogmqtt.errors import ConfigError
from fogmqtt.images.spec import Spec
from fogmqtt.operators.api import pipeline
from fogmqtt.operators.api.pipeline import Stage, format_pipeline
from fogmqtt.simulate.fleet import DeviceSpec, FleetSpec

#: The bytes of a message beside its pixels.
ENVELOPE_BYTES = 300
#: The bytes per pixel of a result of bit planes: a quarter, run-length deflated.
_BITPLANES_PIXEL_BYTES = 0.1


@dataclass(frozen=True, slots=True)
class TileWork:
    """The pixels of a tile's input and of its result, and the bytes of both messages."""

    pixels: int
    core: int
    out_bytes: float
    back_bytes: float
    #: The pixels of each part after one halving, two, …; empty: it cannot be halved.
    parts: tuple[int, ...] = ()

    def halves(self) -> tuple[TileWork, TileWork]:
        """Two tiles that do its work."""
        pixels, below = self.parts[0], self.parts[1:]
        out_bytes = self.out_bytes * pixels / self.pixels
        first, second = (
            TileWork(pixels, core, out_bytes, self.back_bytes / 2, below)
            for core in ((self.core + 1) // 2, self.core // 2)
        )
        return first, second


@dataclass(frozen=True, slots=True)
class StageWork:
    """The tiles of one stage."""

    kind: str
    operators: frozenset[str]
    tiles: tuple[TileWork, ...]

    @property
    def core(self) -> int:
        return sum(tile.core for tile in self.tiles)


@dataclass(frozen=True, slots=True)
class JobWork:
    """A job that arrives at `at_s`; its stages follow each other."""

    id: str
    stages: tuple[StageWork, ...]
    at_s: float = 0.0
    priority: int = 0

    @property
    def tiles(self) -> int:
        return sum(len(stage.tiles) for stage in self.stages)


def even_job(
    name: str,
    tiles: int,
    pixels: int,
    *,
    at_s: float = 0.0,
    operators: Sequence[str] = (),
    halvings: int = 0,
    priority: int = 0,
) -> JobWork:
    """A job of equal gray tiles of `pixels` each, without a halo: for tests and benchmarks."""
    nbytes, parts = pixels + ENVELOPE_BYTES, halved(pixels, halvings)
    tile = TileWork(pixels, pixels, nbytes, nbytes, parts)
    stage = StageWork("even", frozenset(operators), (tile,) * tiles)
    return JobWork(name, (stage,), at_s, priority)


def halved(pixels: int, times: int) -> tuple[int, ...]:
    """The pixels of the parts of a tile without a halo."""
    return tuple(-(-pixels // 2**time) for time in range(1, times + 1))


def planned_job(
    name: str, text: str, pixels: float, plan: TilePlan, fleet: FleetSpec, limit_bytes: int
) -> JobWork:
    """A pipeline on a nearly square colour image of `pixels`, cut as the gateway would.

    Stages that run on the gateway take no time here. Raises ConfigError where no device can do the
    pipeline, and PipelineError, OperatorError and PlanError as a real job does.
    """
    return job_of(name, tiled_stages(text, square_spec(pixels)), plan, fleet, limit_bytes)


def job_of(
    name: str, stages: Sequence[Stage], plan: TilePlan, fleet: FleetSpec, limit_bytes: int
) -> JobWork:
    """These stages, cut as the gateway would. Raises as `planned_job` does."""
    return JobWork(name, tuple(_stage(stage, plan, fleet, limit_bytes) for stage in stages))


def square_spec(pixels: float) -> Spec:
    """A nearly square colour image of `pixels`."""
    height = max(1, round(math.sqrt(pixels)))
    return Spec(height, max(1, round(pixels / height)), 3)


def tiled_stages(text: str, spec: Spec) -> tuple[Stage, ...]:
    """The stages of a pipeline that devices do on an image of `spec`.

    Raises PipelineError and OperatorError.
    """
    return tuple(one for one in pipeline.split_stages(pipeline.parse(text), spec) if one.tiled)


def _stage(stage: Stage, plan: TilePlan, fleet: FleetSpec, limit_bytes: int) -> StageWork:
    names = frozenset(operator.name for operator in stage.operators)
    able = [device for device in fleet.devices if device.knows(names)]
    if not able:
        raise ConfigError(f"{fleet.origin}: devices: {_nobody(names, fleet)}")
    sent = stage.sent.pixel_bytes
    packed = stage.operators[-1].result_codec == "bitplanes"
    back = _BITPLANES_PIXEL_BYTES if packed else stage.result.pixel_bytes
    chosen = _chosen(stage, plan, able, back, limit_bytes)
    tiles = cut(stage.source.size, chosen, halo=stage.halo, align=stage.align)
    check_plan(tiles, sent_pixel_bytes=sent, result_pixel_bytes=back, limit_bytes=limit_bytes)
    smaller: Sequence[tuple[int, ...]] = [()] * len(tiles)
    if isinstance(plan, Auto):
        smaller = parts(tiles, halo=stage.halo, align=stage.align)
    work = tuple(
        TileWork(
            tile.outer.pixels,
            tile.core.pixels,
            tile.outer.pixels * sent + ENVELOPE_BYTES,
            tile.core.pixels * back + ENVELOPE_BYTES,
            halvings,
        )
        for tile, halvings in zip(tiles, smaller, strict=True)
    )
    return StageWork(format_pipeline(stage.operators), names, work)


def _chosen(
    stage: Stage, plan: TilePlan, able: Sequence[DeviceSpec], back: float, limit_bytes: int
) -> Size | Grid:
    if not isinstance(plan, Auto):
        return plan
    sent = stage.sent.pixel_bytes
    return auto_plan(
        stage.source.size,
        sent_pixel_bytes=sent,
        result_pixel_bytes=back,
        limit_bytes=limit_bytes,
        workers=sum(device.workers for device in able),
        halo=stage.halo,
        align=stage.align,
    )


def _nobody(names: frozenset[str], fleet: FleetSpec) -> str:
    first = fleet.devices[0]
    lacks = ", ".join(sorted(names - set(first.operators)))
    return f"none can do {', '.join(sorted(names))}; {first.id} for one lacks {lacks}"
