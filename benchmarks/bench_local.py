"""Jobs with `local: auto` against the gateway alone (`pipeline.run_whole`) and the devices alone.

Real devices, real Mosquitto, real gateway; images in memory. The three take turns, so other load
affects all; the devices alone have the first turns only. The figures are mean seconds of all jobs,
and their ratios to the other two ways and to the better one. `first` is the first job, for which no
times are known. The devices are processes on this machine, so their work takes time from the
gateway; `--emulate-speed` only makes them slower, and lets them announce a host of their own.

Run: .venv/bin/python benchmarks/bench_local.py [--rounds 20] [--case "no device"…]
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from client import gateway_at, job

from fogmqtt.cli.demo import device_process, free_port
from fogmqtt.gateway.thread_door import ThreadDoor
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.pipeline import parse, run_whole
from fogmqtt.process_tuning import tune
from fogmqtt.transport.embedded import EmbeddedBroker

MP = 1_000_000
#: The number of turns of the devices alone.
DEVICE_TURNS = 3


@dataclass(frozen=True)
class Case:
    """A pipeline, the image's pixels, and the emulated devices' speeds in pixels per second.

    `here` devices are not emulated: they share this machine's cores with the gateway.
    """

    name: str
    pipeline: str
    pixels: int
    speeds: tuple[float, ...]
    here: int = 0


CASES = (
    Case("no device", "gray | canny", 24 * MP, ()),
    Case("no device, denoise", "gray | denoise", 2 * MP, ()),
    Case("no device, median", "gray | median ksize=21", 6 * MP, ()),
    Case("canny, devices here", "gray | canny", 24 * MP, (), 3),
    Case("denoise, devices here", "gray | denoise", 2 * MP, (), 3),
    Case("canny, slow devices", "gray | canny", 24 * MP, (1 * MP,) * 3),
    Case("canny, 20 MP/s devices", "gray | canny", 24 * MP, (20 * MP,) * 3),
    Case("canny, fast devices", "gray | canny", 24 * MP, (1000 * MP,) * 3),
    Case("invert, fast devices", "invert", 24 * MP, (1000 * MP,) * 3),
    Case("denoise, slow devices", "gray | denoise", 2 * MP, (0.2 * MP,) * 3),
    Case("denoise, fast devices", "gray | denoise", 2 * MP, (1000 * MP,) * 3),
)


def image(pixels: int) -> Image:
    """Colour, 3:2, smooth with noise, as photos are."""
    width = round((pixels * 1.5) ** 0.5)
    height = pixels // width
    random = np.random.default_rng(1)
    coarse = random.integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.add(smooth, random.integers(0, 12, smooth.shape, np.uint8)))


@contextmanager
def gateways_with(case: Case) -> Iterator[tuple[ThreadDoor, ThreadDoor | None]]:
    """A gateway with `local: auto` and one with `never`, which know all devices of the case.

    The second is None if the case has no device.
    """
    with ExitStack() as stack:
        broker = EmbeddedBroker.start(f"mqtt://127.0.0.1:{free_port()}")
        stack.callback(broker.stop)
        for number, speed in enumerate(case.speeds):
            device = device_process(f"d{number}", broker.url, "--emulate-speed", str(speed))
            stack.enter_context(device)
        for number in range(case.here):
            stack.enter_context(device_process(f"h{number}", broker.url))
        count = len(case.speeds) + case.here
        auto = gateway_at(broker.url, count, local="auto", local_after_s=0.0)
        never = gateway_at(broker.url, count, gateway_id="devices") if count else None
        yield stack.enter_context(auto), never and stack.enter_context(never)


def alone(case: Case, pixels: Image) -> float:
    began = time.perf_counter()
    run_whole(parse(case.pipeline), pixels, pixels)
    return time.perf_counter() - began


def run(case: Case, rounds: int) -> None:
    """Print the seconds of the three ways, and the ratios of `auto` to the other two."""
    pixels = image(case.pixels)
    alone(case, pixels[:512])  # OpenCV's threads are there
    auto, alones, devices = [], [], []
    with gateways_with(case) as (gateway, never):
        for turn in range(rounds):
            before = alone(case, pixels)
            report = job(gateway, pixels, case.pipeline)
            auto.append(report.seconds)
            alones.append((before + alone(case, pixels)) / 2)
            if never is not None and turn < DEVICE_TURNS:
                devices.append(job(never, pixels, case.pipeline).seconds)
    alone_s, auto_s = statistics.mean(alones), statistics.mean(auto)
    devices_s = statistics.median(devices) if devices else math.inf
    better_s = min(alone_s, devices_s)
    # Beside its own neighbours in time, since other load comes and goes.
    first = auto[0] / min(alones[0], devices[0] if devices else math.inf)
    shares = "  ".join(
        f"{device} {100 * share.pixels / report.pixels:.0f} %"
        for device, share in sorted(report.devices.items())
    )
    print(
        f"{case.name:26} {alone_s:7.3f} {devices_s:7.3f} {auto_s:7.3f} {auto_s / alone_s:7.3f} "
        f"{auto_s / devices_s:7.3f} {auto_s / better_s:7.3f} {first:7.3f}   {shares}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--case", nargs="*")
    options = parser.parse_args()
    tune()
    os.environ["FOGMQTT_DEVICE__WORKERS"] = "1"
    print(
        f"{'case':26} {'alone':>7} {'devices':>7} {'auto':>7} {'/ alone':>7} {'/ dev.':>7} "
        f"{'/ best':>7} {'first':>7}   last job by"
    )
    for case in CASES:
        if not options.case or case.name in options.case:
            run(case, options.rounds)


if __name__ == "__main__":
    main()
