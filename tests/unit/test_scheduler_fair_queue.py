"""Several jobs on one fleet: fair shares, and larger ones for those of higher priority."""

from __future__ import annotations

from collections import Counter

import pytest

from fogmqtt.core.fair_queue import FairQueue, weight
from fogmqtt.core.scheduling.events import JobSubmitted
from fogmqtt.simulate.fleet import DeviceSpec, FleetSpec
from fogmqtt.simulate.outcome import SimulationResult, simulate
from fogmqtt.simulate.work import even_job
from tests.scheduling import PIXELS, Bench, sent


def test_who_was_served_least_for_its_weight_is_next() -> None:
    shares: FairQueue[str] = FairQueue()
    weights = {"scan": weight(0), "camera": weight(2)}
    for name in weights:
        shares.join(name)
    served: Counter[str] = Counter()
    for _ in range(100):
        name = min(weights, key=shares.virtual_time)
        shares.charge(name, 1.0, weights[name])
        served[name] += 1
    assert served == {"scan": 20, "camera": 80}


def test_who_comes_late_has_no_claim_to_what_others_got_before() -> None:
    shares: FairQueue[str] = FairQueue()
    shares.join("early")
    for _ in range(10):
        shares.charge("early", 1.0, 1.0)
    shares.join("late")
    assert shares.virtual_time("early") - shares.virtual_time("late") <= 1.0


def test_who_joins_twice_starts_once() -> None:
    shares: FairQueue[str] = FairQueue()
    shares.join("job")
    shares.charge("job", 1.0, 1.0)
    shares.join("job")
    assert shares.virtual_time("job") == 1.0
    shares.leave("job")
    assert "job" not in shares


@pytest.mark.parametrize(("priority", "part"), [(0, 1 / 2), (1, 2 / 3), (2, 4 / 5), (-1, 1 / 3)])
def test_each_step_of_priority_doubles_a_jobs_share(priority: int, part: float) -> None:
    bench = Bench(ahead=0)
    bench.measured("eya", seconds=1)
    orders = sent(bench.submit(100, job="scan"))
    bench.feed(JobSubmitted("camera", "blur", (PIXELS,) * 100, priority=priority))
    served: Counter[str] = Counter()
    for _ in range(60):
        (order,) = orders
        served[order.job] += 1
        orders = sent(bench.answer(order, at=bench.now + 1))
    assert served["camera"] / 60 == pytest.approx(part, abs=0.05)


MIXED = FleetSpec(
    tuple(
        DeviceSpec(f"d{place}", speed * 5e6, overhead_ms=1)
        for place, speed in enumerate((1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.1))
    )
)


def beside_a_scan(priority: int) -> SimulationResult:
    """Frames of a camera while a scan of 1 GP is under way; alone one takes 0.2 s."""
    scan = even_job("scan", 1000, 1_000_000, halvings=5)
    frames = [
        even_job(f"frame{n}", 8, 250_000, at_s=2 + 3 * n, halvings=3, priority=priority)
        for n in range(8)
    ]
    return simulate(MIXED, [scan, *frames], seed=1)


@pytest.mark.parametrize(("priority", "longest_s"), [(0, 1.2), (2, 0.8)])
def test_a_long_scan_does_not_starve_a_camera(priority: int, longest_s: float) -> None:
    outcome = beside_a_scan(priority)
    assert outcome.done
    assert outcome.ratio <= 1.02
    frames = [job.ended_s - job.at_s for job in outcome.jobs if job.id != "scan"]
    assert max(frames) <= longest_s
