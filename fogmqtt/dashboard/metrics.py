"""Renders what a gateway counts for Prometheus. docs/metrics.md describes each metric."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from fogmqtt.wire.service_metrics import (
    AGE_SECONDS,
    DECODE_SECONDS,
    JOB_SECONDS,
    PHASE_SECONDS,
    DeviceMetrics,
    HistogramCounts,
    MetricsSnapshot,
    StreamMetrics,
)

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

Kind = Literal["gauge", "counter", "histogram", "info"]
_Labels = tuple[str, ...]
_Value = float | HistogramCounts


@dataclass(frozen=True, slots=True)
class MetricFact:
    """A metric: its name as Prometheus shows it, its kind, its labels, and what it tells."""

    name: str
    kind: Kind
    help: str
    labels: _Labels = ()
    #: Of a histogram: the upper limits of its buckets.
    limits: tuple[float, ...] = ()


UP = MetricFact("fogmqtt_up", "gauge", "1 if the gateway answered, 0 if it did not.")
GATEWAY_INFO = MetricFact(
    "fogmqtt_gateway_info", "info", "The gateway and its version.", ("gateway", "version")
)
START_TIME = MetricFact(
    "fogmqtt_start_time_seconds", "gauge", "When the gateway started, as Unix time."
)
BROKER_CONNECTED = MetricFact(
    "fogmqtt_broker_connected", "gauge", "1 while the gateway has a link to a broker."
)
BROKER_CONNECTIONS = MetricFact(
    "fogmqtt_broker_connections_total", "counter", "Links to a broker that came up."
)
BROKER_DROPPED = MetricFact(
    "fogmqtt_broker_dropped_total",
    "counter",
    "Messages of any client that the broker dropped, as it says itself (Mosquitto only).",
)
PAUSED = MetricFact("fogmqtt_paused", "gauge", "1 while the gateway accepts no images.")
JOBS_RUNNING = MetricFact("fogmqtt_jobs_running", "gauge", "Jobs whose turn has come.")
JOBS_WAITING = MetricFact("fogmqtt_jobs_waiting", "gauge", "Jobs that wait for their turn.")
JOBS = MetricFact(
    "fogmqtt_jobs_total",
    "counter",
    "Jobs that ended: done, failed or cancelled.",
    ("pipeline", "outcome"),
)
JOB_TIME = MetricFact(
    "fogmqtt_job_seconds",
    "histogram",
    "Seconds of jobs that were done, from their turn on.",
    ("pipeline",),
    JOB_SECONDS,
)
RETRIES = MetricFact(
    "fogmqtt_retries_total", "counter", "Attempts after which the tile had to be sent again."
)
HEDGES = MetricFact(
    "fogmqtt_hedges_total", "counter", "Attempts that were sent while another device had the tile."
)
ATTEMPTS = MetricFact(
    "fogmqtt_attempts_total",
    "counter",
    "Attempts at tiles by how they ended.",
    ("device", "end"),
)
TILE_PIXELS = MetricFact(
    "fogmqtt_tile_pixels_total", "counter", "Pixels of tiles whose result was kept.", ("device",)
)
PHASE_TIME = MetricFact(
    "fogmqtt_tile_phase_seconds",
    "histogram",
    "Seconds of each phase of attempts with a result; a phase that took no time is not counted.",
    ("phase", "device"),
    PHASE_SECONDS,
)
WIRE_BYTES = MetricFact(
    "fogmqtt_wire_bytes_total",
    "counter",
    "Bytes of messages about tiles: out to the device, or back.",
    ("direction", "device"),
)
DEVICE_INFO = MetricFact(
    "fogmqtt_device_info",
    "info",
    "A device and the versions that it runs.",
    ("device", "version", "opencv"),
)
DEVICE_UP = MetricFact("fogmqtt_device_up", "gauge", "1 while the device is online.", ("device",))
QUARANTINED = MetricFact(
    "fogmqtt_device_quarantined",
    "gauge",
    "1 while the device gets no tiles because of its faults.",
    ("device",),
)
WORKERS = MetricFact(
    "fogmqtt_device_workers", "gauge", "Tiles that the device can do at a time.", ("device",)
)
IN_FLIGHT = MetricFact(
    "fogmqtt_device_tiles_in_flight",
    "gauge",
    "Tiles of this gateway that the device has, or that are on their way to it.",
    ("device",),
)
TEMPERATURE = MetricFact(
    "fogmqtt_device_temperature_celsius",
    "gauge",
    "The hottest sensor of the device, where it has one.",
    ("device",),
)
LOAD = MetricFact(
    "fogmqtt_device_load1", "gauge", "The device's load average of one minute.", ("device",)
)

STREAM_UP = MetricFact(
    "fogmqtt_stream_source_up",
    "gauge",
    "1 while the source of the stream is connected.",
    ("stream",),
)
STREAM_FRAMES = MetricFact(
    "fogmqtt_stream_frames_total",
    "counter",
    "Frames that the source received, by what became of them.",
    ("stream", "outcome"),
)
STREAM_AGE = MetricFact(
    "fogmqtt_stream_age_seconds",
    "histogram",
    "Seconds from the capture of a frame until its result was published.",
    ("stream",),
    AGE_SECONDS,
)
STREAM_DECODE = MetricFact(
    "fogmqtt_stream_decode_seconds",
    "histogram",
    "Seconds of decoding and converting for each frame that the source gave.",
    ("stream",),
    DECODE_SECONDS,
)
STREAM_RECONNECTS = MetricFact(
    "fogmqtt_stream_reconnects_total",
    "counter",
    "How often the source was opened again.",
    ("stream",),
)
STREAM_RESEEDS = MetricFact(
    "fogmqtt_stream_reseeds_total",
    "counter",
    "How often the memory of a tile was lost with its device, and came back or began anew.",
    ("stream",),
)

ALL: Final = (
    UP,
    GATEWAY_INFO,
    START_TIME,
    BROKER_CONNECTED,
    BROKER_CONNECTIONS,
    BROKER_DROPPED,
    PAUSED,
    JOBS_RUNNING,
    JOBS_WAITING,
    JOBS,
    JOB_TIME,
    RETRIES,
    HEDGES,
    ATTEMPTS,
    TILE_PIXELS,
    PHASE_TIME,
    WIRE_BYTES,
    DEVICE_INFO,
    DEVICE_UP,
    QUARANTINED,
    WORKERS,
    IN_FLIGHT,
    TEMPERATURE,
    LOAD,
    STREAM_UP,
    STREAM_FRAMES,
    STREAM_AGE,
    STREAM_DECODE,
    STREAM_RECONNECTS,
    STREAM_RESEEDS,
)


def render(snapshot: MetricsSnapshot | None) -> bytes:
    """Return the page that Prometheus reads. None: the gateway did not answer."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(snapshot))
    return generate_latest(registry)


