"""Measures what the dashboard costs, beside the same fleet without it.

A broker, three devices, a gateway and its dashboard, each a process. Four tables:

- `small`: 100 small images at once, by HTTP (`PUT /api/run/…`) and by MQTT (submit topic, reply
  topic), from one program with one thread each. Rounds take turns; the ratio is the median of the
  rounds' ratios. A lost image ends the benchmark.
- `page`: one job of 24 MP, submitted by MQTT, with nobody looking and with a page that shows it.
  The page here reads events and asks for pixels as the real one does, and draws nothing: a
  browser draws on another machine.
- `idle`: CPU time a second of gateway, dashboard and broker, with and without a page.
- `CPU s` is of all processes, broker, devices and this program included.

Run: .venv/bin/python benchmarks/bench_service.py [--rounds 5] [--only small page idle]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from bare import client
from cpu_time import CpuTime, Usage
from photo import photo

from fogmqtt.cli.demo import PHOTO, device_process, free_port
from fogmqtt.images.cv import cv2
from fogmqtt.transport.embedded import EmbeddedBroker

SMALL = 100
MEGAPIXELS = 24
DEVICES = 3
TIMEOUT_S = 120.0
IDLE_S = 10.0
REPLY = "bench"


@dataclass(frozen=True)
class Site:
    """A fleet with its dashboard."""

    broker: EmbeddedBroker
    host: str
    port: int
    gateway: psutil.Process

    @property
    def mqtt_port(self) -> int:
        return urlsplit(self.broker.url).port or 1883


@contextmanager
def site() -> Iterator[Site]:
    """Start broker, devices, gateway and dashboard, and end them."""
    with ExitStack() as stack:
        broker = EmbeddedBroker.start(f"mqtt://127.0.0.1:{free_port()}")
        stack.callback(broker.stop)
        for number in range(DEVICES):
            stack.enter_context(device_process(f"d{number}", broker.url))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-service-")))
        settings = {
            "BROKER__URL": broker.url,
            "BROKER__EMBEDDED": "never",
            "GATEWAY__LOCAL": "never",
            "DASHBOARD__ENABLED": "always",
            "DASHBOARD__LISTEN": "127.0.0.1:0",
        }
        log = stack.enter_context((folder / "log").open("w+"))
        process = subprocess.Popen(
            [sys.executable, "-m", "fogmqtt.cli.gateway"],
            cwd=folder,
            env=os.environ | {f"FOGMQTT_{key}": value for key, value in settings.items()},
            stdout=log,
            stderr=log,
        )
        stack.callback(process.wait, 30)
        stack.callback(process.send_signal, signal.SIGTERM)
        found = wait_for(lambda: re.search(r"page is at http://([\d.]+):(\d+)", _read(folder)))
        made = Site(broker, found[1], int(found[2]), psutil.Process(process.pid))
        wait_for(lambda: len(_json(made, "/api/devices")["devices"]) == DEVICES)
        yield made


def _read(folder: Path) -> str:
    return (folder / "log").read_text(errors="replace")


def wait_for(found: Callable[[], object]) -> object:
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        try:
            if value := found():
                return value
        except (OSError, ValueError, KeyError):
            pass  # it starts
        time.sleep(0.1)
    raise TimeoutError("the fleet does not come up")


def _json(site: Site, path: str) -> dict[str, list[object]]:
    answer = asyncio.run(_ask(site, "GET", path))
    return json.loads(answer)


# HTTP.


async def _ask(site: Site, method: str, path: str, body: bytes = b"") -> bytes:
    """Send a request on a connection of its own, and return the body. Raises ValueError."""
    reader, writer = await asyncio.open_connection(site.host, site.port)
    head = f"{method} {path} HTTP/1.1\r\nHost: {site.host}:{site.port}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    status, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    if not re.match(rb"HTTP/1.1 (200|304)", status):
        raise ValueError(f"{status[:60]!r}: {answer[:200]!r}")
    return answer


def by_http(site: Site, files: list[bytes], pipeline: str) -> list[bytes]:
    """Submit all files at once, and return the results."""

    async def all_of_them() -> list[bytes]:
        jobs = (_ask(site, "PUT", f"/api/run/{pipeline}", data) for data in files)
        return await asyncio.gather(*jobs)

    return asyncio.run(all_of_them())


# MQTT.


@dataclass
class Submitter:
    """A client that submits, and gets results on its reply topics."""

    site: Site
    results: dict[str, bytes] = field(default_factory=dict)
    wanted: int = 0
    complete: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        subscribed = threading.Event()
        self.client = client(f"submits-{os.getpid()}", self.site.mqtt_port)
        self.client.on_message = self._take
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.subscribe(f"fog/v1/replies/{REPLY}/+/image", 1)
        self.client.loop_start()
        assert subscribed.wait(TIMEOUT_S)

    def submit(self, files: list[bytes], pipeline: str) -> list[bytes]:
        """Submit all files at once, and return the results."""
        self.results, self.wanted = {}, len(files)
        self.complete.clear()
        for number, data in enumerate(files):
            self.client.publish(f"fog/v1/submit/{pipeline}/{REPLY}/{number}", data, qos=1)
        assert self.complete.wait(TIMEOUT_S), f"{len(self.results)} of {len(files)} came back"
        return [self.results[str(number)] for number in range(len(files))]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _take(self, _client: object, _data: object, message: object) -> None:
        self.results[message.topic.split("/")[-2]] = message.payload
        if len(self.results) == self.wanted:
            self.complete.set()


# A page.


@dataclass
class Page:
    """Reads events, and asks for pixels of finished tiles as live_picture.js does."""

    site: Site
    pictures: int = 0
    _original: set[str] = field(default_factory=set)
    _cores: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    _wanted: dict[str, set[str]] = field(default_factory=dict)
    _sizes: dict[str, list[int]] = field(default_factory=dict)
    _asking: asyncio.Task[None] | None = None

    @contextmanager
    def open(self) -> Iterator[Page]:
        """Show the page during the block, from a thread of its own."""
        loop = asyncio.new_event_loop()
        task = loop.create_task(self._read())
        thread = threading.Thread(target=lambda: loop.run_until_complete(_quiet(task)))
        thread.start()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(task.cancel)
            thread.join(TIMEOUT_S)

    async def _read(self) -> None:
        reader, writer = await asyncio.open_connection(
            self.site.host, self.site.port, limit=1 << 24
        )
        head = f"GET /api/events HTTP/1.1\r\nHost: {self.site.host}:{self.site.port}\r\n\r\n"
        writer.write(head.encode())
        try:
            async for line in reader:
                if line.startswith(b"data: "):
                    self._take(json.loads(line[6:]))
        finally:
            writer.close()

    def _take(self, event: dict[str, list[dict[str, object]]]) -> None:
        for update in event.get("tiles", []):
            job = str(update["job"])
            self._sizes[job] = [update["height"], update["width"]]
            self._cores.setdefault(job, {}).update(update.get("cores", {}))
            done = {str(tile) for tile, status, *_ in update.get("rows", []) if status == 4}
            self._wanted.setdefault(job, set()).update(done)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask_for_pixels())

    async def _ask_for_pixels(self) -> None:
        for job in list(self._sizes):
            if job not in self._original:
                self._original.add(job)
                await self._picture(f"/api/jobs/{job}/preview?of=original&max_side=1600")
            while self._wanted[job]:
                tiles, self._wanted[job] = self._wanted[job], set()
                areas = [self._cores[job][tile] for tile in tiles]
                top, left = (min(area[side] for area in areas) for side in (0, 1))
                bottom, right = (max(a[side] + a[side + 2] for a in areas) for side in (0, 1))
                size = [bottom - top, right - left]
                side = max(16, round(1200 * max(size) / max(self._sizes[job])))
                area = f"{top},{left},{size[0]},{size[1]}"
                await self._picture(f"/api/jobs/{job}/preview?area={area}&max_side={side}")

    async def _picture(self, path: str) -> None:
        try:
            await _ask(self.site, "GET", path)
        except ValueError:
            return  # the job has ended meanwhile
        self.pictures += 1


async def _quiet(task: asyncio.Task[None]) -> None:
    await asyncio.wait({task})


# Tables.


def timed(work: Callable[[], object]) -> tuple[float, Usage]:
    cpu, began = CpuTime(), time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    return seconds, cpu.usage()


def show(name: str, rows: list[tuple[float, Usage]]) -> None:
    wall = statistics.median(seconds for seconds, _ in rows)
    cpu = statistics.median(usage.cpu_s for _, usage in rows)
    others = statistics.median(usage.others for _, usage in rows)
    print(f"  {name:<16}{wall:8.3f} s{cpu:10.3f} CPU s{others:8.0%} others")


def ratios(name: str, ours: list[tuple[float, Usage]], theirs: list[tuple[float, Usage]]) -> None:
    pairs = list(zip(ours, theirs, strict=True))
    wall = [mine[0] / other[0] for mine, other in pairs]
    cpu = [mine[1].cpu_s / other[1].cpu_s for mine, other in pairs]
    print(
        f"  {name:<16}{statistics.median(wall):8.3f} wall{statistics.median(cpu):8.3f} CPU"
        f"   (wall {min(wall):.2f} to {max(wall):.2f})"
    )


def small(site: Site, rounds: int) -> None:
    picture = cv2.resize(cv2.imread(str(PHOTO)), (320, 240))
    files = []
    for number in range(SMALL):  # no two are equal, so that nothing can be cached
        cv2.putText(picture, str(number), (100, 120), cv2.FONT_HERSHEY_PLAIN, 3, (0, 0, 255), 3)
        files.append(cv2.imencode(".jpg", picture)[1].tobytes())
    submitter = Submitter(site)
    http, mqtt = [], []
    try:
        submitter.submit(files, "edges")
        expected = by_http(site, files, "edges")
        turns = [(by_http, http), (submitter.submit, mqtt)]
        for number in range(rounds):  # in turns, so that neither is always the first
            for kind, rows in turns if number % 2 else reversed(turns):
                results: list[list[bytes]] = []
                arguments = (site, files, "edges") if kind is by_http else (files, "edges")
                rows.append(timed(lambda: results.append(kind(*arguments))))  # noqa: B023
                assert results == [expected]
    finally:
        submitter.close()
    print(f"{SMALL} images of {len(files[0])} bytes at once")
    show("HTTP", http)
    show("MQTT", mqtt)
    ratios("HTTP ÷ MQTT", http, mqtt)


def page(site: Site, rounds: int) -> None:
    file = [cv2.imencode(".bmp", photo(MEGAPIXELS))[1].tobytes()]
    submitter = Submitter(site)
    without, looked_at = [], []
    shown = Page(site)
    try:
        for _ in range(3):
            expected = submitter.submit(file, "edges")
        for number in range(2 * rounds):
            if number % 4 in (0, 3):
                without.append(timed(lambda: submitter.submit(file, "edges")))
                continue
            with shown.open():
                time.sleep(0.5)
                looked_at.append(timed(lambda: submitter.submit(file, "edges")))
        assert submitter.submit(file, "edges") == expected
    finally:
        submitter.close()
    print(
        f"one job of {MEGAPIXELS} MP; {shown.pictures / max(1, len(looked_at)):.1f} pictures each"
    )
    show("nobody looks", without)
    show("a page", looked_at)
    ratios("page ÷ nobody", looked_at, without)


def idle(site: Site) -> None:
    print(f"idle for {IDLE_S:g} s, share of a core")
    for name, look in (("nobody looks", False), ("a page", True)):
        with ExitStack() as stack:
            if look:
                stack.enter_context(Page(site).open())
            time.sleep(25 if not look else 3)  # the dashboard watches for a while after a reader
            processes = {"gateway": site.gateway, "broker": psutil.Process(site.broker.pid)}
            for child in site.gateway.children(recursive=True):
                if "fogmqtt.cli.dashboard" in " ".join(child.cmdline()):
                    processes["dashboard"] = child
            before = {key: sum(one.cpu_times()[:2]) for key, one in processes.items()}
            time.sleep(IDLE_S)
            shares = {
                key: (sum(one.cpu_times()[:2]) - before[key]) / IDLE_S
                for key, one in processes.items()
            }
            parts = ", ".join(f"{key} {share:.1%}" for key, share in shares.items())
            print(f"  {name:<16}{sum(shares.values()):.1%}: {parts}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=["small", "page", "idle"])
    asked = parser.parse_args()
    with site() as made:
        if "small" in asked.only:
            small(made, asked.rounds)
        if "page" in asked.only:
            page(made, asked.rounds)
        if "idle" in asked.only:
            idle(made)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
