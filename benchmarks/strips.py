"""A baseline: one strip for each device, all of the same size, without retries."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from emulated import Case, Emulated, fault, fleet, image, restore

from fogmqtt.cli.common import make_link
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
TIMEOUT_S = 120.0

T = TypeVar("T")


def equal_strips(case: Case, rounds: int) -> list[float]:
    """Return the seconds of each round; none if a device is killed, as its strip is lost."""
    if case.fault == "killed":
        return []
    with fleet(case) as devices:
        strips = Strips(case, devices)
        try:
            strips.job()  # the devices load OpenCV
            return [strips.faulty_job(case) for _ in range(rounds)]
        finally:
            strips.transport.close()


class Strips:
    """Sends the strips, and pastes the results."""

    def __init__(self, case: Case, fleet: Emulated) -> None:
        self.fleet = fleet
        self.attempt = 0
        self.arrived: SimpleQueue[object] = SimpleQueue()
        self.decoder: Decoder[FromDevice] = Decoder(Accepted, Result, Failure, Rejected)
        self.transport = PahoTransport(
            make_link(BrokerSettings(url=fleet.url), "strips"), self.arrived.put
        )
        self.transport.subscribe(TOPICS.device("+", "status"))
        self.transport.subscribe(TOPICS.gateway("strips", "results/+"))
        self.transport.start()
        self._wait(Connected, lambda _: True)
        for _ in fleet.devices:
            self._wait(Received, lambda message: message.payload == ONLINE)
        pixels = image(case.pixels)
        (stage,) = pipeline.split_stages(pipeline.parse("invert"), Spec.of(pixels))
        grid = Grid(1, len(fleet.devices))
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
        with fault(case, self.fleet):
            seconds = self.job()
        restore(case, self.fleet)
        return seconds

    def job(self) -> float:
        began = now()
        self.attempt += 1
        for index, device in enumerate(self.fleet.devices):
            task = stage_run.make_task(
                self.run,
                self.run.tile(index),
                attempt=self.attempt,
                gateway="strips",
                lease_s=600.0,
                wire_codec="raw",
            )
            self.transport.publish(TOPICS.device(device, "tiles"), encode(task, "binary"))
        for _ in self.fleet.devices:
            result = self._result()
            tile = self.run.tile(result.tile)
            self.run.merger.paste(tile, stage_run.decode_result(self.run, tile, result))
        return now() - began

    def _result(self) -> Result:
        while True:
            received = self._wait(Received, lambda message: "/results/" in message.topic)
            message = self.decoder.decode(received.payload)
            assert not isinstance(message, Failure | Rejected), message
            if isinstance(message, Result):
                return message

    def _wait(self, kind: type[T], accepts: Callable[[T], bool]) -> T:
        while True:
            item = self.arrived.get(timeout=TIMEOUT_S)
            if isinstance(item, kind) and accepts(item):
                return item
