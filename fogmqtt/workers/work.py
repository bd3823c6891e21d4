"""What a worker is given, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Pixels:
    """A result's pixels or facts, encoded with `codec`, the task's result codec."""

    data: memoryview
    #: Height, width, channels.
    shape: tuple[int, int, int]
    dtype: str
    codec: str


@dataclass(frozen=True, slots=True)
class Failed:
    """What a failure says to the gateway; both texts are bounded."""

    reason: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """Cancelled, and ended before it was done."""


@dataclass(frozen=True, slots=True)
class Finished(Generic[K]):
    """A worker is done with the tile under this key.

    Seconds waited for the worker, worked, and in between spent on the start of its process.
    """

    key: K
    outcome: Pixels | Failed | Dropped
    queue_s: float
    compute_s: float
    start_s: float = 0.0
