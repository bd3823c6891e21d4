"""A tile's work. Imports OpenCV, so only worker processes import it."""

from __future__ import annotations

from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.images import codec
from fogmqtt.images.cv import one_thread
from fogmqtt.operators.api import pipeline, registry, results
from fogmqtt.wire.messages import TileTask
from fogmqtt.workers.work import Pixels

one_thread()


def compute(task: TileTask) -> Pixels:
    """Decode, run the operators for the core, encode.

    Raises FogError for a task that cannot be done, and whatever an operator raises.
    """
    operators = tuple(registry.build(call.name, call.params) for call in task.stage)
    image = codec.decode(task.pixels, task.codec, task.shape, task.dtype)
    core = Rect(*task.core)
    given = pipeline.run_tile(operators, image, core, seams(task.seams))
    encoded = results.encode(operators[-1], given, core, task.result_codec)
    return Pixels(encoded.data, encoded.shape, encoded.dtype, task.result_codec)


def seams(letters: str) -> Seams:
    """The sides that the wire spells with letters of `tlbr`."""
    return Seams("t" in letters, "l" in letters, "b" in letters, "r" in letters)
