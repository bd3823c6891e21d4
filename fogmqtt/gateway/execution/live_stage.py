"""A stage while its tiles are scheduled, for those who show it. Nothing here changes it."""

from __future__ import annotations

from fogmqtt.core.geometry import Rect
from fogmqtt.core.scheduling.progress import Progress
from fogmqtt.core.scheduling.scheduler import Scheduler
from fogmqtt.gateway.execution.active_stage import ActiveStage
from fogmqtt.images.source import ImageSource
from fogmqtt.operators.api.base import PasteMerger


class LiveStage:
    """The tiles of a stage now, and what is merged of its result. It belongs to the event loop."""

    def __init__(self, active: ActiveStage, scheduler: Scheduler) -> None:
        self._active = active
        self._scheduler = scheduler

    @property
    def key(self) -> str:
        """Another one for each stage and for each plan of a stage."""
        return self._active.key

    @property
    def needs(self) -> frozenset[str]:
        """The abilities that a device must have for its tiles."""
        return self._active.needs

    @property
    def progress(self) -> Progress:
        return self._scheduler.progress(self.key)

    def core(self, tile: int) -> Rect:
        """Return the part of the image that a tile makes."""
        return self._active.run.tile(tile).core

    @property
    def merged(self) -> ImageSource | None:
        """What is merged so far, with zeros where tiles are missing; None if it is no image."""
        merger = self._active.run.merger
        return merger.so_far if isinstance(merger, PasteMerger) else None

    def pasted(self) -> dict[int, int]:
        """Return how often each tile's result was pasted into `merged`."""
        return dict.fromkeys(self._active.run.done, 1) | self._active.pasted
