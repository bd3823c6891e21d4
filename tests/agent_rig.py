"""An agent on a thread, over a link whose other end the test plays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest

from fogmqtt.agent.service import Agent, AgentSettings
from fogmqtt.conformance.report import ConformanceReport, OperatorReport
from fogmqtt.conformance.runner import ConformanceRunner
from fogmqtt.core.device_queue import Key
from fogmqtt.core.geometry import Rect
from fogmqtt.errors import NotConnected, TooLarge
from fogmqtt.images import codec
from fogmqtt.images.spec import Image
from fogmqtt.transport.base import Connected, Deliver, Disconnected, Received, Will
from fogmqtt.wire.messages import (
    Accepted,
    Call,
    Decoder,
    DeviceInfo,
    Encoding,
    Failure,
    FromDevice,
    Rejected,
    Result,
    TileTask,
    check_digest,
    encode,
    signed,
)
from fogmqtt.workers.memory_limit import MemoryLimit
from fogmqtt.workers.pool import Pool
from fogmqtt.workers.process import Done, attempt
from fogmqtt.workers.work import Failed, Finished, Pixels

TILES = "fog/v1/devices/eya/tiles"
CONTROL = "fog/v1/devices/eya/control"
INFO = "fog/v1/devices/eya/info"
STATUS = "fog/v1/devices/eya/status"
RESULTS = "fog/v1/gateways/mariem/results/eya"


@dataclass
class Link:
    """A transport that records what is said; the test plays the broker."""

    deliver: Deliver
    will: Will
    linked: bool = False
    limit: int = 10_000_000
    closed: bool = False
    filters: list[str] = field(default_factory=list)
    said: list[tuple[str, bytes, bool]] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def start(self) -> None:
        self.connect()

    def connect(self) -> None:
        self.linked = True
        self.deliver(Connected(self.limit))

    def lose(self) -> None:
        self.linked = False
        self.deliver(Disconnected("the cable"))

    def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
        self.filters.append(topic_filter)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expires_s: float | None = None,
        content_type: str | None = None,
    ) -> None:
        if not self.linked:
            raise NotConnected("no link")
        if len(payload) > self.limit:
            raise TooLarge(f"{len(payload)} bytes, the limit is {self.limit}")
        with self._changed:
            self.said.append((topic, payload, retain))
            self._changed.notify_all()

    def close(self) -> None:
        self.closed = True

    def wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, 10), self.answers()

    def answers(self, topic: str = RESULTS) -> list[FromDevice]:
        decoder: Decoder[FromDevice] = Decoder(Accepted, Result, Failure, Rejected)
        return [decoder.decode(payload) for said, payload, _ in self.said if said == topic]

    def of(self, kind: type[Any]) -> list[Any]:
        return [answer for answer in self.answers() if isinstance(answer, kind)]

    def infos(self) -> list[DeviceInfo]:
        decoder = Decoder(DeviceInfo)
        return [decoder.decode(payload) for topic, payload, _ in self.said if topic == INFO]


class Threads(Pool[Key]):
    """Workers without processes: a test can change what they do. They cannot be ended."""

    def __init__(self, settings: AgentSettings, finished: Callable[[Finished[Key]], None]) -> None:
        self.size = settings.workers
        self.warmed = threading.Event()
        self._finished = finished

    def warm(self) -> None:
        self.warmed.set()

    def give(self, key: Key, task: TileTask, *, received_at: float, until: float) -> None:
        threading.Thread(target=self._do, args=(key, task), daemon=True).start()

    def renew(self, key: Key, until: float) -> None: ...
    def cancel(self, key: Key) -> None: ...
    def close(self) -> None: ...

    def _do(self, key: Key, task: TileTask) -> None:
        reply, data = attempt(task, MemoryLimit(0))
        if isinstance(reply, Done):
            made = Pixels(memoryview(data), reply.shape, reply.dtype, reply.codec)
            self._finished(Finished(key, made, 0.0, reply.compute_s))
        else:
            self._finished(Finished(key, Failed(reply.reason, reply.traceback), 0.0, 0.0))


FOUND = ConformanceReport(
    {"invert": OperatorReport("invert", "fogmqtt", "1", {"invert/uint8": "abc"}, 1.5)},
    versions={"opencv": "5.0.0", "machine": "x86_64"},
)


class Remembered(ConformanceRunner):
    """Has a cached report."""

    def cached(self) -> ConformanceReport:
        return FOUND


class Later(ConformanceRunner):
    """Delivers its report when the test says so."""

    deliver: ClassVar[Callable[[ConformanceReport], None]]

    def __init__(self, deliver: Callable[[ConformanceReport], None]) -> None:
        super().__init__(deliver)
        type(self).deliver = deliver

    def cached(self) -> None:
        return None

    def start(self) -> None: ...


@dataclass
class Rig:
    agent: Agent
    link: Link
    thread: threading.Thread
    errors: list[Exception]
    #: The agent's pool was told to be warm.
    warmed: threading.Event = field(default_factory=threading.Event)

    def tile(self, task: TileTask, encoding: Encoding = "binary") -> None:
        self.link.deliver(Received(TILES, encode(task, encoding)))

    def join(self) -> None:
        self.thread.join(10)
        assert not self.thread.is_alive()


def started(agent: Agent, link: Link) -> Rig:
    """The agent, running on a thread of its own."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            agent.run()
        except Exception as problem:  # noqa: BLE001  # the test looks at it
            errors.append(problem)

    rig = Rig(agent, link, threading.Thread(target=run, daemon=True), errors)
    rig.thread.start()
    return rig


@contextmanager
def running(
    workers: int = 1,
    checkin_s: float = 60.0,
    limit: int = 10_000_000,
    examiner: type[ConformanceRunner] = Remembered,
) -> Iterator[Rig]:
    """An agent that has said `online`, and is stopped after."""
    links: list[Link] = []

    def connect(deliver: Deliver, will: Will) -> Link:
        links.append(Link(deliver, will, limit=limit))
        return links[0]

    settings = AgentSettings("eya", workers, "mqtt://here", checkin_s=checkin_s)
    pools: list[Threads] = []

    def employ(settings: AgentSettings, finished: Callable[[Finished[Key]], None]) -> Threads:
        pools.append(Threads(settings, finished))
        return pools[0]

    agent = Agent(settings, connect, employ, examiner)
    rig = started(agent, links[0])
    rig.warmed = pools[0].warmed
    rig.link.wait(lambda: bool(rig.link.said) and rig.link.said[-1][0] == STATUS)
    try:
        yield rig
    finally:
        gate.set()
        agent.stop()
        rig.join()


gate = threading.Event()


def hold_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tile takes until `gate` is set."""

    def run_tile(operators: object, pixels: Image, core: Rect, seams: object) -> Image:
        assert gate.wait(10)
        return pixels[core.slices].copy()

    gate.clear()
    monkeypatch.setattr("fogmqtt.operators.api.pipeline.run_tile", run_tile)


PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)


def task(tile: int = 0, attempt: int = 1, **changes: Any) -> TileTask:
    fields: dict[str, Any] = {
        "job": "job",
        "tile": tile,
        "attempt": attempt,
        "gateway": "mariem",
        "stage": [Call("invert")],
        "shape": (20, 30, 1),
        "dtype": "uint8",
        "core": (0, 0, 20, 30),
        "lease_s": 30.0,
        "pixels": memoryview(PIXELS.tobytes()),
    }
    return signed(TileTask(**fields | changes))


def pixels_of(result: Result) -> Image:
    check_digest(result)
    return codec.decode(result.pixels, result.codec, result.shape, result.dtype)
