"""The file of a job's course has the shape that Perfetto needs: nested slices and arrows."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from fogmqtt.core.chrome_trace import ChromeTrace, Lanes, Track
from fogmqtt.core.geometry import Grid, Rect
from fogmqtt.gateway.jobs.trace import AttemptRecord, DeviceTimes, _traced
from fogmqtt.gateway.jobs.trace_file import trace_file
from fogmqtt.gateway.jobs.trace_values import AttemptEnd, JobTraceSnapshot, TracedSpan
from tests.gateway_rig import Rig, config, request, run
from tests.unit.test_job_trace import with_times

#: Microseconds that rounding may cost.
ROUND_US = 0.002


def events_of(text: str, *phases: str) -> list[dict[str, Any]]:
    return [event for event in json.loads(text)["traceEvents"] if event["ph"] in phases]


def by_track(text: str) -> Iterator[list[dict[str, Any]]]:
    """The slices of each track, in the order of the file."""
    tracks = defaultdict(list)
    for event in events_of(text, "X"):
        tracks[event["pid"], event["tid"]].append(event)
    yield from tracks.values()


def assert_nested(slices: list[dict[str, Any]]) -> None:
    """Each slice lies within the one that is open, or begins after it; begins never go back."""
    open_ends: list[float] = []
    for first, second in pairwise(slices):
        assert first["ts"] <= second["ts"] + ROUND_US
    for event in slices:
        while open_ends and open_ends[-1] <= event["ts"] + ROUND_US:
            open_ends.pop()
        end = event["ts"] + event["dur"]
        if open_ends:
            assert end <= open_ends[-1] + ROUND_US, f"{event} overlaps"
        open_ends.append(end)


def assert_arrows(text: str) -> None:
    """Each arrow goes forward, from slice to slice."""
    slices = defaultdict(list)
    for event in events_of(text, "X"):
        slices[event["pid"], event["tid"]].append(event)
    flows = defaultdict(list)
    for event in events_of(text, "s", "t", "f"):
        flows[event["id"]].append(event)
    assert flows
    for steps in flows.values():
        assert steps[0]["ph"] == "s"
        assert steps[-1]["ph"] == "f"
        assert all(first["ts"] <= second["ts"] for first, second in pairwise(steps))
        for step in steps:
            assert any(
                one["ts"] - ROUND_US <= step["ts"] <= one["ts"] + one["dur"] + ROUND_US
                for one in slices[step["pid"], step["tid"]]
            )


def names(text: str, what: str) -> set[str]:
    return {event["args"]["name"] for event in events_of(text, "M") if event["name"] == what}


def drawn_job(seed: int, at: float = 0.0) -> JobTraceSnapshot:
    """A job whose devices report anything."""
    rng = random.Random(seed)
    records = []
    for number in range(60):
        moments = sorted(rng.uniform(0, 5) for _ in range(9))
        told = DeviceTimes(
            *(rng.choice([None, 0.0, rng.uniform(0, 2)]) for _ in range(5)),
            rng.choice([None, 0, 1]),
        )
        record = AttemptRecord(
            "j.0",
            number,
            Rect(0, 0, 4, 4),
            1,
            rng.choice("abc"),
            is_hedge=False,
            ordered_at=moments[0],
        )
        known = rng.randrange(9)
        for name, moment in list(zip(MARKS, moments[1:], strict=True))[:known]:
            setattr(record, name, moment)
        record.ended_at = moments[8]
        if known >= 6:
            record.times = told
        record.end = rng.choice(list(AttemptEnd))
        records.append(record)
    spans = [TracedSpan("tiles", "job", 0.0, 5.0), TracedSpan("whole image", "whole", 1.0, 9.0)]
    return JobTraceSnapshot("j", "photo", "invert", at, 6.0, spans, _traced(records, 0.0, 5.0))


MARKS = (
    "cut_began_at",
    "cut_at",
    "encoded_at",
    "published_at",
    "accepted_at",
    "received_at",
    "checked_at",
    "paste_began_at",
)


@pytest.mark.parametrize("seed", range(30))
def test_slices_never_overlap_and_arrows_go_forward(seed: int) -> None:
    text = trace_file("mariem", [drawn_job(seed), drawn_job(seed + 100, at=2.5)])
    for slices in by_track(text):
        assert_nested(slices)
    assert_arrows(text)


def test_a_real_job_has_tracks_for_its_steps_and_for_each_worker() -> None:
    async def test() -> None:
        rig = Rig()
        rig.device("eya", answer=with_times)
        rig.device("mona", answer=with_times)
        async with rig.gateway(config()) as gateway:
            made = request(plan=Grid(4, 4), traceparent=f"00-{'1' * 32}-{'2' * 16}-01")
            handle = gateway.submit(made)
            await handle.outcome()
            text = trace_file("mariem", [handle.trace.snapshot()])
        assert names(text, "process_name") == {"gateway mariem", "device eya", "device mona"}
        assert {"job photo", "paste", "cut and encode", "worker 1", "tiles on their way"} <= names(
            text, "thread_name"
        )
        for slices in by_track(text):
            assert_nested(slices)
        assert_arrows(text)
        pasted = [one for one in events_of(text, "f") if one["pid"] == 1]
        assert len(pasted) == 16, "an arrow to the result of each tile"
        about = json.loads(text)["otherData"]["jobs"][0]
        assert about["traceparent"] == made.traceparent
        assert about["attempts"] == 16

    run(test())


def test_the_parts_of_a_bar_fill_it() -> None:
    text = trace_file("mariem", [drawn_job(5)])
    for slices in by_track(text):
        bars = [one for one in slices if one["name"].startswith("tile")]
        for bar in bars if slices[0] in bars else ():
            inside = [
                one
                for one in slices
                if one["cat"] == "phase"
                and bar["ts"] - ROUND_US <= one["ts"]
                and one["ts"] + one["dur"] <= bar["ts"] + bar["dur"] + ROUND_US
            ]
            if inside:
                assert sum(one["dur"] for one in inside) == pytest.approx(bar["dur"], abs=0.02)


def test_lanes_hold_what_overlaps_apart() -> None:
    lanes = Lanes()
    taken = [lanes.take(*span) for span in ((0, 2), (1, 3), (2, 4), (2.5, 5), (3, 6))]
    assert taken == [0, 1, 0, 2, 1]


def test_slices_that_touch_still_touch_after_rounding() -> None:
    made, track = ChromeTrace(), Track(1, 1)
    moments = [number / 3e5 for number in range(50)]
    for first, second in pairwise(moments):
        made.add_slice(track, "x", first, second - first, category="c")
    found = events_of(made.as_json({}), "X")
    assert all(
        one["ts"] + one["dur"] == pytest.approx(two["ts"], abs=1e-6) for one, two in pairwise(found)
    )
