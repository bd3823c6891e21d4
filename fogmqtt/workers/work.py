"""The outcomes of a tile in a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from msgspec import Struct

from fogmqtt.core.geometry import Seams

K = TypeVar("K")


def seams_of(letters: str) -> Seams:
    """Return the seams that the letters of a task name."""
    return Seams("t" in letters, "l" in letters, "b" in letters, "r" in letters)


class TileOutput(Struct, frozen=True):
    """The pixels or facts of a result, encoded with the task's result codec."""

    data: memoryview
    #: Height, width, channels.
    shape: tuple[int, int, int]
    dtype: str
    codec: str
    #: Seconds of the work that decoded the tile's pixels and encoded the result.
    decode_s: float = 0.0
    encode_s: float = 0.0


class WorkFailed(Struct, frozen=True):
    """The reason and the traceback of a failure; the length of both is bounded."""

    reason: str
    traceback: str
    #: The version of the tile's memory, if the task needed another one; -1 for none.
    have: int | None = None


class WorkCancelled(Struct, frozen=True):
    """The tile was cancelled and its work ended before it was done."""


@dataclass(frozen=True, slots=True)
class WorkFinished(Generic[K]):
    """The work on the tile with this key ended.

    The tile waited `queue_s` seconds for the worker, which needed `start_s` seconds to start its
    process and `compute_s` seconds for the work. `worker` is the worker's number, from 0.
    """

    key: K
    outcome: TileOutput | WorkFailed | WorkCancelled
    queue_s: float
    compute_s: float
    start_s: float = 0.0
    worker: int = 0
