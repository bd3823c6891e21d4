"""`fog-gateway explain`: the stages of a pipeline on an image, and a predicted time."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from fogmqtt.cli.forecast import Forecast, forecast
from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import Tile, TilePlan
from fogmqtt.errors import NoBroker, PlanError
from fogmqtt.gateway.execution.stage_run import MessageLimits, plan_tiles, result_pixel_bytes
from fogmqtt.gateway.jobs.decode import Decoders
from fogmqtt.gateway.jobs.ingest import ingest
from fogmqtt.gateway.jobs.memory_budget import MemoryBudget
from fogmqtt.gateway.jobs.model import JobRequest
from fogmqtt.gateway.jobs.runner import WORKERS_UNKNOWN
from fogmqtt.images.source import as_array
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.pipeline import Stage, format_pipeline
from fogmqtt.transport.probe import is_listening, is_local, own_url


def explain(
    config: GatewayConfig, text: str, image_path: Path, plan: TilePlan, console: Console
) -> int:
    """Print the stages of a pipeline on this image, and a prediction for the present fleet.

    Returns the exit code. Without a broker there is no prediction. Raises PipelineError, ImageError
    and OperatorError.
    """
    request = JobRequest(name=image_path.name, pipeline=text, path=image_path, pages="first")
    with Decoders() as decoders:
        job = ingest(request, config.limits, decoders, MemoryBudget().reservation())
    (page,) = job.pages
    console.print(Text(f"{text.strip()}  on {image_path.name}: {page.image.spec}"), soft_wrap=True)
    prediction = _predict(config, text, as_array(page.image), plan)
    workers = prediction.workers if isinstance(prediction, Forecast) else WORKERS_UNKNOWN
    console.print()
    for number, stage in enumerate(page.stages, 1):
        line = f"stage {number}  {_describe_stage(config, stage, plan, workers)}"
        console.print(Text(line), soft_wrap=True)
    console.print()
    sentence = prediction if isinstance(prediction, str) else prediction.sentence()
    console.print(Text(sentence), soft_wrap=True)
    return 0


def _predict(config: GatewayConfig, text: str, image: Image, plan: TilePlan) -> Forecast | str:
    """Return a forecast, or a sentence that says why there is none."""
    urls = config.broker.urls
    is_alone = all(is_local(url) and not is_listening(url) for url in urls)
    if is_alone and not any(is_listening(own_url(url)) for url in urls[:1]):
        return f"no prediction: nothing listens at {' or '.join(urls)}"
    try:
        return forecast(config, text, image, plan)
    except NoBroker as problem:
        return f"no prediction: {problem}"


def _describe_stage(config: GatewayConfig, stage: Stage, plan: TilePlan, workers: int) -> str:
    if not stage.tiled:
        return f"on the gateway: {format_pipeline(stage.operators)}"
    text = format_pipeline(stage.operators)
    if stage.gateway_operators:
        gateway_operators = format_pipeline(stage.gateway_operators)
        text += f"\n         (the gateway does {gateway_operators} while it cuts)"
    return f"on the devices: {text}\n         {_describe_tiles(config, stage, plan, workers)}"


def _describe_tiles(config: GatewayConfig, stage: Stage, plan: TilePlan, workers: int) -> str:
    limits = MessageLimits(config.wire.max_message_bytes, config.wire.encoding)
    try:
        tiles = plan_tiles(stage, plan, limits.pixel_bytes, workers)
    except PlanError as problem:
        return f"cannot be cut: {problem}"
    outer, core = sum(tile.outer.pixels for tile in tiles), sum(tile.core.pixels for tile in tiles)
    return (
        f"{_count_tiles(tiles)}, halo {stage.halo}, align {stage.align}\n         bytes per pixel: "
        f"{outer / core * stage.sent.pixel_bytes:.2f} out, "
        f"at most {result_pixel_bytes(stage):.2f} back"
    )


def _count_tiles(tiles: tuple[Tile, ...]) -> str:
    core = max((tile.core for tile in tiles), key=lambda rect: rect.pixels)
    return f"{len(tiles)} tile(s) of {core.width}x{core.height}"
