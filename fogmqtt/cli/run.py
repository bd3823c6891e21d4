"""`fog-gateway run`: processes images with the devices that are online.

The images may be thousands: only a few are submitted ahead of the oldest that has not ended, and
the pixels of an image are released when its result is written.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

from msgspec import Struct

from fogmqtt.cli.async_program import run_async
from fogmqtt.cli.outputs import Outputs, plan_outputs
from fogmqtt.cli.progress import Display, open_display
from fogmqtt.cli.signals import noted_signals
from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import TilePlan
from fogmqtt.errors import NoBroker, UsageError
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.broker_link import Connect
from fogmqtt.gateway.events import GatewayEvent, JobEnded, JobNoticed, JobProgressed
from fogmqtt.gateway.execution.cost_model import CANNOT_HELP
from fogmqtt.gateway.jobs.decode import Decoders
from fogmqtt.gateway.jobs.model import JobRequest, Outcome
from fogmqtt.gateway.jobs.report import Report, format_differences
from fogmqtt.gateway.jobs.trace_file import trace_file
from fogmqtt.gateway.jobs.trace_values import JobTraceSnapshot
from fogmqtt.images.metadata import Pages
from fogmqtt.images.result_format import ResultFormat
from fogmqtt.log import shown_name
from fogmqtt.operators.api.measuring import as_json
from fogmqtt.operators.api.pipeline import parse, parse_post
from fogmqtt.setup.brokers import connector, embedded_broker, one_off_id

#: Images that are submitted ahead of the oldest that has not ended, for each job that may be under
#: way: the results are shown in the order of the images, and one image may take long.
AHEAD = 16
#: Failed images that the last error repeats.
MAX_NAMED = 5

#: Seconds of a job from which on it is news that the fleet could not help.
NEWS_S = 1.0

#: How a job ended, without the pixels: its report, its error, and what belongs on stdout.
_Finished = tuple[Report, str | None, str]


class RunOptions(Struct, frozen=True):
    """The options of the command."""

    images: tuple[Path, ...]
    #: A file, a folder, or None. With None, facts are printed and images are not written.
    out: str | None
    pipeline: str
    tiles: TilePlan
    #: Whether the user named a folder of images: then `out` is a folder, too.
    is_folder: bool = False
    post: str = ""
    #: The format of the results; None: as the output's suffix says, and PNG in a folder.
    form: ResultFormat | None = None
    pages: Pages = "all"
    verify: bool = False
    priority: int = 0
    timeout_s: float | None = None
    report: Path | None = None
    trace: Path | None = None


def run(config: GatewayConfig, options: RunOptions, decoders: Decoders) -> list[str]:
    """Run the jobs, show how each ended, and return the errors of those that failed.

    Raises UsageError, PipelineError and OperatorError before anything is sent, and NoBroker.
    """
    # All checks of the options come before the search for a broker.
    measures = parse(options.pipeline)[-1].measures
    parse_post(options.post)
    for option, path in (("--report", options.report), ("--trace", options.trace)):
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"{option} {path}: there is no such folder; make it first")
    if options.out is None and not measures and not options.verify:
        raise UsageError("-o is missing: name a file for the result, such as -o result.png")
    outputs = plan_outputs(
        options.images,
        options.out,
        measures=measures,
        form=options.form,
        several=options.is_folder,
    )
    with noted_signals() as noted, embedded_broker(config) as broker:
        noted.check()
        display = open_display()
        if broker is not None:
            display.print_line(
                f"nothing listens at {config.broker.url}: started a broker of our own "
                f"({broker.program}) at {broker.url} for this command"
            )
        summary = Summary(display, several=len(options.images) > 1, keeps=bool(options.report))
        gateway_id = one_off_id(config)
        try:
            connect = connector(config, gateway_id, broker)
            run_async(
                run_jobs(config, gateway_id, connect, decoders, options, outputs, display, summary)
            )
        except NoBroker as problem:
            raise NoBroker(f"{problem}; no image was processed") from None
        finally:
            display.close()
    if options.report:
        write_report(options.report, summary.reports)
    if options.trace:
        write_trace(options.trace, gateway_id, summary.traces)
    return summary.close()


class Summary:
    """Shows how each image's job ended, and counts them.

    `several`: whether lines must say which image they are about. `keeps`: whether all reports are
    kept.
    """

    def __init__(self, display: Display, *, several: bool, keeps: bool) -> None:
        self._display = display
        self._several = several
        self._keeps = keeps
        self._began_at = time.monotonic()
        self._done = 0
        self._failed = 0
        #: What was said of the last image without its numbers: thousands may have the same reason.
        self._sentence = ""
        #: The first errors; each was shown when its job ended.
        self._errors: list[str] = []
        self.reports: list[dict[str, object]] = []
        self.traces: list[JobTraceSnapshot] = []

    def add(self, report: Report, error: str | None, output: str) -> None:
        """Show the end of one job. `output` is for stdout."""
        if self._keeps:
            self.reports.append({**report.as_json(), "error": error})
        if error is not None:
            self._fail(report.name, error)
            return
        self._done += 1
        self._display.print_line(f"{report.name}: {report.seconds:.2f} s")
        sentence = "".join(letter for letter in report.sentence if not letter.isdigit())
        if sentence and sentence != self._sentence and _is_news(report):
            self._display.print_line(self._about(report.name, report.sentence))
        self._sentence = sentence
        if output:
            is_sentence = report.differ is not None
            self._display.print_output(self._about(report.name, output) if is_sentence else output)

    def close(self) -> list[str]:
        """Show the figures of several images, and return the errors that ended the command."""
        if not self._several:
            return self._errors
        count, seconds = self._done + self._failed, time.monotonic() - self._began_at
        self._display.print_line(
            f"{count} images: {self._done} done, {self._failed} failed, in {seconds:.1f} s"
        )
        if not self._failed:
            return []
        more = self._failed - len(self._errors)
        named = "; ".join(self._errors) + (f"; and {more} more" if more else "")
        return [f"{self._failed} of {count} images failed: {named}"]

    def _fail(self, name: str, error: str) -> None:
        self._failed += 1
        text = self._about(name, error)
        if self._several:
            self._display.print_line(f"failed: {text}")
        if len(self._errors) < MAX_NAMED:
            self._errors.append(text)

    def _about(self, name: str, text: str) -> str:
        return text if not self._several or name in text else f"{name}: {text}"


def _is_news(report: Report) -> bool:
    """Return whether a user may want to know why the fleet did not help with a job.

    Nobody waits for help with a job that took a moment. That there is no device is always news.
    """
    return report.seconds >= NEWS_S or not report.sentence.startswith(CANNOT_HELP)


async def run_jobs(
    config: GatewayConfig,
    gateway_id: str,
    connect: Connect,
    decoders: Decoders,
    options: RunOptions,
    outputs: Sequence[Outputs],
    display: Display,
    summary: Summary,
) -> None:
    """Run a gateway until all jobs have ended."""
    async with Gateway(
        config,
        gateway_id,
        connect,
        broker_within_s=config.broker.connect_timeout_s,
        decoders=decoders,
    ) as gateway:
        show = partial(show_event, display, names_images=len(options.images) > 1)
        gateway.listen("terminal", show)
        keep = summary.traces.append if options.trace else None
        async for report, error, output in _finish_in_order(gateway, options, outputs, keep):
            summary.add(report, error, output)


async def _finish_in_order(
    gateway: Gateway,
    options: RunOptions,
    outputs: Sequence[Outputs],
    keep: Callable[[JobTraceSnapshot], None] | None,
) -> AsyncIterator[_Finished]:
    """Submit the images, a few ahead, and yield how each ended, in their order.

    `keep` gets the course of each job.
    """
    names = _names(options.images)
    ahead = AHEAD * gateway.config.limits.max_jobs
    tasks: deque[asyncio.Task[_Finished]] = deque()
    for name, path, files in zip(names, options.images, outputs, strict=True):
        tasks.append(asyncio.create_task(_finish(gateway, name, path, files, options, keep)))
        if len(tasks) >= ahead:
            yield await tasks.popleft()
    while tasks:
        yield await tasks.popleft()


async def _finish(
    gateway: Gateway,
    name: str,
    path: Path,
    outputs: Outputs,
    options: RunOptions,
    keep: Callable[[JobTraceSnapshot], None] | None,
) -> _Finished:
    """Do one image. Its pixels are released on return."""
    handle = gateway.submit(_request(name, path, outputs, options))
    outcome = await handle.outcome()
    if keep is not None:
        keep(handle.trace.snapshot())
    error = outcome.error
    if error is not None and outcome.difference is not None:
        error = f"{error}; see {shown_name(str(outputs.differ))}"
    return outcome.report, error, _output(outcome, print_facts=options.out is None)


def _output(outcome: Outcome, *, print_facts: bool) -> str:
    if outcome.error is not None:
        return ""
    if outcome.report.differ is not None:
        return f"{format_differences(outcome.report)}\n"
    if outcome.facts is not None and print_facts:
        return as_json(outcome.facts).decode()
    return ""


def show_event(display: Display, event: GatewayEvent, *, names_images: bool = False) -> None:
    """Show progress and notices of jobs. `names_images`: a notice says which image it is about."""
    match event:
        case JobProgressed(report):
            display.update(report)
        case JobNoticed(report, text):
            is_clear = not names_images or report.name in text
            display.print_line(text if is_clear else f"{report.name}: {text}")
        case JobEnded(report):
            display.end(report)
        case _:
            pass


def _names(images: Sequence[Path]) -> list[str]:
    """Return what each image is called: by its file's name, or its path if others share that."""
    shared = Counter(image.name for image in images)
    return [str(image) if shared[image.name] > 1 else image.name for image in images]


def _request(name: str, path: Path, outputs: Outputs, options: RunOptions) -> JobRequest:
    return JobRequest(
        name=name,
        pipeline=options.pipeline,
        path=path,
        pages=options.pages,
        tiles=options.tiles,
        post=options.post,
        verify=options.verify,
        priority=options.priority,
        timeout_s=options.timeout_s,
        deliver=outputs.write,
    )


def write_report(path: Path, reports: list[dict[str, object]]) -> None:
    """Write the reports as JSON: one object for one image, a list for several."""
    text = json.dumps(reports[0] if len(reports) == 1 else reports, indent=2)
    path.write_text(f"{text}\n", encoding="utf-8")


def write_trace(path: Path, gateway_id: str, traces: Sequence[JobTraceSnapshot]) -> None:
    """Write where each tile of the jobs was, for ui.perfetto.dev."""
    path.write_text(trace_file(gateway_id, traces), encoding="utf-8")
