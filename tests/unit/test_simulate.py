"""The simulated world: deterministic by seed, true to its figures, and never below the bound."""

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from fogmqtt.core.geometry import Auto, Grid
from fogmqtt.errors import ConfigError, PlanError
from fogmqtt.simulate.fleet import DeviceSpec, Faults, FleetSpec, LinkSpec, Outage, Step
from fogmqtt.simulate.link_model import LinkModel
from fogmqtt.simulate.outcome import simulate
from fogmqtt.simulate.record import SpanState
from fogmqtt.simulate.speed_profile import SpeedProfile
from fogmqtt.simulate.trace import trace
from fogmqtt.simulate.work import even_job, planned_job

ROOT = Path(__file__).parents[2]

ROUGH = FleetSpec(
    (
        DeviceSpec(
            "a", 5e6, link=LinkSpec(loss=0.02, jitter_ms=5, duplicates=0.05, reordering=0.05)
        ),
        DeviceSpec(
            "b", 3e6, wander=0.1, faults=Faults(crashes=(Outage(1.0, 1.0),), crash_every_s=4)
        ),
        DeviceSpec("c", 1e6, workers=2, faults=Faults(stragglers=0.1)),
    ),
    outages=(Outage(2.0, 0.3),),
)


def story(fleet, jobs, seed):
    events = []
    outcome = simulate(fleet, jobs, seed, watch=lambda *seen: events.append(repr(seen)))
    return events, outcome


# -- determinism -----------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_run_event_by_event():
    jobs = [even_job("job", 60, 500_000)]
    events, outcome = story(ROUGH, jobs, 7)
    again, same = story(ROUGH, jobs, 7)
    assert events == again
    assert outcome == same
    assert trace(outcome) == trace(same)


def test_another_seed_gives_another_run():
    jobs = [even_job("job", 60, 500_000)]
    assert story(ROUGH, jobs, 7)[0] != story(ROUGH, jobs, 8)[0]


def test_what_befalls_a_device_does_not_depend_on_the_others():
    """So that a fleet with two devices more can be compared with the one without."""
    device = DeviceSpec("a", 1e6, wander=0.2)
    speed_profile, same = (SpeedProfile(device, random.Random("5/a")) for _ in range(2))
    assert [speed_profile.done(t) for t in (9, 3, 6)] == [same.done(t) for t in (9, 3, 6)]


# -- speed and links ---------------------------------------------------------------------------


def test_a_step_in_speed_counts_from_its_moment_on():
    speed_profile = SpeedProfile(
        DeviceSpec("a", 100.0, drift=(Step(2, 0.5), Step(4, 2.0))), random.Random(0)
    )
    assert [speed_profile.done(t) for t in (1, 2, 3, 4, 5)] == [100, 200, 250, 300, 500]
    assert speed_profile.finish(1.0, 200) == pytest.approx(4.0)
    assert speed_profile.finish(3.0, 150) == pytest.approx(4.5)


def test_a_wandering_speed_is_inverted_exactly():
    speed_profile = SpeedProfile(DeviceSpec("a", 100.0, wander=0.3), random.Random(1))
    for begin in (0.0, 0.3, 7.7):
        end = speed_profile.finish(begin, 512)
        assert speed_profile.done(end) - speed_profile.done(begin) == pytest.approx(512)


def test_messages_leave_a_link_one_after_the_other():
    wire = LinkModel(LinkSpec(rate_mbps=8, latency_ms=10), random.Random(0))
    assert wire.carry(0.0, 1_000_000) == (pytest.approx(1.01),)
    assert wire.carry(0.5, 1_000_000) == (pytest.approx(2.01),)
    assert wire.carry(5.0, 1_000_000) == (pytest.approx(6.01),)


def test_jitter_alone_overtakes_nothing():
    wire = LinkModel(LinkSpec(jitter_ms=50), random.Random(0))
    arrivals = [wire.carry(i / 1000, 100)[0] for i in range(200)]
    assert arrivals == sorted(arrivals)


# -- makespan and bound ------------------------------------------------------------------------


