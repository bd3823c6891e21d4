"""Predicts the time of a job on the fleet that is online, from a sample of its image."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from fogmqtt.cli.async_program import run_async
from fogmqtt.cli.discovery import wait_for_devices
from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import Auto, TilePlan
from fogmqtt.errors import JobFailed
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.events import JobEnded, JobNoticed
from fogmqtt.gateway.execution.cost_model import compare_times
from fogmqtt.gateway.jobs.model import JobRequest
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.pipeline import parse, run_whole
from fogmqtt.setup.brokers import connector, one_off_id

#: The size of the sample: every device gets tiles, and it takes little time.
SAMPLE_PIXELS = 2_000_000


@dataclass(frozen=True, slots=True)
class Forecast:
    """Predicted seconds for the whole image, by the fleet and by this machine alone."""

    devices: tuple[str, ...]
    workers: int
    fleet_s: float
    alone_s: float
    sample_pixels: int

    def sentence(self) -> str:
        """Return the forecast as text for users."""
        gain = "the fleet does not make it faster"
        if self.fleet_s < self.alone_s:
            gain = compare_times(self.fleet_s, self.alone_s)
        by = f"{len(self.devices)} device(s), {self.workers} worker(s): {', '.join(self.devices)}"
        return (
            f"predicted with {by}: {self.fleet_s:.2f} s\n"
            f"on this machine alone: {self.alone_s:.2f} s; {gain}\n"
            f"(measured on {self.sample_pixels / 1e6:.1f} MP of it, without reading and writing "
            "files)"
        )


def forecast(config: GatewayConfig, pipeline: str, image: Image, tiles: TilePlan) -> Forecast | str:
    """Measure a sample; return a sentence if no device is online.

    Raises NoBroker, and JobFailed if the sample cannot be processed.
    """
    return run_async(_forecast(config, pipeline, image, tiles))


async def _forecast(
    config: GatewayConfig, pipeline: str, image: Image, tiles: TilePlan
) -> Forecast | str:
    gateway_id = one_off_id(config)
    config = replace(config, gateway=replace(config.gateway, local="never"))
    async with Gateway(
        config,
        gateway_id,
        connector(config, gateway_id),
        publishes_jobs=False,  # nobody asked for the jobs of the sample
        broker_within_s=config.broker.connect_timeout_s,
    ) as gateway:
        await wait_for_devices(gateway)
        if not gateway.online():
            return "no prediction: no device is online; start one: fog-device --id eya"
        return await _measure(gateway, pipeline, image, tiles)


async def _measure(gateway: Gateway, pipeline: str, image: Image, tiles: TilePlan) -> Forecast:
    height, width = image.shape[:2]
    rows = min(height, max(1, SAMPLE_PIXELS // width))
    sample, quarter = image[:rows], image[: max(1, rows // 4)]

    async def seconds(part: Image) -> float:
        # A plan for the whole image may not fit a part of it.
        plan = tiles if rows == height and part is sample else Auto()
        return await _run_job(gateway, pipeline, part, plan)

    await seconds(quarter)  # idle devices load OpenCV now
    quarter_s, sample_s = await seconds(quarter), await seconds(sample)
    pixel_s = max(0.0, (sample_s - quarter_s) / max(1, (rows - len(quarter)) * width))
    online = [device for device in gateway.devices() if device.online]
    return Forecast(
        tuple(device.id for device in online),
        sum(device.info.workers for device in online),
        sample_s + pixel_s * (height - rows) * width,
        _time_alone(pipeline, sample) * height / rows,
        rows * width,
    )


async def _run_job(gateway: Gateway, pipeline: str, image: Image, tiles: TilePlan) -> float:
    """Run one job and return its seconds. Raises JobFailed if it fails or no device can do it."""
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


def _time_alone(pipeline: str, sample: Image) -> float:
    """Return the seconds of the faster of two runs on this machine."""

    def work() -> None:
        run_whole(parse(pipeline), sample, sample)

    return min(_seconds(work) for _ in range(2))


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
