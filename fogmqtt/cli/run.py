"""`fog-gateway run`: one-off jobs with the fleet that is online."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from fogmqtt.cli.async_program import run_async
from fogmqtt.cli.connect import broker_at_hand, connector
from fogmqtt.cli.outputs import Outputs, outputs
from fogmqtt.cli.progress import Display, display
from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import TilePlan
from fogmqtt.errors import UsageError
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.broker_link import Connect
from fogmqtt.gateway.events import GatewayEvent, JobNoticed, JobProgressed
from fogmqtt.gateway.jobs.model import JobRequest, Outcome
from fogmqtt.operators.api.pipeline import parse, parse_post


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line asked for."""

    images: tuple[Path, ...]
    #: A file, a folder, or None for neither: facts are printed then, and pictures not kept.
    out: str | None
    pipeline: str
    tiles: TilePlan
    post: str = ""
    verify: bool = False
    priority: int = 0
    timeout_s: float | None = None
    report: Path | None = None


def run(config: GatewayConfig, options: RunOptions, console: Console) -> list[Outcome]:
    """Do the jobs; one outcome per image, in their order, with `error` where one failed.

    Raises UsageError before anything is sent, and NoBroker where there is none.
    """
    # Whatever can be refused needs no broker to be found.
    measures = parse(options.pipeline)[-1].measures
    parse_post(options.post)
    if options.report and not options.report.absolute().parent.is_dir():
        raise UsageError(f"--report {options.report}: there is no such folder; make it first")
    if options.out is None and not measures and not options.verify:
        raise UsageError("-o is missing: name a file for the result, such as -o result.png")
    found = outputs(options.images, options.out, measures=measures)
    with broker_at_hand(config) as own:
        shown = display(console)
        try:
            gateway_id = run_id(config.gateway.id)
            connect = connector(config.broker, gateway_id, own)
            outcomes = run_async(do_jobs(config, gateway_id, connect, options, found, shown))
        finally:
            shown.close()
    if options.report:
        write_report(options.report, outcomes)
    return [_pointed(*pair) for pair in zip(outcomes, found, strict=True)]


def _pointed(outcome: Outcome, files: Outputs) -> Outcome:
    """The outcome, its error saying where the difference can be seen."""
    if outcome.difference is None:
        return outcome
    return replace(outcome, error=f"{outcome.error}; see {files.differ}")


async def do_jobs(
    config: GatewayConfig,
    gateway_id: str,
    connect: Connect,
    options: RunOptions,
    found: list[Outputs],
    shown: Display,
) -> list[Outcome]:
    """Run a gateway until the last job ended."""
    async with Gateway(
        config,
        gateway_id,
        connect,
        broker_within_s=config.broker.connect_timeout_s,
    ) as gateway:
        gateway.listen("terminal", partial(show_event, shown))
        requests = [_request(*pair, options) for pair in zip(options.images, found, strict=True)]
        handles = [gateway.submit(request) for request in requests]
        return [await handle.outcome() for handle in handles]


def show_event(shown: Display, event: GatewayEvent) -> None:
    """Show what happens to jobs."""
    match event:
        case JobProgressed(report):
            shown.update(report)
        case JobNoticed(_, text):
            shown.say(text)
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
    """An id of its own for a one-off gateway, within the length of an id."""
    return f"{gateway[:23]}-run-{secrets.token_hex(2)}"


def write_report(path: Path, outcomes: list[Outcome]) -> None:
    """One object for one image, a list for several."""
    reports = [{**outcome.report.as_json(), "error": outcome.error} for outcome in outcomes]
    text = json.dumps(reports[0] if len(reports) == 1 else reports, indent=2)
    path.write_text(f"{text}\n", encoding="utf-8")