def test_the_bound_is_pixels_over_speed_where_nothing_goes_wrong():
    fleet = FleetSpec((DeviceSpec("a", 3e6), DeviceSpec("b", 1e6, workers=2)))
    outcome = simulate(fleet, [even_job("job", 100, 100_000)], 1)
    assert outcome.done
    assert outcome.bound_s == pytest.approx(2.0)
    assert 1.0 <= outcome.ratio < 1.2


def test_the_bound_counts_drift_and_absence():
    slowed = FleetSpec((DeviceSpec("a", 1e6, drift=(Step(1.0, 0.1),)),))
    outcome = simulate(slowed, [even_job("job", 20, 100_000)], 1)
    assert outcome.bound_s == pytest.approx(1 + 10)
    gone = FleetSpec((DeviceSpec("a", 1e6, faults=Faults(crashes=(Outage(0.5, 3.0),))),))
    outcome = simulate(gone, [even_job("job", 10, 100_000)], 1)
    assert outcome.bound_s == pytest.approx(1 + 3)


def test_the_bound_counts_a_link_that_is_slower_than_its_device():
    fleet = FleetSpec((DeviceSpec("a", 1e9, link=LinkSpec(rate_mbps=8)),))
    outcome = simulate(fleet, [even_job("job", 50, 100_000)], 1)
    assert outcome.bound_s == pytest.approx(5.0, rel=0.01)
    assert outcome.ratio < 1.2


@pytest.mark.parametrize("seed", range(8))
def test_no_run_beats_the_bound(seed):
    outcome = simulate(ROUGH, [even_job("job", 60, 500_000)], seed)
    assert outcome.done
    assert outcome.ratio >= 1.0


def test_every_worker_second_is_accounted_for():
    outcome = simulate(ROUGH, [even_job("job", 60, 500_000)], 3)
    kept = [span for span in outcome.record.spans if span.state is SpanState.KEPT]
    assert sorted(span.tile for span in kept) == list(range(60))
    spent = sum(span.seconds for span in outcome.record.spans)
    figures = outcome.devices
    assert sum(one.busy_s + one.wasted_s for one in figures) == pytest.approx(spent)
    assert sum(one.tiles for one in figures) == 60
    assert all(0 <= one.utilisation <= 1 + 1e-9 for one in figures)
    assert outcome.wasted == pytest.approx(sum(one.wasted_s for one in figures) / spent)


# -- faults ------------------------------------------------------------------------------------


def test_a_crash_takes_what_was_in_hand_and_others_finish_it():
    fleet = FleetSpec(
        (DeviceSpec("a", 1e6, faults=Faults(crashes=(Outage(0.55),))), DeviceSpec("b", 1e6))
    )
    outcome = simulate(fleet, [even_job("job", 20, 100_000)], 1)
    assert outcome.done
    assert outcome.retries >= 1
    assert [one.crashes for one in outcome.devices] == [1, 0]
    (cut,) = [span for span in outcome.record.spans if span.state is SpanState.CUT]
    assert (cut.device, cut.end_s) == ("a", 0.55)


def test_a_job_outlives_the_broker():
    fleet = FleetSpec((DeviceSpec("a", 1e6), DeviceSpec("b", 1e6)), outages=(Outage(0.3, 2.0),))
    outcome = simulate(fleet, [even_job("job", 20, 100_000)], 1)
    assert outcome.done
    assert outcome.makespan_s > 2.3


def test_a_fleet_that_dies_leaves_the_job_undone_with_a_sentence():
    fleet = FleetSpec((DeviceSpec("a", 1e6, faults=Faults(crashes=(Outage(0.5),))),))
    outcome = simulate(fleet, [even_job("job", 20, 100_000)], 1)
    assert not outcome.done
    assert outcome.bound_s == math.inf
    assert outcome.verdict.startswith("job: not done")


def test_a_tile_over_a_devices_limit_is_not_sent_to_it():
    fleet = FleetSpec((DeviceSpec("small", 1e6, max_tile_pixels=50_000), DeviceSpec("big", 1e6)))
    outcome = simulate(fleet, [even_job("job", 20, 100_000)], 1)
    assert outcome.done
    assert [one.tiles for one in outcome.devices] == [0, 20]


