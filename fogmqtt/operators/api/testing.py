"""The law that binds every operator, for tests: tiled equals whole, bit for bit.

    from fogmqtt.operators.api.testing import check_law

    def test_vignette_is_exact() -> None:
        check_law(Vignette(), cv2.imread("photo.jpg"))

An image is cut, every tile and every operator travels as over the wire, and the results are
merged, all in this process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
from fogmqtt.operators.api.base import Made, Operator
from fogmqtt.operators.api.measuring import Part, differing
from fogmqtt.operators.api.pipeline import Stage

Plan = Size | Grid

#: Strips, uneven grids, and tiles that are thinner than most halos.
PLANS: Sequence[Plan] = (
    Grid(1, 1),
    Grid(1, 3),
    Grid(5, 1),
    Grid(3, 4),
    Size(64, 64),
    Size(11, 7),
    Size(3, 150),
)


def check_tiled_equals_whole(
    operator: Operator | Sequence[Operator], image: Image, plans: Sequence[Plan] = PLANS
) -> None:
    """Raise OperatorError unless tiles give what the whole image gives, however it is cut.

    A sequence of operators is a pipeline. Take an image of some 100 to 300 pixels a side, whose
    sides are no multiples of anything, with edges and noise.
    """
    operators = (operator,) if isinstance(operator, Operator) else tuple(operator)
    given = image.copy()
    given.flags.writeable = False  # so that an operator which writes there says so
    whole = pipeline.whole(operators, given, given)
    for plan in plans:
        differs = _difference(tiled(operators, given, plan), whole)
        if differs:
            raise OperatorError(
                f"{pipeline.written(operators)} on {Spec.of(image)}, cut by {plan}: tiles differ "
                f"from the whole in {differs}; {_advice(operators, Spec.of(image))}"
            )


def tiled(operators: Sequence[Operator], image: Image, plan: Plan) -> Made:
    """The pipeline's result, every stage of it cut, sent, worked on, sent back and merged."""
    done: Made = image
    for stage in pipeline.stages(operators, Spec.of(image)):
        assert not isinstance(done, dict)  # noqa: S101  # only the last stage measures
        if stage.tiled:
            tiles = _halved(cut(done.shape[:2], plan, halo=stage.halo, align=stage.align), stage)
            done = run_stage(stage, pipeline.prepared(stage, done, image), done, tiles)
        else:
            done = pipeline.whole(stage.operators, done, image)
    return done


def _halved(tiles: Sequence[Tile], stage: Stage) -> Sequence[Tile]:
    """Every third tile in halves, and one of these too: so a gateway suits slow devices."""
    found: list[Tile] = []
    for tile in tiles:
        parts = [tile]
        for _ in range(2 if tile.index % 3 == 0 else 0):
            halves = halve(parts[-1], halo=stage.halo, align=stage.align, least_pixels=1)
            parts[-1:] = halves or parts[-1:]
        found += parts
    return [replace(tile, index=index) for index, tile in enumerate(found)]


def run_stage(
    stage: Stage, operators: Sequence[Operator], image: Image, tiles: Sequence[Tile]
) -> Made:
    """One round trip; `operators` are the stage's, prepared. Raises OperatorError."""
    last = operators[-1]
    merger = last.merger(stage.result)
    for tile in tiles:
        sent = pipeline.narrow(stage.narrowing, image[tile.outer.slices])
        given = run_on_device(operators, sent, tile, image.shape[:2])
        encoded = results.encode(last, given, tile.core, last.result_codec)
        merger.paste(tile, results.decode(last, last.result_codec, encoded))
    return merger.finish()


def run_on_device(
    operators: Sequence[Operator], sent: Image, tile: Tile, size: tuple[int, int]
) -> Image | Part:
    """As a device does: from bytes that it must not change, with operators built from calls."""
    here = pipeline.placed(operators, tile.outer, size)
    arrived = travelled(here, "msgpack" if tile.index % 2 else "json")
    if arrived != list(here):
        raise OperatorError(f"{here} arrive as {arrived}: all that they know must be parameters")
    spec = Spec.of(sent)
    pixels = codec.decode(
        bytes(codec.encode(sent, "raw")), "raw", (*spec.size, spec.channels), spec.dtype
    )
    return pipeline.run_tile(arrived, pixels, tile.core.within(tile.outer), tile.seams)


def travelled(operators: Sequence[Operator], packing: Literal["msgpack", "json"]) -> list[Operator]:
    """The operators after a journey as calls."""
    pack = msgspec.msgpack if packing == "msgpack" else msgspec.json
    calls = pack.decode(pack.encode(pipeline.calls(operators)))
    return [_built(one, params) for one, (_, params) in zip(operators, calls, strict=True)]


def _built(operator: Operator, params: dict[str, Any]) -> Operator:
    # Not by its name: an operator under test need not be plugged in.
    kind = type(operator)
    return kind(**{key: registry.convert(kind, key, value) for key, value in params.items()})


def _difference(made: Made, whole: Made) -> str:
    """Where they differ, nothing if they do not."""
    if isinstance(made, np.ndarray) and isinstance(whole, np.ndarray):
        found = difference(made, whole)
        return f"{found.pixels} pixels within {found.where}" if found.pixels else ""
    values, total = differing(made, whole)
    return f"{values} of {total} values" if values else ""


def _advice(operators: Sequence[Operator], spec: Spec) -> str:
    halo = sum(operator.halo for operator in operators)
    align = max(operator.alignment(spec) for operator in operators)
    float_too = "" if align > 1 else ", or float arithmetic may need align = FLOAT_ALIGN"
    return f"its halo of {halo} pixels may be too small{float_too}"
