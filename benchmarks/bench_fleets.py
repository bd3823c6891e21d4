"""Makespan against the ideal on emulated fleets: real processes, real Mosquitto, real gateway.

An emulated device sleeps until each tile has taken its core's pixels / speed, so two cores carry
many. The ideal is total pixels / the sum of what each device could do while it was there. Each
case runs a few times after a first job that is not counted (devices load OpenCV then).

Run: .venv/bin/python benchmarks/bench_fleets.py [--rounds 3] [--case eight…]
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from subprocess import Popen
from typing import Any

import numpy as np

from fogmqtt.cli.connect import connector
from fogmqtt.cli.demo import device_process, free_port
from fogmqtt.config import Broker, GatewayConfig
from fogmqtt.gateway.jobs import JobRequest, Outcome
from fogmqtt.gateway.report import Report
from fogmqtt.gateway.service import Gateway
from fogmqtt.images.spec import Image
from fogmqtt.transport.embedded import EmbeddedBroker
from fogmqtt.tuning import tune

MP = 1_000_000


@dataclass
class Client:
    """Keeps the outcome."""

    outcome: Outcome | None = None

    def progress(self, report: Report) -> None: ...
    def notice(self, job: str, text: str) -> None: ...
    def deliver(self, outcome: Outcome) -> None: ...

    def ended(self, outcome: Outcome) -> None:
        self.outcome = outcome


@dataclass(frozen=True)
class Case:
    """Speeds in pixels per second, and what happens at half of the ideal time."""

    name: str
    speeds: tuple[float, ...]
    pixels: int
    limit: float
    #: The first device is killed in mid-job.
    kills: bool = False


EIGHT = (1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.1)


def cases() -> list[Case]:
    random = np.random.default_rng(1)
    lab = tuple(random.uniform(0.2, 2.0, 64) * MP)
    return [
        Case("three equal", (5 * MP,) * 3, 24 * MP, 1.05),
        Case("eight", tuple(one * 5 * MP for one in EIGHT), 24 * MP, 1.05),
        Case("eight, fast", tuple(one * 20 * MP for one in EIGHT), 24 * MP, 1.25),
        Case("three, one slow", (5 * MP, 5 * MP, 1.5 * MP), 24 * MP, 1.05),
        Case("eight, one killed", tuple(one * 5 * MP for one in EIGHT), 24 * MP, 1.10, kills=True),
        Case("64 random", lab, 400 * MP, 1.05),
    ]


def image(pixels: int) -> Image:
    width = round((pixels * 1.5) ** 0.5)
    return np.zeros((pixels // width, width), np.uint8)


def ideal(case: Case) -> float:
    if not case.kills:
        return case.pixels / sum(case.speeds)
    lost, rest = case.speeds[0], sum(case.speeds[1:])
    at_s = killed_at(case)
    return (case.pixels - lost * at_s) / rest


def killed_at(case: Case) -> float:
    return 0.5 * case.pixels / sum(case.speeds)


def job(gateway: Gateway, pixels: Image) -> Report:
    client = Client()
    gateway.submit(JobRequest("bench", "invert", client, image=pixels))
    gateway.run(lambda: gateway.conductor.idle)
    assert client.outcome is not None
    assert client.outcome.error is None, client.outcome.error
    return client.outcome.report


def run(case: Case, rounds: int) -> list[float]:
    """Makespan / ideal of each round."""
    found = []
    for _ in range(rounds if not case.kills else 2 * rounds - 1):
        found += one_round(case, 1 if case.kills else rounds)
        if not case.kills:
            break
    return found


def one_round(case: Case, jobs: int) -> list[float]:
    with ExitStack() as stack:
        broker = EmbeddedBroker.start(f"mqtt://127.0.0.1:{free_port()}")
        stack.callback(broker.stop)
        devices = [
            stack.enter_context(
                device_process(f"d{number}", broker.url, "--emulate-speed", str(speed))
            )
            for number, speed in enumerate(case.speeds)
        ]
        config = replace(GatewayConfig(), broker=Broker(url=broker.url, embedded="never"))
        config = replace(config, gateway=replace(config.gateway, local="never"))
        gateway = Gateway(config, "bench", connector(config.broker, "bench"))
        stack.callback(gateway.close)
        gateway.transport.start()
        gateway.chores.append(lambda moment: moment + 0.05)
        gateway.run(lambda: len(gateway.roster.present()) == len(case.speeds))
        gateway.chores.pop()
        job(gateway, image(min(case.pixels, round(sum(case.speeds) * 0.8))))
        pixels = image(case.pixels)
        found = []
        for _ in range(jobs):
            timer = kill_later(case, devices[0])
            found.append(job(gateway, pixels).seconds / ideal(case))
            timer()
        return found


def kill_later(case: Case, victim: Popen[bytes]) -> Callable[[], Any]:
    if not case.kills:
        return lambda: None
    timer = threading.Timer(killed_at(case), victim.kill)
    timer.start()
    return timer.join


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", nargs="*")
    options = parser.parse_args()
    tune()
    os.environ["FOGMQTT_DEVICE__WORKERS"] = "1"
    print(f"{'fleet':20} {'ideal':>8} {'median':>7} {'worst':>7} {'limit':>6}")
    for case in cases():
        if options.case and case.name not in options.case:
            continue
        found = run(case, options.rounds)
        print(
            f"{case.name:20} {ideal(case):6.2f} s {statistics.median(found):7.3f} "
            f"{max(found):7.3f} {case.limit:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
