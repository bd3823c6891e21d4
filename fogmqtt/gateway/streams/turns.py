"""The order of frames: each frame enters a stage with memory after the one before it."""

from __future__ import annotations

import asyncio


class Turn:
    """One frame's place behind the frame before it, for each stage of a pipeline."""

    def __init__(self, before: Turn | None) -> None:
        self._before = before
        self._passed: dict[int, asyncio.Event] = {}
        self._is_over = False

    async def wait(self, position: int) -> None:
        """Wait until the frame before has entered the stage, or will not."""
        if self._before is not None:
            await self._before._event(position).wait()

    def entered(self, position: int) -> None:
        """This frame has entered the stage: the next one may."""
        self._event(position).set()

    def finish(self) -> None:
        """This frame enters no stage any more."""
        self._is_over, self._before = True, None
        for event in self._passed.values():
            event.set()

    def _event(self, position: int) -> asyncio.Event:
        event = self._passed.setdefault(position, asyncio.Event())
        if self._is_over:
            event.set()
        return event
