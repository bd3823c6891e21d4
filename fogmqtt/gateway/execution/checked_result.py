"""A result of a tile that passed the checks, and what tells two results apart."""

from __future__ import annotations

import xxhash
from msgspec import Struct

from fogmqtt.core.geometry import Tile
from fogmqtt.gateway.execution import stage_run
from fogmqtt.gateway.execution.stage_run import StageRun
from fogmqtt.images import codec
from fogmqtt.operators.api.measuring import Part, encode_part
from fogmqtt.operators.api.results import EncodedResult, TileResult
from fogmqtt.wire.messages import Result
from fogmqtt.workers.work import TileOutput


class CheckedResult(Struct, frozen=True):
    """A result that passed the checks; the scheduler decides next whether to keep it."""

    result: TileResult
    fingerprint: int
    #: The encoded result, for the journal.
    data: memoryview | None
    wire_bytes: int


def check_result(run: StageRun, message: Result, wire_bytes: int) -> CheckedResult:
    """Check and decode a device's result. Raises WireError."""
    result = stage_run.decode_result(run, run.tile(message.tile), message)
    data, own_codec = message.pixels, run.operators[-1].result_codec
    if message.codec != own_codec and not isinstance(result, Part):
        data = memoryview(codec.encode(result, own_codec))  # the journal names no codec
    return CheckedResult(result, _fingerprint(result), data, wire_bytes)


def check_output(run: StageRun, tile: Tile, output: TileOutput) -> CheckedResult:
    """Check and decode a result of this machine. Raises WireError."""
    encoded = EncodedResult(output.data, output.shape, output.dtype, output.codec)
    result = stage_run.decode_output(run, tile, encoded)
    return CheckedResult(result, _fingerprint(result), output.data, 0)


def _fingerprint(result: TileResult) -> int:
    data = encode_part(result) if isinstance(result, Part) else result.data.cast("B")
    return xxhash.xxh3_64_intdigest(data)