class _Snapshot(Collector):
    """Gives the metrics of one snapshot to prometheus_client."""

    def __init__(self, snapshot: MetricsSnapshot | None) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        found = self._snapshot
        yield _family(UP, [((), float(found is not None))])
        if found is None:
            return
        yield from _of_gateway(found)
        yield from _of_devices(found.devices)
        yield from _of_streams(found.streams)


def _of_gateway(found: MetricsSnapshot) -> Iterator[Metric]:
    yield _family(GATEWAY_INFO, [((found.gateway, found.version), 1.0)])
    for fact, value in (
        (START_TIME, found.started_at),
        (BROKER_CONNECTED, found.connected),
        (BROKER_CONNECTIONS, found.broker_connections),
        (BROKER_DROPPED, found.broker_dropped),
        (PAUSED, found.paused),
        (JOBS_RUNNING, found.jobs_running),
        (JOBS_WAITING, found.jobs_waiting),
        (RETRIES, found.retries),
        (HEDGES, found.hedges),
    ):
        yield _family(fact, [((), float(value))])
    yield _family(JOBS, [((one.pipeline, one.outcome), one.count) for one in found.jobs])
    yield _family(JOB_TIME, [((name,), counts) for name, counts in found.job_seconds.items()])


def _of_devices(devices: Iterable[DeviceMetrics]) -> Iterator[Metric]:
    known = list(devices)
    yield _family(DEVICE_INFO, [((one.id, one.version, one.opencv), 1.0) for one in known])
    gauges: tuple[tuple[MetricFact, Mapping[str, float | None]], ...] = (
        (DEVICE_UP, {one.id: one.up for one in known}),
        (QUARANTINED, {one.id: one.quarantined for one in known}),
        (WORKERS, {one.id: one.workers for one in known}),
        (IN_FLIGHT, {one.id: one.tiles_in_flight for one in known}),
        (TEMPERATURE, {one.id: one.temperature_c for one in known}),
        (LOAD, {one.id: one.load for one in known}),
        (TILE_PIXELS, {one.id: one.pixels for one in known}),
    )
    for fact, values in gauges:
        rows = [((device,), float(value)) for device, value in values.items() if value is not None]
        yield _family(fact, rows)
    yield _family(
        WIRE_BYTES,
        [
            ((direction, one.id), float(count))
            for one in known
            for direction, count in (("out", one.bytes_out), ("back", one.bytes_back))
        ],
    )
    yield _family(
        ATTEMPTS,
        [((one.id, end), float(count)) for one in known for end, count in one.attempts.items()],
    )
    yield _family(
        PHASE_TIME,
        [((phase, one.id), counts) for one in known for phase, counts in one.phases.items()],
    )


