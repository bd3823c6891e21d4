"""What a gateway counts, how Prometheus reads it, and that all pages name the same metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fogmqtt.core.geometry import Rect
from fogmqtt.dashboard import metrics as rendering
from fogmqtt.dashboard.metrics import ALL, render
from fogmqtt.gateway import metrics as counting
from fogmqtt.gateway.jobs.trace import AttemptRecord, DeviceTimes
from fogmqtt.gateway.jobs.trace_values import PHASES, AttemptEnd
from fogmqtt.gateway.metrics import FORGET_S, Metrics
from fogmqtt.wire.service_metrics import (
    PHASE_SECONDS,
    DeviceMetrics,
    HistogramCounts,
    JobsEnded,
    MetricsSnapshot,
    StreamMetrics,
)
from tests.gateway_rig import Rig, config, do_nothing, eventually, request, run
from tests.unit.test_job_trace import with_times

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/metrics.md").read_text("utf-8")
BOARD = ROOT / "examples/grafana/fogmqtt.json"


def samples(page: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def value(page: bytes, name: str, **labels: str) -> float:
    return samples(page)[name, frozenset(labels.items())]


def attempt(**changes: Any) -> AttemptRecord:
    made = AttemptRecord(
        "j.0", 0, Rect(0, 0, 10, 10), 1, "eya", is_hedge=False, ordered_at=10.0, cut_began_at=10.0,
        cut_at=10.0, encoded_at=10.0, published_at=10.0, accepted_at=10.0, received_at=12.0,
        checked_at=12.0, paste_began_at=12.0, ended_at=12.0, end=AttemptEnd.KEPT,
        times=DeviceTimes(0.5, 0.0, 1.0, 0.0, 0.0, 0),
    )  # fmt: skip
    for name, changed in changes.items():
        setattr(made, name, changed)
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time that the counters see; a test sets it."""
    at = [1000.0]
    monkeypatch.setattr(counting, "now", lambda: at[0])
    return at


def test_only_configured_names_of_pipelines_are_labels() -> None:
    metrics = Metrics({"edges": "gray | canny"})
    metrics.job_ended("gray | canny", "done", 2.0)
    metrics.job_ended("invert", "failed", 1.0)
    metrics.job_ended("invert | median", "failed", 1.0)
    assert metrics.jobs() == [JobsEnded("edges", "done", 1), JobsEnded("other", "failed", 2)]
    assert set(metrics.job_seconds()) == {"edges"}


def test_an_attempt_counts_with_its_phases_and_its_end() -> None:
    metrics = Metrics({})
    metrics.attempt_ended(attempt())
    metrics.attempt_ended(attempt(end=AttemptEnd.FAILED, received_at=None))
    metrics.attempt_ended(attempt(end=AttemptEnd.OUTRUN, received_at=None, is_hedge=True))
    (eya,) = metrics.devices([DeviceMetrics(id="eya", up=True)])
    assert eya.attempts == {"kept": 1, "failed": 1, "outrun": 1}
    assert (metrics.retries, metrics.hedges, eya.pixels) == (1, 1, 100)
    assert set(eya.phases) == {"device_queue", "compute", "wire_back"}
    assert eya.phases["compute"].sum == pytest.approx(1.0)
    assert eya.phases["compute"].counts[PHASE_SECONDS.index(2.0)] == 1


def test_the_series_of_a_device_that_is_gone_for_an_hour_are_dropped(clock: list[float]) -> None:
    metrics = Metrics({})
    metrics.sent("eya", 100)
    up, down = [DeviceMetrics(id="eya", up=True)], [DeviceMetrics(id="eya", up=False)]
    clock[0] += FORGET_S * 3
    assert [one.bytes_out for one in metrics.devices(up)] == [100]
    clock[0] += FORGET_S - 1
    assert [one.up for one in metrics.devices(down)] == [False]
    clock[0] += 2
    assert metrics.devices(down) == []
    assert [one.bytes_out for one in metrics.devices(up)] == [0]


def test_a_device_that_was_never_online_has_no_series() -> None:
    assert Metrics({}).devices([DeviceMetrics(id="ghost", up=False)]) == []


