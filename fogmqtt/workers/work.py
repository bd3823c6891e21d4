"""The outcomes of a tile in a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class TileOutput:
    """The pixels or facts of a result, encoded with the task's result codec."""

    data: memoryview
    #: Height, width, channels.
    shape: tuple[int, int, int]
    dtype: str
    codec: str


@dataclass(frozen=True, slots=True)
class WorkFailed:
    """The reason and the traceback of a failure; the length of both is bounded."""

    reason: str
    traceback: str


@dataclass(frozen=True, slots=True)
class WorkCancelled:
    """The tile was cancelled and its work ended before it was done."""


@dataclass(frozen=True, slots=True)
class WorkFinished(Generic[K]):
    """The work on the tile with this key ended.

    The tile waited `queue_s` seconds for the worker, which needed `start_s` seconds to start its
    process and `compute_s` seconds for the operators.
    """

    key: K
    outcome: TileOutput | WorkFailed | WorkCancelled
    queue_s: float
    compute_s: float
    start_s: float = 0.0
