"""How this machine rounds, for devices that a test plays."""

from __future__ import annotations

from functools import cache
from queue import SimpleQueue

from fogmqtt.conformance.report import ConformanceReport
from fogmqtt.conformance.runner import ConformanceRunner


@cache
def here() -> ConformanceReport:
    """What a device on this machine announces; shares the cache of the processes in tests."""
    found: SimpleQueue[ConformanceReport] = SimpleQueue()
    ConformanceRunner(found.put).start()
    return found.get(timeout=60)