def snapshot() -> MetricsSnapshot:
    """A snapshot in which each metric has a series."""
    device = DeviceMetrics(
        id="eya", up=True, version="1.0", opencv="5.0", temperature_c=51.5, load=0.7,
        bytes_out=10, bytes_back=20, pixels=30, workers=4, tiles_in_flight=3,
        attempts={"kept": 5}, phases={"compute": HistogramCounts([1, 2, 0, 0, 0, 0, 0, 1], 3.5)},
    )  # fmt: skip
    return MetricsSnapshot(
        gateway="mariem", version="1.0", started_at=1.5, connected=True, jobs_waiting=2,
        jobs=[JobsEnded("edges", "done", 7)],
        job_seconds={"edges": HistogramCounts([0] * 12, 0.0)}, devices=[device],
    )  # fmt: skip


class TestRendering:
    """The page for Prometheus."""

    def test_each_metric_has_its_series_and_its_help(self) -> None:
        page = render(snapshot())
        assert value(page, "fogmqtt_up") == 1.0
        assert value(page, "fogmqtt_jobs_waiting") == 2.0
        assert value(page, "fogmqtt_jobs_total", pipeline="edges", outcome="done") == 7.0
        assert value(page, "fogmqtt_wire_bytes_total", device="eya", direction="back") == 20.0
        assert value(page, "fogmqtt_device_temperature_celsius", device="eya") == 51.5
        assert value(page, "fogmqtt_device_info", device="eya", version="1.0", opencv="5.0") == 1.0
        text = page.decode()
        for fact in ALL:
            assert f"# HELP {fact.name} {fact.help}\n" in text
            shown = "gauge" if fact.kind == "info" else fact.kind
            assert f"# TYPE {fact.name} {shown}\n" in text

    def test_the_buckets_of_a_histogram_add_up(self) -> None:
        page = render(snapshot())
        labels = {"phase": "compute", "device": "eya"}
        buckets = [
            value(page, "fogmqtt_tile_phase_seconds_bucket", le=le, **labels)
            for le in ("0.001", "0.005", "10.0", "+Inf")
        ]
        assert buckets == [1.0, 3.0, 3.0, 4.0]
        assert value(page, "fogmqtt_tile_phase_seconds_count", **labels) == 4.0
        assert value(page, "fogmqtt_tile_phase_seconds_sum", **labels) == 3.5

    def test_of_a_gateway_that_does_not_answer_only_that_is_told(self) -> None:
        assert samples(render(None)) == {("fogmqtt_up", frozenset()): 0.0}

    def test_a_label_of_a_stranger_stays_one_label(self) -> None:
        evil = replace_device(snapshot(), version='1"} 5\nfogmqtt_up 0\n# ')
        assert value(render(evil), "fogmqtt_up") == 1.0

    def test_the_names_follow_the_conventions(self) -> None:
        for fact in ALL:
            assert re.fullmatch(r"fogmqtt_[a-z0-9_]+", fact.name)
            assert fact.name.endswith("_total") == (fact.kind == "counter")
            assert fact.name.endswith("_info") == (fact.kind == "info")
            assert bool(fact.limits) == (fact.kind == "histogram")
            assert fact.help.endswith(".")


def test_a_stream_shows_its_frames_and_ages_and_one_that_is_off_only_that() -> None:
    ages = HistogramCounts([0, 2, 1], 0.05)
    yard = StreamMetrics(
        name="yard",
        up=True,
        reconnects=2,
        reseeds=4,
        frames={"published": 3, "late": 1},
        ages=ages,
        decodes=HistogramCounts([1, 0, 2], 0.004),
    )
    gate = StreamMetrics(name="gate", up=False)
    page = render(msgspec.structs.replace(snapshot(), streams=[yard, gate]))
    assert value(page, "fogmqtt_stream_frames_total", stream="yard", outcome="late") == 1
    assert value(page, "fogmqtt_stream_age_seconds_bucket", stream="yard", le="0.01") == 2
    assert value(page, "fogmqtt_stream_age_seconds_count", stream="yard") == 3
    assert value(page, "fogmqtt_stream_decode_seconds_bucket", stream="yard", le="0.001") == 1
    assert value(page, "fogmqtt_stream_decode_seconds_count", stream="yard") == 3
    assert value(page, "fogmqtt_stream_reconnects_total", stream="yard") == 2
    assert value(page, "fogmqtt_stream_reseeds_total", stream="yard") == 4
    assert value(page, "fogmqtt_stream_source_up", stream="yard") == 1
    assert value(page, "fogmqtt_stream_source_up", stream="gate") == 0
    assert not any(dict(labels).get("stream") == "gate" for name, labels in samples(page)
                   if name != "fogmqtt_stream_source_up")  # fmt: skip


