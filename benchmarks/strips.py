"""A strip for each device, all of one width, and no second try: how most begin."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from emulated import Case, Emulated, fault, fleet, image, restore

from fogmqtt.cli.common import link
from fogmqtt.config import BrokerSettings
from fogmqtt.core.geometry import Grid
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.execution import stage_run
from fogmqtt.images.source import ArrayImage
from fogmqtt.images.spec import Spec
from fogmqtt.operators.api import pipeline
from fogmqtt.transport.base import Connected, Received
from fogmqtt.transport.paho import PahoTransport
from fogmqtt.wire.messages import Accepted, Decoder, Failure, FromDevice, Rejected, Result, encode
from fogmqtt.wire.topics import ONLINE, Topics

TOPICS = Topics()
#: A strip is one message.
LIMITS = stage_run.MessageLimits(1 << 27, "binary")
PATIENCE_S = 120.0

T = TypeVar("T")


def equal_strips(case: Case, rounds: int) -> list[float]:
    """Seconds of each round; none where a device is killed: its strip never comes."""
    if case.fault == "killed":
        return []
    with fleet(case) as there:
        one = Strips(case, there)
        try:
            one.job()  # they load OpenCV
            return [one.faulty_job(case) for _ in range(rounds)]
        finally:
            one.transport.close()


class Strips:
    """Sends the strips, and pastes what comes back."""

    def __init__(self, case: Case, there: Emulated) -> None:
        self.there = there
        self.attempt = 0
        self.arrived: SimpleQueue[object] = SimpleQueue()
        self.decoder: Decoder[FromDevice] = Decoder(Accepted, Result, Failure, Rejected)
        self.transport = PahoTransport(
            link(BrokerSettings(url=there.url), "strips"), self.arrived.put
        )
        self.transport.subscribe(TOPICS.device("+", "status"))
        self.transport.subscribe(TOPICS.gateway("strips", "results/+"))
        self.transport.start()
        self._wait(Connected, lambda _: True)
        for _ in there.devices:
            self._wait(Received, lambda message: message.payload == ONLINE)
        pixels = image(case.pixels)
        (stage,) = pipeline.split_stages(pipeline.parse("invert"), Spec.of(pixels))
        grid = Grid(1, len(there.devices))
        self.run = stage_run.plan_stage(
            "strips",
            stage,
            ArrayImage(pixels),
            ArrayImage(pixels),
            plan=grid,
            limits=LIMITS,
            workers=1,
        )

    def faulty_job(self, case: Case) -> float:
        with fault(case, self.there):
            seconds = self.job()
        restore(case, self.there)
        return seconds

    def job(self) -> float:
        began = now()
        self.attempt += 1
        for index, device in enumerate(self.there.devices):
            task = stage_run.make_task(
                self.run,
                self.run.tile(index),
                attempt=self.attempt,
                gateway="strips",
                lease_s=600.0,
                wire_codec="raw",
            )
            self.transport.publish(TOPICS.device(device, "tiles"), encode(task, "binary"))
        for _ in self.there.devices:
            result = self._result()
            tile = self.run.tile(result.tile)
            self.run.merger.paste(tile, stage_run.decode_result(self.run, tile, result))
        return now() - began

    def _result(self) -> Result:
        while True:
            received = self._wait(Received, lambda message: "/results/" in message.topic)
            said = self.decoder.decode(received.payload)
            assert not isinstance(said, Failure | Rejected), said
            if isinstance(said, Result):
                return said

    def _wait(self, kind: type[T], right: Callable[[T], bool]) -> T:
        while True:
            item = self.arrived.get(timeout=PATIENCE_S)
            if isinstance(item, kind) and right(item):
                return item
