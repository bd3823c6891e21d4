"""A gateway in the test's own event loop, with devices that the test plays itself.

The broker is in memory, the devices are a few lines each, and nothing starts a process unless the
test asks for the gateway's own cores.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import Grid, TilePlan
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.jobs.model import JobRequest
from fogmqtt.images.spec import Image
from fogmqtt.operators.api import registry
from fogmqtt.transport.base import Deliver, Received, Transport, Will
from fogmqtt.transport.memory import MemoryBroker, MemoryTransport
from fogmqtt.wire.messages import (
    Accepted,
    Decoder,
    DeviceInfo,
    Failure,
    Result,
    TileTask,
    encode,
    with_digest,
)
from fogmqtt.wire.topics import OFFLINE, ONLINE, Topics
from fogmqtt.workers.process import compute

TOPICS = Topics()
PHOTO = np.random.default_rng(7).integers(0, 256, (96, 128), np.uint8)


def config(**gateway: Any) -> GatewayConfig:
    """A configuration that takes devices at their word and leaves all work to them."""
    made = GatewayConfig(exact=False)
    settings = {"local": "never", "local_after": 0.2, "inbox": "", "outbox": "", "spool": ""}
    return replace(made, gateway=replace(made.gateway, **{**settings, **gateway}))


def request(
    name: str = "photo", pipeline: str = "invert", plan: TilePlan | None = None, **more: Any
) -> JobRequest:
    fields = {"image": PHOTO, "tiles": plan or Grid(2, 2), **more}
    return JobRequest(name, pipeline, **fields)


@dataclass
class PlayedDevice:
    """A device whose answers the test decides: by default it does its tiles at once."""

    broker: MemoryBroker
    id: str
    #: Called with each task; returns what is published for it, in order.
    answer: Callable[[TileTask], Sequence[Accepted | Failure | Result]] = field(
        default_factory=lambda: do_at_once
    )
    codecs: tuple[str, ...] = ("raw", "png", "bitplanes")
    tasks: list[TileTask] = field(default_factory=list)
    control: list[bytes] = field(default_factory=list)

    def start(self) -> None:
        self._decoder = Decoder(TileTask)
        will = Will(TOPICS.device(self.id, "status"), OFFLINE)
        self._link = MemoryTransport(self.broker, self.id, self._hear, will=will)
        self._link.subscribe(TOPICS.device(self.id, "tiles"))
        self._link.subscribe(TOPICS.device(self.id, "control"))
        self._link.start()
        info = DeviceInfo(
            boot=f"boot of {self.id}",
            sequence=1,
            uptime_s=1.0,
            workers=2,
            operators=list(registry.names()),
            codecs=list(self.codecs),
        )
        self._link.publish(TOPICS.device(self.id, "info"), encode(info, "base64"), retain=True)
        self._link.publish(TOPICS.device(self.id, "status"), ONLINE, retain=True)

    def publish(self, task: TileTask, *answers: Accepted | Failure | Result) -> None:
        topic = TOPICS.results(task.gateway, self.id)
        for one in answers:
            self._link.publish(topic, encode(one, "binary"))

    def leave(self) -> None:
        """Vanish: the broker publishes its last will."""
        self._link.kill()

    def _hear(self, event: object) -> None:
        if not isinstance(event, Received):
            return
        if event.topic.endswith("control"):
            self.control.append(event.payload)
            return
        task = self._decoder.decode(event.payload)
        self.tasks.append(task)
        self.publish(task, *self.answer(task))


def accepted(task: TileTask) -> Accepted:
    return Accepted(job=task.job, tile=task.tile, attempt=task.attempt)


def result(task: TileTask) -> Result:
    """What a device sends for a tile that it has done."""
    encoded = compute(task)
    return with_digest(
        Result(
            job=task.job,
            tile=task.tile,
            attempt=task.attempt,
            shape=encoded.shape,
            dtype=encoded.dtype,  # type: ignore[arg-type]
            codec=encoded.codec,
            pixels=memoryview(bytes(encoded.data)),
            compute_s=0.001,
        )
    )


def do_at_once(task: TileTask) -> list[Accepted | Result]:
    return [accepted(task), result(task)]


def do_nothing(task: TileTask) -> list[Accepted | Result]:
    """Accept a tile and keep it."""
    return [accepted(task)]


@dataclass
class Rig:
    """A broker, and what connects a gateway to it."""

    broker: MemoryBroker = field(default_factory=MemoryBroker)
    links: list[MemoryTransport] = field(default_factory=list)
    #: Takes what the gateway's transport is to deliver, beside what really happens.
    deliver: Deliver | None = None

    def connect(self, deliver: Deliver, will: Will) -> Transport:
        link = MemoryTransport(self.broker, "mariem", deliver, will=will)
        self.links.append(link)
        self.deliver = deliver
        return link

    def gateway(self, made: GatewayConfig | None = None, **options: Any) -> Gateway:
        return Gateway(made or config(), "mariem", self.connect, **options)

    def device(self, name: str = "eya", **options: Any) -> PlayedDevice:
        device = PlayedDevice(self.broker, name, **options)
        device.start()
        return device


def run(test: Coroutine[Any, Any, None], *, within_s: float = 30.0) -> None:
    """Run a test's coroutine; fail if it takes longer."""

    async def bounded() -> None:
        async with asyncio.timeout(within_s):
            await test

    asyncio.run(bounded())


async def eventually(found: Callable[[], object], what: str = "") -> None:
    """Wait until something holds that only other coroutines and threads can bring about."""
    for _ in range(2000):
        if found():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"waited in vain for {what or found}")


def inverted(image: Image = PHOTO) -> Image:
    return 255 - image
