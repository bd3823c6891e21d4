"""Makespan against the ideal on emulated fleets: real processes, real Mosquitto, real gateway.

An emulated device sleeps until each tile has taken its core's pixels / speed, so two cores emulate
many devices. The ideal is the time in which all devices work until their fault. `first` is the
first job of a fleet, in which every device loads OpenCV; the later jobs are counted. `CPU s` is the
median of all processes together. Gantt charts of the median rounds are written to
benchmarks/results/. `--compare` adds a line for each peer that is installed; `strips` is imagezmq
with one strip for each worker.

Run: .venv/bin/python benchmarks/bench_fleets.py [--rounds 5] [--case eight…] [--compare]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from client import gateway_at, job
from compare import compare
from cpu_time import CpuTime, Usage
from emulated import CASES, Case, Emulated, fault, fleet, restore
from photo import photo
from system import PEERS, missing

from fogmqtt.config import GatewayConfig
from fogmqtt.core.scheduling.actions import Action
from fogmqtt.core.scheduling.events import Event
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.scheduler import Scheduler
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.gateway.thread_door import ThreadDoor
from fogmqtt.images.drawing import svg
from fogmqtt.images.spec import Image
from fogmqtt.process_tuning import tune
from fogmqtt.simulate.gantt import Chart, gantt
from fogmqtt.simulate.observed import Observer
from fogmqtt.simulate.record import Record

RESULTS = Path(__file__).with_name("results")


class Watched(Scheduler):
    """A scheduler whose events and actions are observed."""

    def __init__(self, policy: Policy, watch: Observer) -> None:
        super().__init__(policy, sends_reported=True)
        self._watch = watch

    def handle(self, event: Event, now: float) -> list[Action]:
        actions = super().handle(event, now)
        self._watch(event, actions, now)
        return actions


#: Seconds in which all devices of a fleet start, and are then online for 5 s.
UP_S = 7.0


@dataclass(frozen=True)
class Round:
    """One job: its seconds, what it used, its report, and the record of its tiles."""

    seconds: float
    usage: Usage
    report: Report
    record: Record


@dataclass
class Rig:
    """A gateway whose devices are all online."""

    gateway: ThreadDoor
    emulated: Emulated
    observer: Observer

    def job(self, case: Case, pixels: Image, *, faulty: bool) -> Round:
        began, cpu = now(), CpuTime()
        with fault(case if faulty else replace(case, fault=""), self.emulated):
            report = job(self.gateway, pixels, "invert")
        record = self.observer.record(began, dict.fromkeys(self.emulated.devices, 1))
        self.observer.notes.clear()
        return Round(report.seconds, cpu.usage(), report, record)


@contextmanager
def rig(emulated: Emulated) -> Iterator[Rig]:
    observer = Observer()

    def watched(config: GatewayConfig) -> Scheduler:
        return Watched(config.policy(), observer)

    with gateway_at(emulated.url, len(emulated.devices), scheduler=watched) as gateway:
        yield Rig(gateway, emulated, observer)


def run(case: Case, rounds: int) -> tuple[list[Round], list[Round]]:
    """Return the first jobs and the counted rounds. A killed device needs a new fleet."""
    first, counted = [], []
    each = 1 if case.fault == "killed" else rounds
    pixels = photo(case.megapixels)
    while len(counted) < rounds:
        with fleet(case) as emulated, rig(emulated) as gateway:
            first.append(gateway.job(case, pixels, faulty=False))
            for _ in range(each):
                counted.append(gateway.job(case, pixels, faulty=True))
                restore(case, emulated)
    return first, counted


def first_jobs(case: Case, gateways: int) -> tuple[Round, list[Round]]:
    """Return the first job of a fleet that was online for some seconds, and each first job of so
    many gateways that the same fleet meets later.
    """
    pixels = photo(case.megapixels)
    with fleet(case) as emulated:
        time.sleep(UP_S)
        with rig(emulated) as gateway:
            cold = gateway.job(case, pixels, faulty=False)
            gateway.job(case, pixels, faulty=False)
        met = []
        for _ in range(gateways):
            with rig(emulated) as gateway:
                met.append(gateway.job(case, pixels, faulty=False))
    return cold, met


def draw(case: Case, counted: list[Round]) -> None:
    """Draw the chart of the median round."""
    median = sorted(counted, key=lambda job: job.seconds)[(len(counted) - 1) // 2]
    lanes = [(name, 1) for name in sorted({span.device for span in median.record.spans})]
    title = f"{case.name}: {median.seconds:.2f} s, {median.seconds / case.ideal_s:.3f} of the ideal"
    record = median.record
    chart = Chart(title, lanes, record.spans, record.marks, median.seconds, case.ideal_s)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{case.slug}.svg").write_text(svg(gantt(chart)), "utf-8")


HEADS = ("first", "median", "best", "worst", "limit", "CPU s", "load")


def print_row(case: Case, first: list[Round], counted: list[Round]) -> None:
    ratios = [job.seconds / case.ideal_s for job in counted]
    cold = statistics.median(job.seconds for job in first) / case.ideal_s
    shown = (cold, statistics.median(ratios), min(ratios), max(ratios), case.limit)
    cpu_s = statistics.median(job.usage.cpu_s for job in counted)
    cells = (*(f"{each:7.3f}" for each in shown), f"{cpu_s:7.2f}", f"{os.getloadavg()[0]:7.1f}")
    print(f"{case.name:18} {case.ideal_s:6.2f} s", *cells, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--compare", action="store_true", help="the peers beside ours")
    options = parser.parse_args()
    tune()
    for sentence in filter(None, map(missing, PEERS if options.compare else ())):
        print(sentence)
    print(f"{'fleet':18} {'ideal':>8}", *(f"{head:>7}" for head in HEADS), flush=True)
    for case in CASES:
        if case.name not in options.case:
            continue
        first, counted = run(case, options.rounds)
        draw(case, counted)
        print_row(case, first, counted)
        if options.compare:
            for name, column in compare(case, options.rounds).items():
                cells = ("", f"{column.ratio:.3f}", "", "", "", f"{column.cpu_s:.2f}")
                print(f"  {name:16} {'':8}", *(f"{cell:>7}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
