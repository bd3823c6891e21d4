"""The conformance report of this machine, for tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from queue import SimpleQueue

from fogmqtt.conformance.report import ConformanceReport
from fogmqtt.conformance.runner import ConformanceRunner


@cache
def local_report() -> ConformanceReport:
    """Return what a device on this machine announces; the tests' processes use the same cache."""
    return complete_report(ConformanceRunner)


def complete_report(
    make_runner: Callable[[Callable[[ConformanceReport], None]], ConformanceRunner],
    timeout_s: float = 60,
) -> ConformanceReport:
    """Return the last report of a run."""
    found: SimpleQueue[ConformanceReport] = SimpleQueue()
    make_runner(found.put).start()
    while not (report := found.get(timeout=timeout_s)).is_complete:
        pass
    return report
