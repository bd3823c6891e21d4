"""What more boards would bring: a job on the live fleet in virtual time, with and without them."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from typing import Final

from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import parse_tile_plan
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.devices.registry import DeviceView
from fogmqtt.gateway.service.fleet_model import model_fleet
from fogmqtt.gateway.service.refusals import RequestRefused
from fogmqtt.images.spec import Spec
from fogmqtt.simulate.fleet import Addition, FleetSpec, extended
from fogmqtt.simulate.outcome import SimulationResult, simulate
from fogmqtt.simulate.work import job_of, tiled_stages
from fogmqtt.wire.service_messages import FleetForecast, ForecastBar, SimulateFleet

#: Tiles that are simulated at most: it takes about a second.
MAX_TILES: Final = 4000
#: The same fleet and job have the same forecast.
_SEED: Final = 1


class Forecasts:
    """Simulates jobs on the live fleet, one at a time, in a thread."""

    def __init__(self, config: GatewayConfig, gateway: Gateway) -> None:
        self._config = config
        self._gateway = gateway
        self._turn = asyncio.Lock()

    async def forecast(self, asked: SimulateFleet) -> FleetForecast:
        """Return a forecast. Raises RequestRefused and FogError."""
        if asked.height * asked.width > self._config.limits.max_pixels:
            raise RequestRefused(
                "too-large",
                f"{asked.height} x {asked.width} pixels are more than limits.max_pixels allows",
                limit=self._config.limits.max_pixels,
            )
        views = self._gateway.devices()
        async with self._turn:
            work = lambda: _forecast(self._config, asked, views)  # noqa: E731
            return await self._gateway.threads.apart(work, "forecast")


def _forecast(
    config: GatewayConfig, asked: SimulateFleet, views: Sequence[DeviceView]
) -> FleetForecast:
    text = asked.pipeline or config.pipeline
    stages = tiled_stages(config.chosen(text).text, Spec(asked.height, asked.width, asked.channels))
    if not stages:
        raise RequestRefused("invalid", "no part of this pipeline is done by devices")
    fleet = model_fleet(views, stages, exact=config.exact).fleet
    like = asked.like or _median(fleet)
    if like not in {device.id for device in fleet.devices}:
        raise RequestRefused("invalid", f"no device {like[:48]!r} that can do this is online")
    larger = extended(fleet, [Addition(asked.more, like)] if asked.more else [])
    limit = config.wire.max_message_bytes
    if config.wire.encoding == "base64":
        limit = limit * 3 // 4

    def run(fleet: FleetSpec) -> SimulationResult:
        job = job_of("job", stages, parse_tile_plan(config.tiles), fleet, limit)
        if job.tiles > MAX_TILES:
            raise RequestRefused(
                "too-large", f"{job.tiles} tiles are too many to simulate", limit=MAX_TILES
            )
        return simulate(fleet, [job], _SEED, policy=config.policy())

    before = run(fleet)
    after = run(larger) if asked.more else before
    rows = [(device.id, worker) for device in larger.devices for worker in range(device.workers)]
    places = {row: index for index, row in enumerate(rows)}
    return FleetForecast(
        id=asked.id,
        seconds=round(before.makespan_s, 3),
        seconds_with_more=round(after.makespan_s, 3),
        sentence=_sentence(asked.more, like, before, after),
        rows=[f"{device} {worker + 1}" for device, worker in rows],
        bars=[
            ForecastBar(
                places[span.device, span.worker],
                round(span.begin_s, 4),
                round(min(span.end_s, after.makespan_s), 4),
                span.tile,
            )
            for span in after.record.spans
        ],
    )


def _median(fleet: FleetSpec) -> str:
    """Return the device in the middle of all, by speed."""
    speeds = {device.id: device.speed * device.workers for device in fleet.devices}
    middle = statistics.median_low(speeds.values())
    return next(device for device, speed in speeds.items() if speed == middle)


def _sentence(more: int, like: str, before: SimulationResult, after: SimulationResult) -> str:
    now_s, then_s = before.makespan_s, after.makespan_s
    if not more:
        return f"The fleet as it is would need {now_s:.2f} s."
    boards = f"{more} more board{'s' if more > 1 else ''} like {like}"
    if then_s >= 0.98 * now_s:
        return f"{boards} would bring nothing: {then_s:.2f} s instead of {now_s:.2f} s."
    return f"{boards}: {then_s:.2f} s instead of {now_s:.2f} s, {now_s / then_s:.2f} times as fast."
