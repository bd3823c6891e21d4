"""The command `fog-gateway`.

Each command imports what it needs when it runs: a start takes as long as its imports.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fogmqtt import __version__
from fogmqtt.cli import simulate_options
from fogmqtt.cli.common import (
    positive_number,
    report_errors,
    run_program,
    set_model_folder,
    set_up_logging,
)
from fogmqtt.errors import JobFailed, PipelineError
from fogmqtt.process_tuning import tune

if TYPE_CHECKING:
    from fogmqtt.config import GatewayConfig
    from fogmqtt.gateway.jobs.decode import Decoders
    from fogmqtt.images.metadata import Pages

Command: TypeAlias = "Callable[[GatewayConfig, argparse.Namespace], int]"
#: argparse names this type with an underscore, and gives no other.
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

#: A text that may be the name of a pipeline.
_WORD = re.compile(r"[\w-]+")

_EPILOG = """\
exit codes: 0 done, 1 the job failed (or pixels differ), 2 usage or configuration (or the id is
taken), 3 no broker
every key of the configuration can be set as FOGMQTT_BROKER__URL and so on"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    tune()
    set_up_logging(options.verbose, quiet=options.function is not _serve)
    return report_errors(lambda: _run_command(options))


def _run_command(options: argparse.Namespace) -> int:
    from fogmqtt.config import load_gateway
    from fogmqtt.conformance.runner import fatal_imports
    from fogmqtt.operators.api import registry

    config = load_gateway(options.config, os.environ)
    set_model_folder(config.models)
    registry.plug_in(config.plugins)
    fatal = fatal_imports(config.plugins)
    if fatal:
        registry.plug_in(config.plugins, fatal)
    registry.import_plug_ins()
    command: Command = options.function
    return command(config, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fog-gateway",
        description="Cuts images into tiles, has devices process them over MQTT, and merges them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fog-gateway {__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration (YAML)")
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="log more; twice: log everything"
    )
    parser.set_defaults(function=_serve)
    commands = parser.add_subparsers(metavar="COMMAND")
    _add(commands, "serve", _serve, "serve the submit topic and the inbox folder (the default)")
    _add_run(commands)
    _add_verify(commands)
    _add_explain(commands)
    _add_demo(commands)
    devices = _add(commands, "devices", _devices, "list the devices that are online")
    devices.add_argument("--json", action="store_true", help="print JSON")
    simulate = _add(commands, "simulate", _simulate, "predict the time of a job on a fleet")
    simulate_options.add_arguments(simulate)
    _add_operators(commands)
    retry_parser = _add(commands, "retry", _retry, "list the jobs that failed, or retry them")
    retry_parser.add_argument("job", nargs="?", metavar="JOB", help="retry this job")
    retry_parser.add_argument("--all", action="store_true", help="retry all of them")
    return parser


def _add(commands: Subparsers, name: str, function: Command, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(function=function)
    return parser


def _add_run(commands: Subparsers) -> None:
    parser = _add(commands, "run", _run, "process images with the devices that are online")
    _add_job(parser)
    parser.add_argument(
        "-o",
        "--out",
        help="a file (.json for the facts of a measuring pipeline), or a folder for several images",
    )
    parser.add_argument(
        "--format",
        help="of the result: png, jpeg, webp, bmp or tiff, with options, as in 'jpeg quality=80', "
        "'png compression=9' or 'tiff compression=none' (default: as the file's suffix says)",
    )
    parser.add_argument("--post", help="a pipeline for the merged image, run on the gateway")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare with one machine; exit code 1 if pixels differ",
    )


def _add_verify(commands: Subparsers) -> None:
    parser = _add(
        commands,
        "verify",
        _run,
        "compare the fleet's result with one machine's; exit code 1 if different",
    )
    _add_job(parser)
    parser.set_defaults(out=None, post="", verify=True, format=None)


