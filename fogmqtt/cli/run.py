"""`fog-gateway run`: processes images with the devices that are online."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from fogmqtt.cli.async_program import run_async
from fogmqtt.cli.connect import connector, embedded_broker
from fogmqtt.cli.outputs import Outputs, plan_outputs
from fogmqtt.cli.progress import Display, open_display
from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import TilePlan
from fogmqtt.errors import UsageError
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.broker_link import Connect
from fogmqtt.gateway.events import GatewayEvent, JobNoticed, JobProgressed
from fogmqtt.gateway.jobs.decode import Decoders
from fogmqtt.gateway.jobs.model import JobRequest, Outcome
from fogmqtt.operators.api.pipeline import parse, parse_post


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of the command."""

    images: tuple[Path, ...]
    #: A file, a folder, or None. With None, facts are printed and images are not written.
    out: str | None
    pipeline: str
    tiles: TilePlan
    post: str = ""
    verify: bool = False
    priority: int = 0
    timeout_s: float | None = None
    report: Path | None = None


def run(config: GatewayConfig, options: RunOptions, decoders: Decoders) -> list[Outcome]:
    """Run the jobs, and return one outcome for each image, in their order.

    Raises UsageError, PipelineError and OperatorError before anything is sent, and NoBroker.
    """
    # All checks of the options come before the search for a broker.
    measures = parse(options.pipeline)[-1].measures
    parse_post(options.post)
    if options.report and not options.report.absolute().parent.is_dir():
        raise UsageError(f"--report {options.report}: there is no such folder; make it first")
    if options.out is None and not measures and not options.verify:
        raise UsageError("-o is missing: name a file for the result, such as -o result.png")
    outputs = plan_outputs(options.images, options.out, measures=measures)
    with embedded_broker(config) as broker:
        display = open_display()
        try:
            gateway_id = run_id(config.gateway.id)
            connect = connector(config.broker, gateway_id, broker)
            outcomes = run_async(
                run_jobs(config, gateway_id, connect, decoders, options, outputs, display)
            )
        finally:
            display.close()
    if options.report:
        write_report(options.report, outcomes)
    return [_name_difference(*pair) for pair in zip(outcomes, outputs, strict=True)]


def _name_difference(outcome: Outcome, outputs: Outputs) -> Outcome:
    """Add the file that shows the difference to the error of an outcome."""
    if outcome.difference is None:
        return outcome
    return replace(outcome, error=f"{outcome.error}; see {outputs.differ}")


async def run_jobs(
    config: GatewayConfig,
    gateway_id: str,
    connect: Connect,
    decoders: Decoders,
    options: RunOptions,
    outputs: list[Outputs],
    display: Display,
) -> list[Outcome]:
    """Run a gateway until all jobs have ended."""
    async with Gateway(
        config,
        gateway_id,
        connect,
        broker_within_s=config.broker.connect_timeout_s,
        decoders=decoders,
    ) as gateway:
        gateway.listen("terminal", partial(show_event, display))
        requests = [_request(*pair, options) for pair in zip(options.images, outputs, strict=True)]
        handles = [gateway.submit(request) for request in requests]
        return [await handle.outcome() for handle in handles]


def show_event(display: Display, event: GatewayEvent) -> None:
    """Show progress and notices of jobs."""
    match event:
        case JobProgressed(report):
            display.update(report)
        case JobNoticed(_, text):
            display.print_line(text)
        case _:
            pass


def _request(path: Path, outputs: Outputs, options: RunOptions) -> JobRequest:
    return JobRequest(
        name=path.name,
        pipeline=options.pipeline,
        path=path,
        tiles=options.tiles,
        post=options.post,
        verify=options.verify,
        priority=options.priority,
        timeout_s=options.timeout_s,
        deliver=outputs.write,
    )


def run_id(gateway: str) -> str:
    """Return a random id for a one-off gateway, within the length of an id."""
    return f"{gateway[:23]}-run-{secrets.token_hex(2)}"


def write_report(path: Path, outcomes: list[Outcome]) -> None:
    """Write the reports as JSON: one object for one image, a list for several."""
    reports = [{**outcome.report.as_json(), "error": outcome.error} for outcome in outcomes]
    text = json.dumps(reports[0] if len(reports) == 1 else reports, indent=2)
    path.write_text(f"{text}\n", encoding="utf-8")
