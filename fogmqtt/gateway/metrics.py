"""Counts what jobs and devices do, for monitoring.

Labels are bounded: pipelines by their configured names, devices while they are there and for an
hour after that, and never a job.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from msgspec.structs import replace

from fogmqtt.core.scheduling.live import LiveDevice
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.jobs.trace import AttemptRecord
from fogmqtt.gateway.jobs.trace_values import PHASES, AttemptEnd
from fogmqtt.log import one_line
from fogmqtt.wire.messages import DeviceInfo
from fogmqtt.wire.service_metrics import (
    JOB_SECONDS,
    PHASE_SECONDS,
    DeviceMetrics,
    HistogramCounts,
    JobsEnded,
)

#: The label of pipelines that are not configured.
OTHER: Final = "other"
#: Seconds after which the figures of a device that is gone are dropped.
FORGET_S: Final = 3600.0
#: The longest label, in characters.
_LABEL: Final = 40

JobEnd = Literal["done", "failed", "cancelled"]


def device_state(
    device: str, *, up: bool, info: DeviceInfo | None, live: LiveDevice | None
) -> DeviceMetrics:
    """Return a device as it describes itself and as the scheduler judges it, without figures."""
    versions = info.versions if info is not None else {}
    return DeviceMetrics(
        id=device,
        up=up,
        quarantined=live is not None and live.quarantined_until is not None,
        draining=live is not None and live.draining,
        workers=live.workers if live is not None else 0,
        tiles_in_flight=sum(live.held.values()) if live is not None else 0,
        version=_label(versions.get("fogmqtt", "")),
        opencv=_label(versions.get("opencv", "")),
        temperature_c=info.temperature_c if info is not None else None,
        load=info.load if info is not None else None,
    )


def _label(text: str) -> str:
    """Return a device's text as a label: short, since others choose it."""
    return one_line(text)[:_LABEL]


class BucketCounter:
    """Counts values in buckets."""

    def __init__(self, limits: Sequence[float]) -> None:
        self._limits = limits
        self._counts = [0] * (len(limits) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._limits, value)] += 1
        self._sum += value

    def counts(self) -> HistogramCounts:
        return HistogramCounts(list(self._counts), self._sum)


@dataclass(slots=True)
class _DeviceFigures:
    """What one device did."""

    seen_at: float
    bytes_out: int = 0
    bytes_back: int = 0
    pixels: int = 0
    attempts: Counter[str] = field(default_factory=Counter)
    phases: dict[str, BucketCounter] = field(default_factory=dict)


class Metrics:
    """The counters of one gateway. It belongs to the event loop.

    `pipelines` are the configured ones, text by name.
    """

    def __init__(self, pipelines: Mapping[str, str]) -> None:
        self._names = {text: name for name, text in pipelines.items()}
        self._jobs: Counter[tuple[str, JobEnd]] = Counter()
        self._job_seconds: dict[str, BucketCounter] = {}
        self._devices: dict[str, _DeviceFigures] = {}
        self.retries = 0
        self.hedges = 0
        self.broker_dropped = 0

    # What happens.

    def job_ended(self, pipeline: str, outcome: JobEnd, seconds: float) -> None:
        """Count a job. `pipeline` is its text."""
        name = self._names.get(pipeline, OTHER)
        self._jobs[name, outcome] += 1
        if outcome == "done":
            self._job_seconds.setdefault(name, BucketCounter(JOB_SECONDS)).add(seconds)

    def attempt_ended(self, record: AttemptRecord) -> None:
        """Count an attempt, and the phases of one with a result."""
        device = self._device(record.device)
        device.attempts[record.end.name.lower()] += 1
        self.retries += record.end.is_retried
        self.hedges += record.is_hedge
        if record.end is AttemptEnd.KEPT:
            device.pixels += record.core.pixels
        if record.received_at is None:
            return
        for phase, seconds in zip(PHASES, record.phases(now()), strict=True):
            if seconds > 0:
                counter = device.phases.get(phase)
                if counter is None:
                    counter = device.phases[phase] = BucketCounter(PHASE_SECONDS)
                counter.add(seconds)

    def sent(self, device: str, nbytes: int) -> None:
        """Count the message of a tile."""
        self._device(device).bytes_out += nbytes

    def received(self, device: str, nbytes: int) -> None:
        """Count a message about a tile."""
        self._device(device).bytes_back += nbytes

    # What others read.

    def jobs(self) -> list[JobsEnded]:
        return [JobsEnded(*key, count) for key, count in sorted(self._jobs.items())]

    def job_seconds(self) -> dict[str, HistogramCounts]:
        return {name: one.counts() for name, one in sorted(self._job_seconds.items())}

    def devices(self, states: Iterable[DeviceMetrics]) -> list[DeviceMetrics]:
        """Return the devices with their figures. `states` say how those are that are known now.

        Devices that are neither online nor were so in the last hour are left out and forgotten.
        """
        known = {state.id: state for state in states}
        moment = now()
        for device, state in known.items():
            if state.up:
                self._device(device).seen_at = moment
        for device, figures in tuple(self._devices.items()):
            if moment - figures.seen_at > FORGET_S:
                del self._devices[device]
        return [
            _with_figures(known.get(device) or DeviceMetrics(id=device, up=False), figures)
            for device, figures in sorted(self._devices.items())
        ]

    def _device(self, device: str) -> _DeviceFigures:
        figures = self._devices.get(device)
        if figures is None:
            figures = self._devices[device] = _DeviceFigures(now())
        return figures


def _with_figures(state: DeviceMetrics, figures: _DeviceFigures) -> DeviceMetrics:
    return replace(
        state,
        bytes_out=figures.bytes_out,
        bytes_back=figures.bytes_back,
        pixels=figures.pixels,
        attempts=dict(figures.attempts),
        phases={
            phase: figures.phases[phase].counts() for phase in PHASES if phase in figures.phases
        },
    )
