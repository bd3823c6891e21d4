"""Measures an idle agent: its memory, and how soon after its start it is online.

Each round starts a device on a broker of this machine. `online s` ends when the device's status
arrives at another client, and `CPU s` is what the start has used by then. The device is idle when
it has checked its operators and used no CPU time for a second; `MB` is then the agent's resident
memory, and `with children` adds that of its workers, where each process counts its shared pages.

Run: .venv/bin/python benchmarks/bench_idle.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass

import psutil
from bare import client

from fogmqtt.cli.demo import device_process, free_port
from fogmqtt.transport.embedded import EmbeddedBroker
from fogmqtt.wire.topics import ONLINE, Topics

MB = 1 << 20
QUIET_S = 1.0
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Idle:
    """One start of a device."""

    online_s: float
    cpu_s: float
    mb: float
    mb_with_children: float


def measure(rounds: int) -> list[Idle]:
    """Start a device this many times, one after the other."""
    broker = EmbeddedBroker.start(f"mqtt://127.0.0.1:{free_port()}")
    try:
        return [_start(broker.url, f"idle{number}") for number in range(rounds)]
    finally:
        broker.stop()


def _start(url: str, device: str) -> Idle:
    with _online(url, device) as online:
        began = time.perf_counter()
        with device_process(device, url) as process:
            assert online.wait(TIMEOUT_S), f"{device} is not online after {TIMEOUT_S:g} s"
            seconds = time.perf_counter() - began
            agent = psutil.Process(process.pid)
            cpu_s = _used(agent)
            _wait_until_quiet(agent)
            own = agent.memory_info().rss / MB
            children = agent.children(recursive=True)
            more = sum(each.memory_info().rss for each in children) / MB
            return Idle(seconds, cpu_s, own, own + more)


@contextmanager
def _online(url: str, device: str) -> Iterator[threading.Event]:
    """Yield an event that is set once the device is online."""
    online, subscribed = threading.Event(), threading.Event()
    watcher = client(f"watches-{device}", int(url.rsplit(":", 1)[1]))
    watcher.on_subscribe = lambda *_: subscribed.set()
    watcher.on_message = lambda _client, _data, message: (
        online.set() if message.payload == ONLINE else None
    )
    watcher.subscribe(Topics().device(device, "status"), 1)
    watcher.loop_start()
    try:
        assert subscribed.wait(TIMEOUT_S)
        yield online
    finally:
        watcher.disconnect()
        watcher.loop_stop()


def _wait_until_quiet(agent: psutil.Process) -> None:
    """Wait until the agent and its children use no more than a hundredth of a core."""
    used = _used(agent)
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        time.sleep(QUIET_S)
        before, used = used, _used(agent)
        if used - before <= 0.01 * QUIET_S:
            return
        assert time.monotonic() < deadline, f"{agent} is busy after {TIMEOUT_S:g} s"


def _used(agent: psutil.Process) -> float:
    times = [agent.cpu_times(), *(each.cpu_times() for each in agent.children(recursive=True))]
    return sum(
        each.user + each.system + each.children_user + each.children_system for each in times
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    starts = measure(parser.parse_args().rounds)
    heads = ("", "online s", "CPU s", "MB", "with children")
    print(*(f"{head:>13}" for head in heads), f"  load {os.getloadavg()[0]:.1f}")
    for name, choose in (("median", statistics.median), ("best", min), ("worst", max)):
        columns = (choose(column) for column in zip(*map(astuple, starts), strict=True))
        print(f"{name:13}", *(f"{each:13.2f}" for each in columns))


if __name__ == "__main__":
    main()
