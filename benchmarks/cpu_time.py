"""CPU time of a process and all its descendants, in seconds, from the clocks of the processes.

The kernel counts these clocks in nanoseconds; `/proc` and psutil show hundredths of a second.
"""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass

import psutil

_PROCESS_CLOCK = 2
#: Seconds in which acknowledgements and logs of a job that has just ended are still handled.
SETTLE_S = 0.1


@dataclass(frozen=True)
class Usage:
    """CPU-seconds of this process and its descendants, and what all others used of the machine."""

    cpu_s: float
    #: 1 if other programs and other virtual machines kept all cores busy.
    others: float


class CpuTime:
    """Counts the CPU time that is used from now on."""

    def __init__(self) -> None:
        self._before = _read()
        self._machine_before = _machine_s()
        self._began = time.monotonic()

    def usage(self) -> Usage:
        """Wait until the processes have settled, and return what was used since the start."""
        time.sleep(SETTLE_S)
        ours = _read() - self._before
        available = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        others = (_machine_s() - self._machine_before - ours) / available
        return Usage(ours, min(1.0, max(0.0, others)))


def _machine_s() -> float:
    """CPU-seconds that all programs have used, and that the host took from this machine."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice


def _read() -> float:
    """CPU-seconds of this process, its descendants, and the children that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = sum(_clock(process.pid) for process in psutil.Process().children(recursive=True))
    return time.process_time() + ended.ru_utime + ended.ru_stime + alive


def _clock(pid: int) -> float:
    try:
        return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)
    except OSError:  # it ended since it was listed
        return 0.0
