"""`fog-gateway run`: one-off jobs with the fleet that is online."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fogmqtt.cli.common import stop_on_signals
from fogmqtt.cli.connect import broker_at_hand, connector
from fogmqtt.cli.progress import Display, display
from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import TilePlan
from fogmqtt.errors import ImageError, JobFailed, UsageError
from fogmqtt.gateway.jobs import JobRequest, Outcome, Report
from fogmqtt.gateway.service import Gateway
from fogmqtt.images import files
from fogmqtt.operators.pipeline import parse, parse_post


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line asked for."""

    images: tuple[Path, ...]
    out: Path
    pipeline: str
    tiles: TilePlan
    post: str = ""
    verify: bool = False
    timeout_s: float | None = None
    report: Path | None = None
    #: It was written with a slash at its end.
    out_is_folder: bool = False


@dataclass(slots=True)
class Customer:
    """Whoever typed the command: shows progress, writes the file, keeps the outcome."""

    out: Path
    shown: Display
    outcome: Outcome | None = None

    def progress(self, report: Report) -> None:
        self.shown.update(report)

    def notice(self, job: str, text: str) -> None:
        del job
        self.shown.say(text)

    def deliver(self, outcome: Outcome) -> None:
        if outcome.image is not None:
            files.write(self.out, outcome.image)
        if outcome.difference is not None:
            files.write(self.out.with_suffix(".differ.png"), outcome.difference)

    def ended(self, outcome: Outcome) -> None:
        self.outcome = outcome


def run(config: GatewayConfig, options: RunOptions, console: Console) -> list[Outcome]:
    """Do the jobs; one outcome per image, in their order.

    Raises UsageError before anything is sent, NoBroker where there is none, and JobFailed, after
    every job ended, where one did not give its result.
    """
    outputs = output_paths(options)
    parse(options.pipeline)  # a typing error needs no broker to be found
    parse_post(options.post)
    with broker_at_hand(config):
        shown = display(console)
        try:
            outcomes = do_jobs(config, run_id(config.gateway.id), options, outputs, shown)
        finally:
            shown.close()
    if options.report:
        write_report(options.report, outcomes)
    errors = [outcome.error for outcome in outcomes if outcome.error]
    if errors:
        raise JobFailed("\n".join(errors))
    return outcomes


def do_jobs(
    config: GatewayConfig,
    gateway_id: str,
    options: RunOptions,
    outputs: list[Path],
    shown: Display,
) -> list[Outcome]:
    """Run a gateway until the last job ended."""
    gateway = Gateway(config, gateway_id, connector(config.broker, gateway_id))
    customers = [Customer(out, shown) for out in outputs]
    try:
        for path, customer in zip(options.images, customers, strict=True):
            gateway.submit(_request(path, customer, options))
        gateway.give_up(
            without_broker_s=config.broker.connect_timeout_s, timeout_s=options.timeout_s
        )
        gateway.transport.start()
        with stop_on_signals(gateway.stop):
            gateway.run(lambda: gateway.conductor.idle)
    finally:
        gateway.close()
    ended = [customer.outcome for customer in customers if customer.outcome]
    if len(ended) < len(customers):
        raise KeyboardInterrupt
    return ended


def _request(path: Path, customer: Customer, options: RunOptions) -> JobRequest:
    return JobRequest(
        name=path.name,
        pipeline=options.pipeline,
        client=customer,
        path=path,
        tiles=options.tiles,
        post=options.post,
        verify=options.verify,
    )


def run_id(gateway: str) -> str:
    """An id of its own for a one-off gateway, within the length of an id."""
    return f"{gateway[:23]}-run-{secrets.token_hex(2)}"


def output_paths(options: RunOptions) -> list[Path]:
    """Where each result goes, each to a name of its own. Raises UsageError where that cannot be."""
    if options.report and not options.report.absolute().parent.is_dir():
        raise UsageError(f"--report {options.report}: there is no such folder; make it first")
    paths = _in_folder(options) if _is_folder(options) else [_single(options.out)]
    images = {path.resolve() for path in options.images}
    for path in paths:
        if path.resolve() in images:
            raise UsageError(f"-o {options.out}: {path} is one of the images; results go elsewhere")
    return paths


def _is_folder(options: RunOptions) -> bool:
    return len(options.images) > 1 or options.out.is_dir() or options.out_is_folder


def _in_folder(options: RunOptions) -> list[Path]:
    out = options.out
    if out.exists() and not out.is_dir():
        raise UsageError(f"-o {out}: several images need a folder, and this is a file")
    out.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    for image in options.images:
        name, number = image.stem, 1
        while name in names:
            number += 1
            name = f"{image.stem}-{number}"
        names.append(name)
    return [out / f"{name}.png" for name in names]


def _single(out: Path) -> Path:
    try:
        files.check_suffix(out)
    except ImageError as problem:
        raise UsageError(f"-o {out}: {problem}") from None
    if not out.absolute().parent.is_dir():
        raise UsageError(f"-o {out}: there is no folder {out.parent}; make it first")
    return out


def write_report(path: Path, outcomes: list[Outcome]) -> None:
    """One object for one image, a list for several."""
    reports = [outcome.report.as_json() for outcome in outcomes]
    text = json.dumps(reports[0] if len(reports) == 1 else reports, indent=2)
    path.write_text(f"{text}\n", encoding="utf-8")
