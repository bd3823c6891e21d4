"""An agent on a thread, with a transport whose other end is the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest

from fogmqtt.agent.service import Agent, AgentSettings, UpdaterFactory
from fogmqtt.conformance.report import ConformanceReport, OperatorReport
from fogmqtt.conformance.runner import ConformanceRunner
from fogmqtt.core.device_queue import TileKey
from fogmqtt.core.geometry import Rect
from fogmqtt.errors import NotConnected, TooLarge
from fogmqtt.images import codec
from fogmqtt.images.spec import Image
from fogmqtt.transport.base import (
    NO_PROPERTIES,
    Connected,
    Deliver,
    Disconnected,
    MessageProperties,
    Payload,
    Received,
    Will,
    join_payload,
)
from fogmqtt.wire.messages import (
    Accepted,
    Call,
    Decoder,
    DeviceInfo,
    Encoding,
    Failure,
    FromDevice,
    Overdue,
    Rejected,
    Result,
    TileTask,
    check_digest,
    encode,
    with_digest,
)
from fogmqtt.workers.memories import TileMemories
from fogmqtt.workers.memory_limit import MemoryLimit
from fogmqtt.workers.pool import Pool
from fogmqtt.workers.process import WorkerDone, run_task
from fogmqtt.workers.work import TileOutput, WorkFailed, WorkFinished

TILES = "fog/v1/devices/eya/tiles"
CONTROL = "fog/v1/devices/eya/control"
INFO = "fog/v1/devices/eya/info"
STATUS = "fog/v1/devices/eya/status"
RESULTS = "fog/v1/gateways/mariem/results/eya"


@dataclass
class Link:
    """A transport that records what is published. The test acts as the broker."""

    deliver: Deliver
    will: Will
    linked: bool = False
    limit: int = 10_000_000
    closed: bool = False
    filters: list[str] = field(default_factory=list)
    published: list[tuple[str, bytes, bool]] = field(default_factory=list)
    #: What `Published` must name when the broker has a message.
    tokens: list[object] = field(default_factory=list)
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
        payload: Payload,
        *,
        qos: int = 1,
        retain: bool = False,
        expires_s: float | None = None,
        content_type: str | None = None,
        properties: MessageProperties = NO_PROPERTIES,
        token: object = None,
    ) -> None:
        if not self.linked:
            raise NotConnected("no link")
        payload = join_payload(payload)
        if len(payload) > self.limit:
            raise TooLarge(f"{len(payload)} bytes, the limit is {self.limit}")
        with self._changed:
            if token is not None:
                self.tokens.append(token)
            self.published.append((topic, payload, retain))
            self._changed.notify_all()

    def close(self) -> None:
        self.closed = True

    def wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, 10), self.replies()

    def replies(self, topic: str = RESULTS) -> list[FromDevice]:
        decoder: Decoder[FromDevice] = Decoder(Accepted, Result, Failure, Rejected, Overdue)
        return [
            decoder.decode(payload)
            for published, payload, _ in self.published
            if published == topic
        ]

    def of(self, kind: type[Any]) -> list[Any]:
        return [reply for reply in self.replies() if isinstance(reply, kind)]

    def infos(self) -> list[DeviceInfo]:
        decoder = Decoder(DeviceInfo)
        return [decoder.decode(payload) for topic, payload, _ in self.published if topic == INFO]


class ThreadPool(Pool[TileKey]):
    """Workers without processes, so that a test can replace operators. They cannot be ended."""

    hanging = 0

    def __init__(
        self, settings: AgentSettings, finished: Callable[[WorkFinished[TileKey]], None]
    ) -> None:
        self.size = settings.workers
        self.is_warm = threading.Event()
        self.is_prepared = threading.Event()
        self._finished = finished
        self._memories = TileMemories(0)

    def warm(self) -> None:
        self.is_warm.set()

    def prepare(self) -> None:
        self.is_prepared.set()

    def learn(self, abilities: object, rates: object) -> None: ...

    def is_idle(self, number: int) -> bool:
        return True

    def start(
        self,
        key: TileKey,
        task: TileTask,
        *,
        received_at: float,
        deadline: float,
        number: int | None = None,
    ) -> None:
        threading.Thread(target=self._do, args=(key, task), daemon=True).start()

    def look(self, now: float) -> float:
        return float("inf")

    def renew(self, key: TileKey, deadline: float) -> None: ...
    def cancel(self, key: TileKey) -> None: ...
    def close(self) -> None: ...

    def _do(self, key: TileKey, task: TileTask) -> None:
        reply, data = run_task(task, MemoryLimit(0), self._memories)
        if isinstance(reply, WorkerDone):
            output = TileOutput(memoryview(data), reply.shape, reply.dtype, reply.codec)
            self._finished(WorkFinished(key, output, 0.0, reply.compute_s))
        else:
            failure = WorkFailed(reply.reason, reply.traceback, reply.have)
            self._finished(WorkFinished(key, failure, 0.0, 0.0))


REPORT = ConformanceReport(
    {"invert": OperatorReport("invert", "fogmqtt", "1", {"invert/uint8": "abc"}, 1.5)},
    versions={"opencv": "5.0.0", "machine": "x86_64"},
)


class KnownConformance(ConformanceRunner):
    """The conformance report is known from an earlier start."""

    def cached(self) -> ConformanceReport:
        return REPORT


class PendingConformance(ConformanceRunner):
    """The conformance report is known when the test delivers it."""

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
    #: Set when the agent warms its pool.
    is_warm: threading.Event = field(default_factory=threading.Event)
    #: Set when the agent starts the processes of its pool.
    is_prepared: threading.Event = field(default_factory=threading.Event)

    def tile(self, task: TileTask, encoding: Encoding = "binary") -> None:
        self.link.deliver(Received(TILES, encode(task, encoding)))

    def join(self) -> None:
        self.thread.join(10)
        assert not self.thread.is_alive()


def run_in_thread(agent: Agent, link: Link) -> Rig:
    """Run the agent on a thread of its own."""
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
def running_agent(
    workers: int = 1,
    checkin_s: float = 60.0,
    limit: int = 10_000_000,
    conformance_runner: type[ConformanceRunner] = KnownConformance,
    make_updater: UpdaterFactory | None = None,
) -> Iterator[Rig]:
    """An agent that has published `online`. It is stopped at the end."""
    links: list[Link] = []

    def connect(deliver: Deliver, will: Will) -> Link:
        links.append(Link(deliver, will, limit=limit))
        return links[0]

    settings = AgentSettings("eya", workers, ("mqtt://here",), checkin_s=checkin_s)
    pools: list[ThreadPool] = []

    def make_pool(
        settings: AgentSettings, finished: Callable[[WorkFinished[TileKey]], None]
    ) -> ThreadPool:
        pools.append(ThreadPool(settings, finished))
        return pools[0]

    agent = Agent(settings, connect, make_pool, conformance_runner, make_updater=make_updater)
    rig = run_in_thread(agent, links[0])
    rig.is_warm, rig.is_prepared = pools[0].is_warm, pools[0].is_prepared
    rig.link.wait(lambda: bool(rig.link.published) and rig.link.published[-1][0] == STATUS)
    try:
        yield rig
    finally:
        unblock.set()
        agent.stop()
        rig.join()


unblock = threading.Event()


def block_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every tile run until `unblock` is set."""

    def run_tile(operators: object, pixels: Image, core: Rect, seams: object) -> Image:
        assert unblock.wait(10)
        return pixels[core.slices].copy()

    unblock.clear()
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
    return with_digest(TileTask(**fields | changes))


def pixels_of(result: Result) -> Image:
    check_digest(result)
    return codec.decode(result.pixels, result.codec, result.shape, result.dtype)