# -- real plans --------------------------------------------------------------------------------


def plan(text, fleet, tiles=None):
    return planned_job("job", text, 4e6, tiles or Auto(), fleet, 900_000)


def test_a_pipeline_is_cut_as_the_gateway_cuts_it():
    job = plan("gray | canny", FleetSpec((DeviceSpec("a", 1e6),)))
    (stage,) = job.stages
    assert stage.core == 4_000_000
    assert stage.operators == {"canny"}
    assert all(tile.pixels > tile.core for tile in stage.tiles)
    assert max(tile.out_bytes for tile in stage.tiles) <= 900_000


def test_stages_follow_each_other():
    fleet = FleetSpec((DeviceSpec("a", 4e6), DeviceSpec("b", 4e6)))
    job = plan("gray | gaussian | otsu | median", fleet)
    outcome = simulate(fleet, [job], 1)
    assert outcome.done
    assert len(job.stages) > 1
    assert len({span.job for span in outcome.record.spans}) == len(job.stages)


def test_a_fleet_that_cannot_do_the_pipeline_is_told_what_it_lacks():
    fleet = FleetSpec((DeviceSpec("pi", 1e6, operators=("gray",)),), origin="lab.yaml")
    with pytest.raises(ConfigError, match=r"^lab.yaml: devices: .*pi for one lacks canny"):
        plan("gray | canny", fleet)


def test_a_plan_with_tiles_over_the_message_limit_is_refused():
    with pytest.raises(PlanError, match="largest tile"):
        plan("gray | canny", FleetSpec((DeviceSpec("a", 1e6),)), Grid(1, 1))


def test_tiles_are_split_for_a_device_of_little_memory():
    fleet = FleetSpec((DeviceSpec("a", 1e6), DeviceSpec("b", 1e6, max_tile_pixels=100_000)))
    outcome = simulate(fleet, [plan("gray | canny", fleet)], 1)
    assert outcome.done
    sizes = {
        one.device: max(span.pixels for span in outcome.record.spans if span.device == one.device)
        for one in outcome.record.spans
    }
    assert sizes["b"] <= 100_000 < sizes["a"]


# -- the trace ---------------------------------------------------------------------------------


def test_a_trace_has_a_process_per_device_and_a_slice_per_span():
    outcome = simulate(ROUGH, [even_job("job", 60, 500_000)], 3)
    events = json.loads(trace(outcome))["traceEvents"]
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {"broker", "a", "b", "c"}
    slices = [event for event in events if event["ph"] == "X"]
    assert len(slices) == len(outcome.record.spans)
    assert all(event["dur"] >= 0 for event in slices)
    assert {"crash", "broker lost"} <= {e["name"] for e in events if e["ph"] == "i"}


def test_the_order_of_hashes_changes_nothing():
    code = (
        "from tests.fleets import Referee, draw; from fogmqtt.simulate.trace import trace; "
        "print(*(trace(Referee(draw(seed)).run()) for seed in range(5)))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            check=True,
        ).stdout
        for hashes in ("1", "2")
    ]
    assert runs[0] == runs[1]


# -- slow links ------------------------------------------------------------------------------


def test_a_device_on_a_slow_link_gets_little_and_delays_nobody():
    """Three equal devices, one of them at 1 Mbit/s beside 1 Gbit/s."""
    link = LinkSpec(rate_mbps=1000)
    fast = tuple(DeviceSpec(name, 5e6, link=link) for name in ("eya", "manar"))
    slow = DeviceSpec("slow", 5e6, link=LinkSpec(rate_mbps=1))
    makespans = []
    for devices in (fast, (*fast, slow)):
        fleet = FleetSpec(devices)
        jobs = [planned_job(f"{n}", "gray | canny", 24e6, Auto(), fleet, 900_000) for n in range(3)]
        outcome = simulate(fleet, jobs, 1)
        makespans.append(outcome.makespan_s)
    assert makespans[1] < 1.1 * makespans[0]
    pixels = {device.id: device.pixels for device in outcome.devices}
    assert pixels["slow"] < 0.1 * pixels["eya"]
