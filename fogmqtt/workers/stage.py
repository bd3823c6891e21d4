"""Decodes the pixels of a task, runs operators for its core, and encodes the result."""

from __future__ import annotations

import time

from fogmqtt.core.geometry import Rect
from fogmqtt.images import codec
from fogmqtt.operators.api import pipeline, results
from fogmqtt.operators.api.pipeline import Operators
from fogmqtt.wire.messages import TileTask
from fogmqtt.workers.work import TileOutput, seams_of


def run_stage(operators: Operators, task: TileTask) -> TileOutput:
    """Run the operators on the tile of a task.

    Raises FogError for an impossible task, and any exception of an operator.
    """
    began_at = time.monotonic()
    pixels = task.pixels.toreadonly()  # an operator that writes to its input fails everywhere
    image = codec.decode(pixels, task.codec, task.shape, task.dtype)
    core, decoded_at = Rect(*task.core), time.monotonic()
    result = pipeline.run_tile(operators, image, core, seams_of(task.seams))
    computed_at = time.monotonic()
    encoded = results.encode(operators[-1], result, core, task.result_codec)
    return TileOutput(
        encoded.data,
        encoded.shape,
        encoded.dtype,
        encoded.codec,
        decode_s=decoded_at - began_at,
        encode_s=time.monotonic() - computed_at,
    )
