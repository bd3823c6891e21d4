"""Measures a gateway's peak memory beyond the image, its result and what it held when idle.

100 MP gray, three devices, the first job of a gateway in a process of its own, in each mode of
`gateway.local`.

Run: .venv/bin/python benchmarks/bench_memory.py [--megapixels 100]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

from client import gateway_at, job
from photo import HALO, photo

from fogmqtt.cli.demo import device_process, free_port
from fogmqtt.config.schema import Mode
from fogmqtt.process_tuning import tune
from fogmqtt.transport.embedded import EmbeddedBroker

DEVICES = 3
MODES = get_args(Mode)
MB = 1 << 20


def measure(megapixels: int) -> dict[tuple[Mode, str], float]:
    """Return the extra MB of a new gateway for each mode and pipeline."""
    with ExitStack() as stack:
        broker = EmbeddedBroker.start(f"mqtt://127.0.0.1:{free_port()}")
        stack.callback(broker.stop)
        for number in range(DEVICES):
            stack.enter_context(device_process(f"d{number}", broker.url))
        return {
            (mode, pipeline): _extra_mb(broker.url, mode, pipeline, megapixels)
            for mode in MODES
            for pipeline in HALO
        }


def _extra_mb(url: str, mode: Mode, pipeline: str, megapixels: int) -> float:
    child = ["--child", url, mode, pipeline]
    command = [sys.executable, __file__, "--megapixels", str(megapixels), *child]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout)["extra_mb"])


def child(url: str, mode: Mode, pipeline: str, megapixels: int) -> None:
    """Run a gateway and one job in this process, and print its extra memory."""
    tune()
    image = photo(megapixels)
    with gateway_at(url, DEVICES, local=mode) as gateway:
        before = _memory_mb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        job(gateway, image, pipeline)
        peak = _memory_mb("VmHWM")
    print(json.dumps({"extra_mb": peak - before - image.nbytes / MB}))


def _memory_mb(name: str) -> float:
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.split(f"{name}:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=int, default=100)
    parser.add_argument("--child", nargs=3, metavar=("URL", "MODE", "PIPELINE"))
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.megapixels)
        return
    extra = measure(options.megapixels)
    print(f"{options.megapixels} MP: MB beyond image and result")
    print("local  ", *(f"{pipeline:>8}" for pipeline in HALO))
    for mode in MODES:
        print(f"{mode:7}", *(f"{extra[mode, pipeline]:8.0f}" for pipeline in HALO))


if __name__ == "__main__":
    main()
