"""A pipeline tile by tile in this process, as gateway and devices do it over the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from fogmqtt.core.geometry import Grid, Size, Tile, cut
from fogmqtt.images import codec
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators import catalog, pipeline, results
from fogmqtt.operators.base import Made, Operator
from fogmqtt.operators.measuring import Part
from fogmqtt.operators.pipeline import Stage
from fogmqtt.wire.messages import Call, Encoding


def tiled(operators: Sequence[Operator], image: Image, plan: Size | Grid) -> Made:
    """The pipeline's result, every stage of it cut, sent, worked on, sent back and merged."""
    done: Made = image
    for stage in pipeline.stages(operators, Spec.of(image)):
        assert not isinstance(done, dict)
        if stage.tiled:
            tiles = cut(done.shape[:2], plan, halo=stage.halo, align=stage.align)
            done = run_stage(stage, pipeline.prepared(stage, done, image), done, tiles)
        else:
            done = pipeline.whole(stage.operators, done, image)
    return done


def run_stage(
    stage: Stage, operators: Sequence[Operator], image: Image, tiles: Sequence[Tile]
) -> Made:
    last = operators[-1]
    merger = last.merger(stage.result, tiles)
    for tile in tiles:
        sent = pipeline.narrow(stage.narrowing, image[tile.outer.slices])
        assert Spec.of(sent).pixel_bytes == stage.sent.pixel_bytes
        given = run_on_device(operators, sent, tile, image.shape[:2])
        encoded = results.encode(last, given, tile.core, last.result_codec)
        if not stage.measures:
            assert Spec.of(given).pixel_bytes == stage.result.pixel_bytes
        merger.paste(tile, results.decode(last, last.result_codec, encoded))
    return merger.finish()


def run_on_device(
    operators: Sequence[Operator], sent: Image, tile: Tile, size: tuple[int, int]
) -> Any:
    """As a device does: from bytes that it must not change, with operators built from calls."""
    here = pipeline.placed(operators, tile.outer, size)
    arrived = called(here, "binary" if tile.index % 2 else "base64")
    assert arrived == list(here)
    pixels = travelled(sent, "raw")
    given = pipeline.run_tile(arrived, pixels, tile.core.within(tile.outer), tile.seams)
    assert isinstance(given, Part) or given.flags.c_contiguous
    return given


def called(operators: Sequence[Operator], encoding: Encoding) -> list[Operator]:
    """The operators after a journey in this encoding."""
    packing = msgspec.msgpack if encoding == "binary" else msgspec.json
    calls = [Call(name, params) for name, params in pipeline.calls(operators)]
    arrived = packing.decode(packing.encode(calls), type=list[Call])
    return [catalog.build(call.name, call.params) for call in arrived]


def travelled(image: Image, name: str) -> Image:
    """The image after a journey in this codec."""
    spec = Spec.of(image)
    data = bytes(codec.encode(image, name))
    return codec.decode(data, name, (*spec.size, spec.channels), spec.dtype)
