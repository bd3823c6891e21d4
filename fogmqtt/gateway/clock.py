"""The clock of the gateway: monotonic seconds, as the event loop and the scheduler use them."""

from __future__ import annotations

import time


def now() -> float:
    """Return the seconds of a clock that never jumps. `asyncio` loops use the same clock."""
    return time.monotonic()
