"""The test that every operator must pass: tiled equals whole, bit for bit.

    from fogmqtt.operators.api.testing import check_tiled_equals_whole

    def test_vignette_is_exact() -> None:
        check_tiled_equals_whole(Vignette(), cv2.imread("photo.jpg"))

The test cuts an image into tiles, encodes and decodes tiles and operators as for the wire, runs
them, and merges the results, all in this process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from fogmqtt.core.geometry import Grid, Size, Tile, cut
from fogmqtt.core.tiling import halve
from fogmqtt.errors import OperatorError
from fogmqtt.images import codec
from fogmqtt.images.compare import difference
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import pipeline, registry, results
from fogmqtt.operators.api.base import Operator, StageOutput
from fogmqtt.operators.api.measuring import Part, count_differences
from fogmqtt.operators.api.pipeline import Stage

FixedPlan = Size | Grid

#: Strips, uneven grids, and tiles that are smaller than most halos.
PLANS: Sequence[FixedPlan] = (
    Grid(1, 1),
    Grid(1, 3),
    Grid(5, 1),
    Grid(3, 4),
    Size(64, 64),
    Size(11, 7),
    Size(3, 150),
)


def check_tiled_equals_whole(
    operator: Operator | Sequence[Operator], image: Image, plans: Sequence[FixedPlan] = PLANS
) -> None:
    """Raise OperatorError if the result of any plan's tiles differs from that of the whole image.

    A sequence of operators is run as a pipeline. Use an image of 100 to 300 pixels a side with
    edges and noise, whose sides have no common divisors with tile sizes.
    """
    operators = (operator,) if isinstance(operator, Operator) else tuple(operator)
    source = image.copy()
    source.flags.writeable = False  # an operator that changes its input then raises
    whole = pipeline.run_whole(operators, source, source)
    for plan in plans:
        differences = _differences(tiled(operators, source, plan), whole)
        if differences:
            text, spec = pipeline.format_pipeline(operators), Spec.of(image)
            raise OperatorError(
                f"{text} on {spec}, cut by {plan}: tiles differ from the whole in {differences}; "
                f"{_advice(operators, spec)}"
            )


def tiled(operators: Sequence[Operator], image: Image, plan: FixedPlan) -> StageOutput:
    """Return a pipeline's result, with each tiled stage cut, encoded, run, decoded and merged."""
    done: StageOutput = image
    for stage in pipeline.split_stages(operators, Spec.of(image)):
        assert not isinstance(done, dict)  # noqa: S101  # only the last stage measures
        if stage.tiled:
            tiles = _with_halves(
                cut(done.shape[:2], plan, halo=stage.halo, align=stage.align), stage
            )
            done = run_stage(stage, pipeline.prepare(stage, done, image), done, tiles)
        else:
            done = pipeline.run_whole(stage.operators, done, image)
    return done


def _with_halves(tiles: Sequence[Tile], stage: Stage) -> Sequence[Tile]:
    """Return the tiles with every third one split in halves, and one of its halves again.

    A gateway splits tiles like this for slow devices.
    """
    found: list[Tile] = []
    for tile in tiles:
        parts = [tile]
        for _ in range(2 if tile.index % 3 == 0 else 0):
            halves = halve(parts[-1], halo=stage.halo, align=stage.align, least_pixels=1)
            parts[-1:] = halves or parts[-1:]
        found += parts
    return [msgspec.structs.replace(tile, index=index) for index, tile in enumerate(found)]


def run_stage(
    stage: Stage, operators: Sequence[Operator], image: Image, tiles: Sequence[Tile]
) -> StageOutput:
    """Return the merged result of a stage's tiles; `operators` are the stage's, prepared.

    Raises OperatorError.
    """
    last = operators[-1]
    merger = last.merger(stage.result)
    for tile in tiles:
        sent = pipeline.run_gateway_operators(stage.gateway_operators, image[tile.outer.slices])
        result = run_on_device(operators, sent, tile, image.shape[:2])
        encoded = results.encode(last, result, tile.core, last.result_codec)
        merger.paste(tile, results.decode(last, encoded))
    return merger.finish()


def run_on_device(
    operators: Sequence[Operator], sent: Image, tile: Tile, size: tuple[int, int]
) -> Image | Part:
    """Return a tile's result as a device computes it.

    The operators are built from calls, and the pixels are a read-only view of bytes.
    """
    original = pipeline.for_tile(operators, tile.outer, size)
    arrived = round_trip(original, "msgpack" if tile.index % 2 else "json")
    if arrived != list(original):
        raise OperatorError(
            f"{original} arrive as {arrived}: all of an operator's state must be in its fields"
        )
    pixels = as_received(sent)
    return pipeline.run_tile(arrived, pixels, tile.core.within(tile.outer), tile.seams)


def as_received(sent: Image) -> Image:
    """Return pixels as a device gets them: a read-only view of bytes."""
    spec = Spec.of(sent)
    return codec.decode(
        bytes(codec.encode(sent, "raw")), "raw", (*spec.size, spec.channels), spec.dtype
    )


def round_trip(
    operators: Sequence[Operator], packing: Literal["msgpack", "json"]
) -> list[Operator]:
    """Return the operators after they were encoded and decoded as calls."""
    pack = msgspec.msgpack if packing == "msgpack" else msgspec.json
    calls = pack.decode(pack.encode(pipeline.to_calls(operators)))
    return [_built(one, params) for one, (_, params) in zip(operators, calls, strict=True)]


def _built(operator: Operator, params: dict[str, Any]) -> Operator:
    # Not looked up by name: an operator under test need not be plugged in.
    kind = type(operator)
    return kind(**{key: registry.convert_value(kind, key, value) for key, value in params.items()})


def _differences(actual: StageOutput, whole: StageOutput) -> str:
    """Return where two results differ; empty if they are equal."""
    if isinstance(actual, np.ndarray) and isinstance(whole, np.ndarray):
        found = difference(actual, whole)
        return f"{found.pixels} pixels within {found.where}" if found.pixels else ""
    values, total = count_differences(actual, whole)
    return f"{values} of {total} values" if values else ""


def _advice(operators: Sequence[Operator], spec: Spec) -> str:
    halo = sum(operator.halo for operator in operators)
    align = max(operator.alignment(spec) for operator in operators)
    float_too = "" if align > 1 else ", or float arithmetic may need align = FLOAT_ALIGN"
    return f"its halo of {halo} pixels may be too small{float_too}"
