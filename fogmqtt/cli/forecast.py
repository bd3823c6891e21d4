"""How long a job would take on the fleet that is online: measured on a sample of its image."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from fogmqtt.cli.common import stop_on_signals
from fogmqtt.cli.connect import connector
from fogmqtt.cli.run import run_id
from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import Auto, TilePlan
from fogmqtt.errors import JobFailed
from fogmqtt.gateway.app import SETTLE_S, Gateway
from fogmqtt.gateway.execution.cost_model import verdict
from fogmqtt.gateway.jobs.model import JobRequest, Outcome
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.gateway.loop import now
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.pipeline import parse, run_whole

#: The sample: enough for every device to have tiles, little enough to be waited for.
SAMPLE_PIXELS = 2_000_000


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds for the whole image, by the fleet and by one machine with no wire."""

    devices: tuple[str, ...]
    workers: int
    fleet_s: float
    alone_s: float
    sample_pixels: int

    def sentence(self) -> str:
        """The forecast for people."""
        worth = verdict(self.fleet_s, self.alone_s)
        by = f"{len(self.devices)} device(s), {self.workers} worker(s): {', '.join(self.devices)}"
        return (
            f"predicted with {by}: {self.fleet_s:.2f} s\n"
            f"on this machine alone: {self.alone_s:.2f} s; {worth}\n"
            f"(measured on {self.sample_pixels / 1e6:.1f} MP of it; reading and writing files is "
            "left out)"
        )


def forecast(config: GatewayConfig, pipeline: str, image: Image, tiles: TilePlan) -> Forecast | str:
    """Measure a sample; a sentence where no device is there to be measured.

    Raises NoBroker, and JobFailed where the sample could not be done.
    """
    gateway_id = run_id(config.gateway.id)
    config = replace(config, gateway=replace(config.gateway, local="never"))
    gateway = Gateway(config, gateway_id, connector(config.broker, gateway_id))
    gateway.give_up(without_broker_s=config.broker.connect_timeout_s, timeout_s=None)
    try:
        gateway.transport.start()
        with stop_on_signals(gateway.stop):
            _settle(gateway)
            devices = gateway.roster.present()
            if not devices:
                return "no prediction: no device is online; start one: fog-device --id eya"
            return _measured(gateway, pipeline, image, tiles)
    finally:
        gateway.close()


def _settle(gateway: Gateway) -> None:
    gateway.run(lambda: gateway.connected)
    until = now() + SETTLE_S
    gateway.periodic_tasks.append(lambda _: until)
    gateway.run(lambda: now() >= until)


def _measured(gateway: Gateway, pipeline: str, image: Image, tiles: TilePlan) -> Forecast:
    height, width = image.shape[:2]
    rows = min(height, max(1, SAMPLE_PIXELS // width))
    sample, quarter = image[:rows], image[: max(1, rows // 4)]

    def job(part: Image) -> float:
        # A plan for the whole image need not fit a part of it.
        return _job(gateway, pipeline, part, tiles if rows == height and part is sample else Auto())

    job(quarter)  # whoever was idle loads OpenCV now
    few_s, many_s = job(quarter), job(sample)
    pixel_s = max(0.0, (many_s - few_s) / max(1, (rows - len(quarter)) * width))
    return Forecast(
        gateway.roster.present(),
        gateway.roster.workers(),
        many_s + pixel_s * (height - rows) * width,
        _alone(pipeline, sample) * height / rows,
        rows * width,
    )


def _job(gateway: Gateway, pipeline: str, image: Image, tiles: TilePlan) -> float:
    client = Silent()
    gateway.submit(
        JobRequest(name="the sample", pipeline=pipeline, client=client, image=image, tiles=tiles)
    )
    gateway.run(lambda: client.outcome is not None)
    if client.outcome is None:
        raise KeyboardInterrupt
    if client.outcome.error:
        raise JobFailed(client.outcome.error)
    return client.outcome.report.seconds


def _alone(pipeline: str, sample: Image) -> float:
    def work() -> None:
        run_whole(parse(pipeline), sample, sample)

    return min(_timed(work) for _ in range(2))


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@dataclass(slots=True)
class Silent:
    """A client that only waits for the outcome; without a device it gives up."""

    outcome: Outcome | None = None

    def progress(self, report: Report) -> None:
        del report

    def notice(self, job: str, text: str) -> None:
        raise JobFailed(f"{job}: {text}")

    def deliver(self, outcome: Outcome) -> None:
        del outcome

    def ended(self, outcome: Outcome) -> None:
        self.outcome = outcome
