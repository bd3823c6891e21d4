"""What each device did in the last seconds: tiles, pixels, and how long a tile took."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Final

#: The seconds that a rate looks back.
WINDOW_S: Final = 10
#: The newest times of which the median is taken.
_LATENCIES: Final = 21
#: Devices that are remembered: ids come from the network.
_MAX_DEVICES: Final = 4096


@dataclass(frozen=True, slots=True)
class Rates:
    """What a device did lately, for each second; `latency_s` is None if it is not known."""

    tiles_per_s: float = 0.0
    pixels_per_s: float = 0.0
    latency_s: float | None = None


@dataclass(slots=True)
class _Device:
    #: Second of the clock, tiles and pixels, the oldest first.
    seconds: deque[list[int]] = field(default_factory=lambda: deque(maxlen=WINDOW_S + 1))
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))


class Throughput:
    """Counts the results of devices by the second. It belongs to the event loop."""

    def __init__(self) -> None:
        self._devices: dict[str, _Device] = {}

    def note(self, device: str, pixels: int, latency_s: float | None, at: float) -> None:
        """Count a result of a device, which came at `at`."""
        known = self._devices.get(device)
        if known is None:
            if len(self._devices) >= _MAX_DEVICES:
                del self._devices[next(iter(self._devices))]
            known = self._devices[device] = _Device()
        second = int(at)
        if not known.seconds or known.seconds[-1][0] != second:
            known.seconds.append([second, 0, 0])
        known.seconds[-1][1] += 1
        known.seconds[-1][2] += pixels
        if latency_s is not None:
            known.latencies.append(latency_s)

    def rates(self, device: str, now: float) -> Rates:
        """Return what a device did in the last `WINDOW_S` seconds."""
        known = self._devices.get(device)
        if known is None:
            return Rates()
        since = int(now) - WINDOW_S
        recent = [one for one in known.seconds if one[0] > since]
        latency_s = statistics.median(known.latencies) if known.latencies else None
        return Rates(
            sum(one[1] for one in recent) / WINDOW_S,
            sum(one[2] for one in recent) / WINDOW_S,
            latency_s,
        )
