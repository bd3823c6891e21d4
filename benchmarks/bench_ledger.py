"""Measures the cost of the spool and its journal, and the restart of a killed gateway.

24 MP Canny, submitted over MQTT, three devices: two gateways that differ in `gateway.spool` take
turns on one broker; the figure is the median of the ratios of neighbours. Then a gateway is killed
in the middle of a 100 MP job and started again: seconds from its start to its first tile.

Run: make bench, or .venv/bin/python benchmarks/bench_ledger.py [--rounds 9] [--ledger|--resume]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from fogmqtt.cli.demo import PHOTO, free_port
from fogmqtt.images.cv import cv2
from fogmqtt.transport.base import Connected, Received
from fogmqtt.transport.embedded import EmbeddedBroker
from fogmqtt.transport.link import Link
from fogmqtt.transport.paho import PahoTransport

DEVICES = ("eya", "oumayma", "manar")


def picture(height: int, width: int, suffix: str, *, gray: bool = False) -> bytes:
    """The demo's photograph, enlarged, as a file."""
    kind = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
    image = cv2.imread(str(PHOTO), kind)
    assert image is not None
    large = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(suffix, large)[1].tobytes()


class Client:
    """Submits, and waits for messages."""

    def __init__(self, url: str, prefix: str) -> None:
        self.prefix = prefix
        self.events: SimpleQueue[object] = SimpleQueue()
        self.name = prefix.split("/")[0]
        self.transport = PahoTransport(Link(url, f"client-{self.name}"), self.events.put)
        for filters in ("replies/#", "devices/+/tiles", "devices/+/status", "gateways/+/status"):
            self.transport.subscribe(f"{prefix}/{filters}")
        self.transport.start()
        while not isinstance(self.events.get(timeout=10), Connected):
            pass

    def wait(self, end: str, payload: bytes = b"", *, within: float = 120.0) -> Received:
        """The next message on a topic that ends like this, and holds this."""
        deadline = time.monotonic() + within
        while True:
            event = self.events.get(timeout=max(0.0, deadline - time.monotonic()))
            if (
                isinstance(event, Received)
                and event.topic.endswith(end)
                and payload in event.payload
            ):
                return event

    def submit(self, data: bytes) -> None:
        self.transport.publish(f"{self.prefix}/submit/edges/me", data)

    def job(self, data: bytes) -> float:
        """Seconds from submitting to the end."""
        began = time.perf_counter()
        self.submit(data)
        while (state := json.loads(self.wait("me/status").payload)["state"]) != "done":
            assert state != "failed"
        return time.perf_counter() - began


@contextmanager
def running(folder: Path, *command: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of our programs, and kill it at the end."""
    settings = {"BROKER__EMBEDDED": "never", "DASHBOARD__ENABLED": "never", **settings}
    names = {f"FOGMQTT_{name}": value for name, value in settings.items()}
    log = (folder / f"{command[0].split('.')[-1]}.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, **names},
        stdout=log,
        stderr=log,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def fog(
    stack: ExitStack, folder: Path, url: str, prefix: str, *options: str, **settings: str
) -> Client:
    """Start devices and a serving gateway with a topic prefix of their own."""
    folder.mkdir(parents=True)
    shared = {"BROKER__URL": url, "WIRE__PREFIX": prefix}
    client = Client(url, prefix)
    stack.callback(client.transport.close)
    for device in DEVICES:
        device = f"{device}-{client.name}"  # on one broker an id is one client's
        command = ("fogmqtt.cli.device", "--id", device, *options)
        stack.enter_context(running(folder, *command, DEVICE__WORKERS="1", **shared))
        client.wait(f"{device}/status", b"online")
    if settings:
        settings = {"GATEWAY__ID": client.name, **shared, **settings}
        stack.enter_context(running(folder, "fogmqtt.cli.gateway", **settings))
        client.wait(f"gateways/{client.name}/status", b"online")
    return client


def cost(url: str, folder: Path, data: bytes, rounds: int) -> str:
    """A row: milliseconds with and without the spool, and the ratio."""
    with ExitStack() as stack:
        settings = {"GATEWAY__INBOX": "", "GATEWAY__OUTBOX": "", "GATEWAY__DELIVER": "reply"}
        on = fog(stack, folder / "on", url, "on/v1", GATEWAY__SPOOL="spool", **settings)
        off = fog(stack, folder / "off", url, "off/v1", GATEWAY__SPOOL="", **settings)
        on.job(data)
        off.job(data)
        pairs = []
        for number in range(rounds):
            turns = (on, off) if number % 2 else (off, on)
            seconds = {client.prefix: client.job(data) for client in turns}
            pairs.append((seconds["on/v1"], seconds["off/v1"]))
    medians = [1e3 * statistics.median(column) for column in zip(*pairs, strict=True)]
    ratio = statistics.median(with_it / without for with_it, without in pairs)
    return f"{medians[0]:8.0f} {medians[1]:8.0f} {ratio:8.3f}"


def _has_a_quarter(state: dict[str, Any]) -> bool:
    """Whether a quarter of the job's tiles are done. Their number depends on the fleet."""
    return bool(state.get("total")) and 4 * state["done"] > state["total"]


def resume(url: str, folder: Path, prefix: str, data: bytes) -> str:
    """A row: tiles done before the kill, seconds from the next start to the first tile."""
    settings = {"BROKER__URL": url, "WIRE__PREFIX": prefix, "GATEWAY__INBOX": ""}
    settings |= {"GATEWAY__OUTBOX": "", "GATEWAY__DELIVER": "reply", "GATEWAY__ID": "mariem"}
    with ExitStack() as stack:
        client = fog(stack, folder, url, prefix, "--emulate-speed", "3000000")
        with running(folder, "fogmqtt.cli.gateway", **settings) as gateway:
            client.wait("mariem/status", b"online")
            client.submit(data)
            while not _has_a_quarter(state := json.loads(client.wait("me/status").payload)):
                assert state["state"] != "failed", state
            gateway.send_signal(signal.SIGKILL)
            gateway.wait()
        client.wait("mariem/status", b"offline")
        began = time.perf_counter()
        with running(folder, "fogmqtt.cli.gateway", **settings):
            client.wait("mariem/status", b"online")
            online_s = time.perf_counter() - began
            client.wait("/tiles")
            first_s = time.perf_counter() - began
    return f"{state['done']:4} of {state['total']:4} {online_s:10.2f} {first_s:10.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--ledger", action="store_true", help="only the cost")
    parser.add_argument("--resume", action="store_true", help="only the restart")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broker = EmbeddedBroker.start(f"mqtt://127.0.0.1:{free_port()}")
        try:
            if not options.resume:
                print("24 MP Canny     spool ms   off ms    ratio")
                for suffix in (".jpg", ".png"):
                    data = picture(4000, 6000, suffix)
                    row = cost(broker.url, folder / suffix[1:], data, options.rounds)
                    print(f"{suffix[1:]:4} {len(data) / 1e6:5.1f} MB   {row}", flush=True)
            if not options.ledger:
                print("100 MP resumed       done     online s  1st tile s")
                for number, (suffix, gray) in enumerate(
                    ((".jpg", True), (".png", True), (".jpg", False), (".png", False))
                ):
                    data = picture(8000, 12500, suffix, gray=gray)
                    row = resume(broker.url, folder / f"r{number}", f"r{number}/v1", data)
                    kind = "gray" if gray else "colour"
                    print(f"{suffix[1:]:4} {kind:7}  {row}", flush=True)
        finally:
            broker.stop()


if __name__ == "__main__":
    main()
