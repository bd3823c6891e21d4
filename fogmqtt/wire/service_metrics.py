"""What a gateway counts, for monitoring: the answer to `GetMetrics`.

The gateway only counts. Whoever asks renders it for a monitoring system; docs/metrics.md describes
each metric. Counters and histograms count since the gateway's start. Those of a device that has
been gone for an hour are dropped.
"""

from __future__ import annotations

from typing import Final

import msgspec

#: The upper limits of the buckets in seconds; one more bucket holds what is longer.
JOB_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
PHASE_SECONDS: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
AGE_SECONDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
DECODE_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class HistogramCounts(msgspec.Struct, frozen=True, array_like=True):
    """How many values fell into each bucket, and the sum of all."""

    counts: list[int]
    sum: float


class JobsEnded(msgspec.Struct, frozen=True, array_like=True):
    """Jobs of a pipeline that ended in one way: done, failed or cancelled.

    The pipeline is a configured name, or "other".
    """

    pipeline: str
    outcome: str
    count: int


class DeviceMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """A device; `local` is the gateway's own cores."""

    id: str
    up: bool
    quarantined: bool = False
    draining: bool = False
    workers: int = 0
    tiles_in_flight: int = 0
    version: str = ""
    opencv: str = ""
    temperature_c: float | None = None
    load: float | None = None
    #: Bytes of tiles that were sent, and of messages about tiles that came back.
    bytes_out: int = 0
    bytes_back: int = 0
    #: Pixels of the tiles whose result was kept.
    pixels: int = 0
    #: Attempts by how they ended, such as kept, failed or outrun.
    attempts: dict[str, int] = {}
    #: Seconds of the phases of attempts with a result.
    phases: dict[str, HistogramCounts] = {}


class StreamMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """A configured stream. Its counters begin anew when it is switched on again."""

    name: str
    #: Whether its source is connected.
    up: bool
    reconnects: int = 0
    reseeds: int = 0
    #: Frames by what became of them, such as published, superseded or late.
    frames: dict[str, int] = {}
    #: Seconds from the capture of a frame until its result was published; none before it runs.
    ages: HistogramCounts | None = None
    #: Seconds of decoding and converting for each frame that the source gave.
    decodes: HistogramCounts | None = None


class MetricsSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that a gateway counts, now."""

    gateway: str
    version: str
    #: Unix time in seconds.
    started_at: float
    connected: bool
    #: No image is accepted now.
    paused: bool = False
    broker_connections: int = 0
    broker_dropped: int = 0
    jobs_running: int = 0
    jobs_waiting: int = 0
    jobs: list[JobsEnded] = []
    #: Seconds of the jobs that were done, by pipeline.
    job_seconds: dict[str, HistogramCounts] = {}
    retries: int = 0
    hedges: int = 0
    devices: list[DeviceMetrics] = []
    streams: list[StreamMetrics] = []