def _of_streams(streams: Iterable[StreamMetrics]) -> Iterator[Metric]:
    known = list(streams)
    running = [one for one in known if one.ages is not None]
    yield _family(STREAM_UP, [((one.name,), float(one.up)) for one in known])
    yield _family(
        STREAM_FRAMES,
        [
            ((one.name, outcome), float(count))
            for one in running
            for outcome, count in one.frames.items()
        ],
    )
    yield _family(STREAM_AGE, [((one.name,), one.ages) for one in running if one.ages is not None])
    yield _family(
        STREAM_DECODE, [((one.name,), one.decodes) for one in running if one.decodes is not None]
    )
    yield _family(STREAM_RECONNECTS, [((one.name,), float(one.reconnects)) for one in running])
    yield _family(STREAM_RESEEDS, [((one.name,), float(one.reseeds)) for one in running])


def _family(fact: MetricFact, rows: Iterable[tuple[_Labels, _Value]]) -> Metric:
    """Return a metric with one series for each row of label values."""
    made: Metric
    match fact.kind:
        case "histogram":
            made = histogram = HistogramMetricFamily(fact.name, fact.help, labels=fact.labels)
            for labels, counts in rows:
                assert isinstance(counts, HistogramCounts)  # noqa: S101  # the fact is a histogram
                histogram.add_metric(labels, _buckets(counts, fact.limits), counts.sum)
            return made
        case "info":
            name = fact.name.removesuffix("_info")
            made = info = InfoMetricFamily(name, fact.help)
            for labels, _ in rows:
                info.add_metric((), dict(zip(fact.labels, labels, strict=True)))
            return made
        case "counter":
            kind: type[CounterMetricFamily] | type[GaugeMetricFamily] = CounterMetricFamily
        case "gauge":
            kind = GaugeMetricFamily
    made = family = kind(fact.name, fact.help, labels=fact.labels)
    for labels, value in rows:
        assert isinstance(value, int | float)  # noqa: S101  # the fact is no histogram
        family.add_metric(labels, value)
    return made


def _buckets(counts: HistogramCounts, limits: tuple[float, ...]) -> list[tuple[str, float]]:
    """Return the buckets as Prometheus has them: each counts what the ones before it do, too."""
    names = [*map(floatToGoString, limits), "+Inf"]
    # A gateway of another version may have other buckets; those that are left out count as empty.
    padded = [*counts.counts, *[0] * len(names)][: len(names)]
    return list(zip(names, map(float, accumulate(padded)), strict=True))
