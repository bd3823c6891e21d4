"""The whole way, memory to memory: 24 MP gray, three devices, Mosquitto, and the bare transport.

Each round measures, one after the other, a fog job and the same bytes through the same broker
with plain paho (benchmarks/bare.py); the figure is the median of the ratios. Also: the gateway's peak memory beyond input and output, in a process of its own.

Run: make bench, or .venv/bin/python benchmarks/bench_fog.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from bare import Bare, Load

from fogmqtt.cli.allocator import keep_memory
from fogmqtt.cli.connect import connector
from fogmqtt.cli.demo import _device, _free_port
from fogmqtt.config import Broker, GatewayConfig
from fogmqtt.gateway.jobs import JobRequest, Outcome, Report
from fogmqtt.gateway.service import Gateway
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image
from fogmqtt.transport.embedded import EmbeddedBroker

HEIGHT, WIDTH = 4000, 6000
DEVICES = ("eya", "oumayma", "manar")


@dataclass
class Client:
    """Keeps the outcome."""

    outcome: Outcome | None = None

    def progress(self, report: Report) -> None: ...
    def notice(self, job: str, text: str) -> None: ...
    def deliver(self, outcome: Outcome) -> None: ...

    def ended(self, outcome: Outcome) -> None:
        self.outcome = outcome


def photo() -> Image:
    """24 MP that compress and have edges like a photograph: smooth noise on several scales."""
    draw = np.random.default_rng(1)
    image = np.zeros((HEIGHT, WIDTH), np.float32)
    for scale in (8, 40, 200):
        noise = draw.random((HEIGHT // scale + 2, WIDTH // scale + 2), np.float32)
        image += cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    return (image + draw.normal(0, 2, image.shape)).clip(0, 255).astype(np.uint8)


def job(gateway: Gateway, image: Image, pipeline: str) -> Report:
    client = Client()
    gateway.submit(JobRequest("bench", pipeline, client, image=image))
    gateway.run(lambda: gateway.conductor.idle)
    assert client.outcome is not None
    assert client.outcome.error is None, client.outcome.error
    return client.outcome.report


def open_gateway(url: str) -> Gateway:
    broker = Broker(url=url, embedded="never")
    config = replace(GatewayConfig(), broker=broker)
    gateway = Gateway(config, "bench", connector(broker, "bench"))
    gateway.transport.start()
    gateway.chores.append(lambda moment: moment + 0.05)
    gateway.run(lambda: len(gateway.fleet.present()) == len(DEVICES))
    gateway.chores.pop()
    return gateway


def compare(url: str, bare: Bare, image: Image, pipeline: str, rounds: int) -> dict[str, float]:
    gateway = open_gateway(url)
    try:
        report = job(gateway, image, pipeline)
        load = Load(
            report.tiles,
            report.bytes_out // report.tiles,
            max(4, report.bytes_back // report.tiles),
        )
        fog, plain = [], []
        for _ in range(rounds):
            fog.append(job(gateway, image, pipeline).seconds)
            plain.append(bare.seconds(load))
    finally:
        gateway.close()
    ratios = [ours / theirs for ours, theirs in zip(fog, plain, strict=True)]
    return {
        "tiles": load.tiles,
        "fog_ms": 1e3 * statistics.median(fog),
        "bare_ms": 1e3 * statistics.median(plain),
        "ratio": statistics.median(ratios),
    }


def peak_memory(url: str, pipeline: str) -> float:
    """MB that a gateway process needs beyond input and output."""
    command = [sys.executable, __file__, "--memory-child", url, pipeline]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["extra_mb"])


def memory_child(url: str, pipeline: str) -> None:
    keep_memory()
    gateway = open_gateway(url)
    image = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH), np.uint8)
    job(gateway, image, pipeline)
    status = Path("/proc/self/status").read_text()
    peak_mb = int(status.split("VmHWM:")[1].split()[0]) / 1024
    gateway.close()
    print(json.dumps({"extra_mb": peak_mb - 2 * image.nbytes / 2**20}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory-child", nargs=2, metavar=("URL", "PIPELINE"))
    options = parser.parse_args()
    if options.memory_child:
        memory_child(*options.memory_child)
        return
    keep_memory()
    image = photo()
    with ExitStack() as stack:
        broker = EmbeddedBroker.start(f"mqtt://127.0.0.1:{_free_port()}")
        stack.callback(broker.stop)
        for device in DEVICES:
            stack.enter_context(_device(device, broker.url))
        bare = Bare(int(broker.url.rsplit(":", 1)[1]), len(DEVICES))
        stack.callback(bare.close)
        print(f"{WIDTH}x{HEIGHT} gray, {len(DEVICES)} devices, {os.cpu_count()} cores")
        print(f"{'pipeline':10} {'tiles':>6} {'fog ms':>8} {'bare ms':>8} {'ratio':>6} {'+MB':>6}")
        for pipeline in ("invert", "canny"):
            row = compare(broker.url, bare, image, pipeline, options.rounds)
            extra = peak_memory(broker.url, pipeline)
            print(
                f"{pipeline:10} {row['tiles']:6.0f} {row['fog_ms']:8.1f} {row['bare_ms']:8.1f} "
                f"{row['ratio']:6.2f} {extra:6.0f}"
            )


if __name__ == "__main__":
    main()
