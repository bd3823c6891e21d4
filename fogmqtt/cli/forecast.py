"""How long a job would take on the fleet that is online: measured on a sample of its image."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from fogmqtt.cli.async_program import run_async
from fogmqtt.cli.connect import connector
from fogmqtt.cli.run import run_id
from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import Auto, TilePlan
from fogmqtt.errors import JobFailed
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.events import JobEnded, JobNoticed
from fogmqtt.gateway.execution.cost_model import compare_times
from fogmqtt.gateway.jobs.model import JobRequest
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
        gain = compare_times(self.fleet_s, self.alone_s)
        by = f"{len(self.devices)} device(s), {self.workers} worker(s): {', '.join(self.devices)}"
        return (
            f"predicted with {by}: {self.fleet_s:.2f} s\n"
            f"on this machine alone: {self.alone_s:.2f} s; {gain}\n"
            f"(measured on {self.sample_pixels / 1e6:.1f} MP of it; reading and writing files is "
            "left out)"
        )


def forecast(config: GatewayConfig, pipeline: str, image: Image, tiles: TilePlan) -> Forecast | str:
    """Measure a sample; a sentence where no device is there to be measured.

    Raises NoBroker, and JobFailed where the sample could not be done.
    """
    return run_async(_forecast(config, pipeline, image, tiles))


async def _forecast(
    config: GatewayConfig, pipeline: str, image: Image, tiles: TilePlan
) -> Forecast | str:
    gateway_id = run_id(config.gateway.id)
    config = replace(config, gateway=replace(config.gateway, local="never"))
    async with Gateway(
        config,
        gateway_id,
        connector(config.broker, gateway_id),
        broker_within_s=config.broker.connect_timeout_s,
    ) as gateway:
        await gateway.link.up()
        await gateway.settled()
        if not gateway.online():
            return "no prediction: no device is online; start one: fog-device --id eya"
        return await _measured(gateway, pipeline, image, tiles)


async def _measured(gateway: Gateway, pipeline: str, image: Image, tiles: TilePlan) -> Forecast:
    height, width = image.shape[:2]
    rows = min(height, max(1, SAMPLE_PIXELS // width))
    sample, quarter = image[:rows], image[: max(1, rows // 4)]

    async def job(part: Image) -> float:
        # A plan for the whole image need not fit a part of it.
        plan = tiles if rows == height and part is sample else Auto()
        return await _job(gateway, pipeline, part, plan)

    await job(quarter)  # devices that were idle load OpenCV now
    few_s, many_s = await job(quarter), await job(sample)
    pixel_s = max(0.0, (many_s - few_s) / max(1, (rows - len(quarter)) * width))
    online = [device for device in gateway.devices() if device.online]
    return Forecast(
        tuple(device.id for device in online),
        sum(device.info.workers for device in online),
        many_s + pixel_s * (height - rows) * width,
        _alone(pipeline, sample) * height / rows,
        rows * width,
    )


async def _job(gateway: Gateway, pipeline: str, image: Image, tiles: TilePlan) -> float:
    """Seconds for one job. Raises JobFailed if it fails, or if no device can do it."""
    with gateway.events("forecast") as events:
        handle = gateway.submit(
            JobRequest(name="the sample", pipeline=pipeline, image=image, tiles=tiles)
        )
        async for event in events:
            match event:
                case JobNoticed(report, text) if report.job == handle.id:
                    handle.cancel(text)
                case JobEnded(report) if report.job == handle.id:
                    break
                case _:
                    pass
    outcome = await handle.outcome()
    if outcome.error:
        raise JobFailed(outcome.error)
    return outcome.report.seconds


def _alone(pipeline: str, sample: Image) -> float:
    def work() -> None:
        run_whole(parse(pipeline), sample, sample)

    return min(_timed(work) for _ in range(2))


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
