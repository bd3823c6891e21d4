"""Measures a job from memory to memory: 24 MP gray, three devices, Mosquitto, and bare paho.

Each round measures, one after the other, a fog job and the same bytes through the same broker
with plain paho (benchmarks/bare.py); the figure is the median of the ratios. `+ work` lets the
bare echoes do the plain cv2 call on each tile too: no halo, no seams, nothing merged.
Also: the gateway's peak memory beyond input and output, in a process of its own.

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
from dataclasses import replace
from pathlib import Path

import numpy as np
from bare import HEAD, Bare, Load
from client import gateway_at, job

from fogmqtt.cli.demo import PHOTO, device_process, free_port
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image
from fogmqtt.process_tuning import tune
from fogmqtt.transport.embedded import EmbeddedBroker

HEIGHT, WIDTH = 4000, 6000
DEVICES = ("eya", "oumayma", "manar")


def photo() -> Image:
    """The demo's photograph, enlarged to 24 MP."""
    gray = cv2.imread(str(PHOTO), cv2.IMREAD_GRAYSCALE)
    return cv2.resize(gray, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def compare(url: str, bare: Bare, image: Image, pipeline: str, rounds: int) -> list[str]:
    """A row: tiles, milliseconds of fog, bare and bare with the work, and the two ratios."""
    with gateway_at(url, len(DEVICES)) as gateway:
        report = job(gateway, image, pipeline)
        back = max(HEAD.size, report.bytes_back // report.tiles)
        load = Load(image.tobytes(), WIDTH, report.tiles, back)
        fog, plain, working = [], [], []
        for _ in range(rounds):
            fog.append(job(gateway, image, pipeline).seconds)
            plain.append(bare.seconds(load))
            working.append(bare.seconds(replace(load, work=pipeline)))
    times = (f"{1e3 * statistics.median(each):.0f}" for each in (fog, plain, working))
    return [str(report.tiles), *times, ratio(fog, plain), ratio(fog, working)]


def ratio(ours: list[float], theirs: list[float]) -> str:
    return f"{statistics.median(a / b for a, b in zip(ours, theirs, strict=True)):.2f}"


def peak_memory(url: str, pipeline: str) -> float:
    """MB that a gateway process needs beyond input and output."""
    command = [sys.executable, __file__, "--memory-child", url, pipeline]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["extra_mb"])


def memory_child(url: str, pipeline: str) -> None:
    tune()
    image = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH), np.uint8)
    with gateway_at(url, len(DEVICES)) as gateway:
        job(gateway, image, pipeline)
        status = Path("/proc/self/status").read_text()
    peak_mb = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps({"extra_mb": peak_mb - 2 * image.nbytes / 2**20}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory-child", nargs=2, metavar=("URL", "PIPELINE"))
    options = parser.parse_args()
    if options.memory_child:
        memory_child(*options.memory_child)
        return
    tune()
    image = photo()
    with ExitStack() as stack:
        broker = EmbeddedBroker.start(f"mqtt://127.0.0.1:{free_port()}")
        stack.callback(broker.stop)
        for device in DEVICES:
            stack.enter_context(device_process(device, broker.url))
        bare = Bare(int(broker.url.rsplit(":", 1)[1]), len(DEVICES))
        stack.callback(bare.close)
        print(f"{WIDTH}x{HEIGHT} gray, {len(DEVICES)} devices, {os.cpu_count()} cores")
        print_row(
            "pipeline", "tiles", "fog ms", "bare ms", "+ work ms", "/ bare", "/ + work", "+MB"
        )
        for pipeline in ("invert", "canny"):
            row = compare(broker.url, bare, image, pipeline, options.rounds)
            print_row(pipeline, *row, f"{peak_memory(broker.url, pipeline):.0f}")


def print_row(*cells: str) -> None:
    print("".join(f"{cell:>11}" for cell in cells))


if __name__ == "__main__":
    main()
