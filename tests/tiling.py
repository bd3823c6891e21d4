"""Run a pipeline tile by tile in this process, with the encoding of the wire."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fogmqtt.core.geometry import Tile
from fogmqtt.gateway.execution.stage_run import StageRun, cut_tile
from fogmqtt.operators.api import pipeline, registry
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.results import TileResult
from fogmqtt.operators.api.testing import run_stage, tiled
from fogmqtt.wire.messages import Call, Encoding

__all__ = ["called", "do_tile", "run_stage", "tiled"]


def called(operators: Sequence[Operator], encoding: Encoding) -> list[Operator]:
    """Return the operators after they were encoded and decoded as calls."""
    packing = msgspec.msgpack if encoding == "binary" else msgspec.json
    calls = [Call(name, params) for name, params in pipeline.to_calls(operators)]
    arrived = packing.decode(packing.encode(calls), type=list[Call])
    return [registry.build(call.name, call.params) for call in arrived]


def do_tile(run: StageRun, tile: Tile) -> TileResult:
    """Return the result of a tile, as a device would compute it."""
    core = tile.core.within(tile.outer)
    operators = pipeline.for_tile(run.operators, tile.outer, run.stage.source.size)
    return pipeline.run_tile(operators, cut_tile(run, tile), core, tile.seams)