def replace_device(found: MetricsSnapshot, **changes: Any) -> MetricsSnapshot:
    device = msgspec.structs.replace(found.devices[0], **changes)
    return msgspec.structs.replace(found, devices=[device])


def test_the_page_describes_each_metric_as_the_code_does() -> None:
    rows = re.findall(r"^\| `(fogmqtt_\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", PAGE, re.MULTILINE)
    assert [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), text)
            for name, kind, labels, text in rows] == [
        (fact.name, fact.kind, fact.labels, fact.help) for fact in ALL
    ]  # fmt: skip
    for phase in PHASES:
        assert f"`{phase}`" in PAGE
    for end in AttemptEnd:
        assert end is AttemptEnd.RUNNING or f"`{end.name.lower()}`" in PAGE


def board_names(text: str) -> set[str]:
    names = set(re.findall(r"fogmqtt_\w+", text))
    histograms = {fact.name for fact in ALL if fact.kind == "histogram"}
    return {
        next((one for one in histograms if name.removeprefix(one) in SERIES), name)
        for name in names
    }


SERIES = ("_bucket", "_sum", "_count")


def test_the_board_of_grafana_shows_each_metric_and_no_other() -> None:
    board = json.loads(BOARD.read_text("utf-8"))
    expressions = [
        target["expr"] for panel in board["panels"] for target in panel.get("targets", ())
    ]
    assert board_names(" ".join(expressions)) == {fact.name for fact in ALL}
    labels = {label for fact in ALL for label in fact.labels} | {"le"}
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
            used = {name.strip() for group in grouped for name in group.split(",")}
            used |= set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert used <= labels, panel["title"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def test_the_panels_of_the_board_do_not_lie_on_each_other() -> None:
    panels = json.loads(BOARD.read_text("utf-8"))["panels"]
    cells = [
        (place["x"] + column, place["y"] + row)
        for place in (panel["gridPos"] for panel in panels)
        for column in range(place["w"])
        for row in range(place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(column for column, _ in cells) < 24


# A gateway with played devices.


def test_a_gateway_counts_its_jobs_devices_and_bytes() -> None:
    async def test() -> None:
        rig = Rig()
        rig.device("eya", answer=with_times)
        made = replace(config(), pipelines={"negative": "invert"})
        async with rig.gateway(made) as gateway:
            handle = gateway.submit(request())
            await handle.outcome()
            found = gateway.metrics()
            assert found.connected
            assert found.jobs == [JobsEnded("negative", "done", 1)]
            (eya,) = found.devices
            assert (eya.id, eya.up, eya.workers, eya.tiles_in_flight) == ("eya", True, 2, 0)
            assert eya.attempts == {"kept": 4}
            assert eya.bytes_out == handle.report.bytes_out
            assert eya.bytes_back > handle.report.bytes_back, "the other messages count, too"
            assert eya.pixels == 96 * 128
            assert eya.phases["compute"].counts.__len__() == len(PHASE_SECONDS) + 1
            assert sum(eya.phases["paste"].counts) == 4

    run(test())


def test_a_cancelled_job_counts_as_cancelled() -> None:
    async def test() -> None:
        rig = Rig()
        device = rig.device("mona", answer=do_nothing)
        async with rig.gateway() as gateway:
            handle = gateway.submit(request())
            await eventually(lambda: device.tasks, "a tile")
            assert gateway.metrics().jobs_running == 1
            assert gateway.metrics().devices[0].tiles_in_flight > 0
            handle.cancel()
            await handle.outcome()
            assert gateway.metrics().jobs == [JobsEnded("other", "cancelled", 1)]

    run(test())


def test_the_renderer_knows_all_buckets() -> None:
    for fact in ALL:
        if fact.limits:
            names = [name for name, _ in rendering._buckets(HistogramCounts([], 0.0), fact.limits)]
            assert len(names) == len(set(names)) == len(fact.limits) + 1
