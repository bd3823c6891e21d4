"""CPU time of a process and all its descendants, in seconds, from the clocks of the processes.

The kernel counts these clocks in nanoseconds; `/proc` and psutil show hundredths of a second.
"""

from __future__ import annotations

import time

import psutil

_PROCESS_CLOCK = 2
#: Seconds in which acknowledgements and logs of a job that has just ended are still handled.
SETTLE_S = 0.1


class CpuTime:
    """Counts the CPU time that this process and its descendants use from now on."""

    def __init__(self) -> None:
        self._before = _read()

    def seconds(self) -> float:
        """Wait until the processes have settled, and return the CPU-seconds since the start."""
        time.sleep(SETTLE_S)
        return sum(used - self._before.get(pid, 0.0) for pid, used in _read().items())


def _read() -> dict[int, float]:
    us = psutil.Process()
    clocks = {process.pid: _clock(process.pid) for process in us.children(recursive=True)}
    return {us.pid: time.process_time(), **clocks}


def _clock(pid: int) -> float:
    try:
        return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)
    except OSError:  # it ended since it was listed
        return 0.0
