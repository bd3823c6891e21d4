"""The conformance report of this machine, for tests."""

from __future__ import annotations

from functools import cache
from queue import SimpleQueue

from fogmqtt.conformance.report import ConformanceReport
from fogmqtt.conformance.runner import ConformanceRunner


@cache
def local_report() -> ConformanceReport:
    """Return what a device on this machine announces; the tests' processes use the same cache."""
    found: SimpleQueue[ConformanceReport] = SimpleQueue()
    ConformanceRunner(found.put).start()
    return found.get(timeout=60)