def _add_job(parser: argparse.ArgumentParser) -> None:
    """Add the options of a job: images, pipeline, tiles, time-out, priority and report."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--pipeline", help="'gray | canny low=50 high=150', or a configured name")
    parser.add_argument(
        "--tiles", help="auto, 'size 512x512' (w x h) or 'grid 3x1' (columns x rows)"
    )
    parser.add_argument(
        "--pages",
        type=_pages,
        metavar="PAGES",
        help="of files with several: all, first, or a number (default: gateway.pages)",
    )
    parser.add_argument(
        "--timeout",
        type=positive_number("seconds"),
        metavar="SECONDS",
        help="fail a job after this time",
    )
    parser.add_argument(
        "--priority",
        type=int,
        choices=range(-4, 5),
        metavar="N",
        help="-4 to 4: each step doubles the job's share of the fleet (default: the pipeline's)",
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the figures as JSON")


def _add_explain(commands: Subparsers) -> None:
    parser = _add(
        commands,
        "explain",
        _explain,
        "show the stages of a pipeline on an image, and predict its time",
    )
    parser.add_argument("pipeline", metavar="PIPELINE", help="as in run, or a configured name")
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("--tiles", help="as in run")


def _add_operators(commands: Subparsers) -> None:
    parser = _add(commands, "operators", _operators, "list the operators")
    parser.add_argument("name", nargs="?", metavar="NAME", help="describe this operator")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument(
        "--markdown", action="store_true", help="print Markdown, as in docs/operators.md"
    )


def _add_demo(commands: Subparsers) -> None:
    parser = _add(
        commands, "demo", _demo, "run a broker, a gateway and three devices on this machine"
    )
    parser.add_argument("image", nargs="?", type=Path, metavar="IMAGE")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("demo"), help="folder (default: demo)"
    )


def _serve(config: GatewayConfig, options: argparse.Namespace) -> int:
    from fogmqtt.cli.async_program import run_async
    from fogmqtt.cli.connect import embedded_broker, serving_connector
    from fogmqtt.gateway.server.server import Server

    del options
    with embedded_broker(config) as broker:
        connect = serving_connector(config, broker)
        with suppress(KeyboardInterrupt):  # a signal is the normal end of a server
            run_async(Server(config, connect).run())
    return 0


def _run(config: GatewayConfig, options: argparse.Namespace) -> int:
    from fogmqtt.gateway.jobs.decode import Decoders

    with Decoders() as decoders:
        # The process of the decoder loads numpy and OpenCV while this one does.
        decoders.warm()
        return _run_jobs(config, options, decoders)


def _run_jobs(config: GatewayConfig, options: argparse.Namespace, decoders: Decoders) -> int:
    from fogmqtt.cli.run import RunOptions, run
    from fogmqtt.core.geometry import parse_tile_plan
    from fogmqtt.images.result_format import parse_result_format

    run_options = RunOptions(
        images=tuple(options.images),
        out=options.out,
        pipeline=_pipeline(config, options.pipeline),
        tiles=parse_tile_plan(options.tiles or config.tiles),
        post=config.post if options.post is None else options.post,
        form=None if options.format is None else parse_result_format(options.format),
        pages=config.gateway.pages if options.pages is None else options.pages,
        verify=options.verify,
        priority=_priority(config, options),
        timeout_s=options.timeout,
        report=options.report,
    )
    errors = run(config, run_options, decoders)
    if errors:
        raise JobFailed("\n".join(errors))
    return 0


def _pipeline(config: GatewayConfig, option: str | None) -> str:
    """Return the text of a configured pipeline, or the option itself. Raises PipelineError."""
    from fogmqtt.operators.api import registry

    text = config.pipeline if option is None else option
    name = text.strip()
    if name in config.pipelines:
        return _configured_pipeline(config, name)
    if _WORD.fullmatch(name) and name not in registry.names():
        suggestion = registry.suggestion(name, (*config.pipelines, *registry.names()))
        skipped = "".join(f"; {problem}" for problem in registry.problems())
        raise PipelineError(f"no pipeline or operator is called {name!r}; {suggestion}{skipped}")
    return text


def _configured_pipeline(config: GatewayConfig, name: str) -> str:
    from fogmqtt.operators.api.pipeline import parse

    try:
        parse(config.pipelines[name])
    except PipelineError as problem:
        raise PipelineError(f"pipelines.{name}: {problem}") from None
    return config.pipelines[name]


def _pages(text: str) -> Pages:
    """Return the value of --pages. Raises ArgumentTypeError."""
    if text == "first":
        return "first"
    if text == "all":
        return "all"
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not all, first, or a number from 1 on")


def _priority(config: GatewayConfig, options: argparse.Namespace) -> int:
    """Return the option, or the configured priority of the pipeline."""
    if options.priority is not None:
        return int(options.priority)
    name = config.pipeline if options.pipeline is None else options.pipeline
    return config.priorities.get(name.strip(), 0)


def _explain(config: GatewayConfig, options: argparse.Namespace) -> int:
    from rich.console import Console

    from fogmqtt.cli.explain import explain
    from fogmqtt.core.geometry import parse_tile_plan

    plan = parse_tile_plan(options.tiles or config.tiles)
    text = _pipeline(config, options.pipeline)
    return explain(config, text, options.image, plan, Console())


def _demo(config: GatewayConfig, options: argparse.Namespace) -> int:
    from rich.console import Console

    from fogmqtt.cli.demo import demo

    return demo(config, options.image, options.out, Console())


def _devices(config: GatewayConfig, options: argparse.Namespace) -> int:
    from rich.console import Console

    from fogmqtt.cli.devices import show_devices

    return show_devices(config, Console(), as_json=options.json)


def _operators(config: GatewayConfig, options: argparse.Namespace) -> int:
    from rich.console import Console

    from fogmqtt.cli.operators import as_markdown, show_operators

    del config
    if options.markdown:
        print(as_markdown(), end="")
        return 0
    return show_operators(Console(), options.name, as_json=options.json)


def _retry(config: GatewayConfig, options: argparse.Namespace) -> int:
    from rich.console import Console

    from fogmqtt.cli.retry import retry

    return retry(config, options.job, Console(), every=options.all)


def _simulate(config: GatewayConfig, options: argparse.Namespace) -> int:
    from rich.console import Console

    from fogmqtt.cli.simulate import run_simulation

    return run_simulation(config, options, Console())


def program() -> None:
    """Run the command and end the process."""
    run_program(main)


if __name__ == "__main__":
    program()
