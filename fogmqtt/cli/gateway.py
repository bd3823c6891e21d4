"""The command `fog-gateway`.

Each command imports what it needs when it runs: a start takes as long as its imports.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fogmqtt.cli import joining_options, shell_files, simulate_options
from fogmqtt.cli.common import (
    Subparsers,
    add_log_options,
    keep_files_private,
    positive_number,
    report_errors,
    sentence,
)
from fogmqtt.cli.log_format import set_up_logging, use_log_format
from fogmqtt.cli.signals import noted_signals
from fogmqtt.cli.versions import ShowVersions
from fogmqtt.errors import JobFailed
from fogmqtt.process_tuning import tune

if TYPE_CHECKING:
    from fogmqtt.config import GatewayConfig
    from fogmqtt.images.metadata import Pages

Command: TypeAlias = "Callable[[GatewayConfig, argparse.Namespace], int]"

_EPILOG = """\
examples:
  fog-gateway demo                                  # a fog on this machine, to look at
  fog-gateway init                                  # a broker and a gateway for your boards
  fog-gateway --config fog/config.yaml              # serve
  fog-gateway --config fog/config.yaml invite eya   # one board
  fog-gateway --config fog/config.yaml doctor       # what is wrong
  fog-gateway --config fog/config.yaml run photo.jpg -o edges.png --pipeline "gray | canny"

configuration:
  Every key can be set in the environment, such as FOGMQTT_BROKER__URL for broker.url.

exit codes:
  0    done
  1    the job failed, or pixels differ
  2    usage or configuration, or the id is taken
  3    no broker or gateway; nothing was processed
  130  interrupted"""
_DOCTOR_EPILOG = """\
exit codes:
  0  all is well
  1  warnings
  2  faults"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = make_parser().parse_args(arguments)
    tune()
    quiet = options.function not in (_serve, _adopt)
    set_up_logging(options.verbose, quiet=quiet, form=options.log_format)
    return report_errors(lambda: _run_command(options))


def _run_command(options: argparse.Namespace) -> int:
    if options.without_configuration is not None:
        function: Callable[[argparse.Namespace], int] = options.without_configuration
        return function(options)
    if options.function is not _run:
        return _with_configuration(options)
    from fogmqtt.gateway.jobs.decode import Decoders

    with Decoders() as decoders:
        # The process of the decoder loads numpy and OpenCV while this one loads all else.
        decoders.warm()
        options.decoders = decoders
        return _with_configuration(options)


def _with_configuration(options: argparse.Namespace) -> int:
    from fogmqtt.config import load_gateway
    from fogmqtt.setup.link import with_brokers
    from fogmqtt.setup.operators import use_operators

    config = load_gateway(options.config, os.environ)
    config = dataclasses.replace(config, log_format=options.log_format or config.log_format)
    use_log_format(config.log_format, gateway=config.gateway.id)
    config = dataclasses.replace(config, broker=with_brokers(config.broker, options.broker))
    command: Command = options.function
    if command not in _WITHOUT_OPERATORS:
        use_operators(config, serves=command in (_serve, _adopt))
    return command(config, options)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this program."""
    parser = argparse.ArgumentParser(
        prog="fog-gateway",
        description="Cuts images into tiles, has devices process them over MQTT, and merges them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=ShowVersions, with_broker=True)
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration (YAML)")
    parser.add_argument(
        "--broker",
        action="append",
        metavar="URL",
        help="as broker.url; several, with commas or one option each, are tried in order",
    )
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="log more; twice: log everything"
    )
    add_log_options(parser)
    parser.set_defaults(function=_serve, without_configuration=None)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands (without one it serves)")
    _add_demo(commands)
    joining_options.add_init(
        _add_alone(commands, "init", _init, "make a broker and a gateway that boards can join")
    )
    _add_joining(commands)
    _add_doctor(commands)
    _add(commands, "serve", _serve, "serve the submit topic and the inbox folder (the default)")
    _add_run(commands)
    _add_verify(commands)
    _add_explain(commands)
    _add_stream(commands)
    _add_replay(commands)
    _add_lists(commands)
    _add_operators(commands)
    _add_retry(commands)
    simulate = _add(commands, "simulate", _simulate, "predict the time of a job on a fleet")
    simulate_options.add_arguments(simulate)
    shell_files.add_completion(
        _add_alone(
            commands,
            "completion",
            shell_files.completion,
            "print what completes commands in a shell",
        )
    )
    shell_files.add_man(_add_alone(commands, "man", shell_files.man, "print a manual page"))
    return parser


def _add(commands: Subparsers, name: str, function: Command, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=sentence(text))
    parser.set_defaults(function=function)
    return parser


def _add_alone(
    commands: Subparsers, name: str, function: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    """Add a command that reads no configuration."""
    parser = commands.add_parser(name, help=text, description=sentence(text))
    parser.set_defaults(without_configuration=function)
    return parser


def _add_doctor(commands: Subparsers) -> None:
    parser = _add(commands, "doctor", _doctor, "find what keeps the fog from working; say the fix")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = _DOCTOR_EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def _add_lists(commands: Subparsers) -> None:
    """Add `devices` and `streams`."""
    for name, function, text in (
        ("devices", _devices, "list the devices that are online"),
        ("streams", _streams, "list the streams of the gateways at the broker"),
    ):
        parser = _add(commands, name, function, text)
        parser.add_argument("--json", action="store_true", help="print JSON")


def _add_retry(commands: Subparsers) -> None:
    """Add `retry` and `adopt`."""
    parser = _add(commands, "retry", _retry, "list failed jobs and callbacks, or retry them")
    parser.add_argument("job", nargs="?", metavar="JOB", help="retry this job or callback")
    parser.add_argument("--all", action="store_true", help="retry all of them")
    adopt = _add(
        commands,
        "adopt",
        _adopt,
        "finish the jobs that a gateway accepted which does not come back",
    )
    adopt.add_argument("folder", type=Path, metavar="SPOOL", help="that gateway's spool folder")


def _add_run(commands: Subparsers) -> None:
    parser = _add(commands, "run", _run, "process images with the devices that are online")
    _add_job(parser)
    parser.add_argument(
        "-o",
        "--out",
        metavar="PATH",
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
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="a file, or a folder of images"
    )
    _add_pipeline(parser)
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
    _add_trace(parser)


def _add_trace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write where each tile was and when, as JSON for ui.perfetto.dev",
    )


def _add_pipeline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pipeline", help="'gray | canny low=50 high=150', or a configured name")
    parser.add_argument(
        "--tiles", help="auto, 'size 512x512' (w x h) or 'grid 3x1' (columns x rows)"
    )


def _add_explain(commands: Subparsers) -> None:
    parser = _add(
        commands,
        "explain",
        _explain,
        "show the stages of a pipeline on an image, and predict its time",
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a file")
    _add_pipeline(parser)


def _add_stream(commands: Subparsers) -> None:
    parser = _add(
        commands, "stream", _stream, "process the frames of a camera or file with the devices"
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="rtsp://…, http://…, v4l2:/dev/video0, a video file, a folder of pictures, or the "
        "name of a configured stream",
    )
    parser.add_argument("--pipeline", help="'gray | canny low=50 high=150', or a configured name")
    parser.add_argument(
        "--for",
        dest="for_s",
        type=positive_number("seconds"),
        metavar="SECONDS",
        help="end after this time",
    )
    parser.add_argument(
        "--fps",
        type=positive_number("frames a second"),
        metavar="N",
        help="begin so many frames a second at most",
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="PATH",
        help="a folder for the results, x.mp4 for a video, x.jsonl or - (stdout) for lines of JSON",
    )
    parser.add_argument(
        "--keep",
        choices=("latest", "all", "keys"),
        help="the newest frame, all, or key frames only (default: all of a file or folder)",
    )
    parser.add_argument(
        "--split",
        choices=("auto", "tiles", "frames"),
        help="cut each frame for all devices, or give each device whole frames",
    )
    parser.add_argument(
        "--max-age",
        type=positive_number("seconds"),
        metavar="SECONDS",
        help="nothing older is begun or comes out",
    )
    parser.add_argument(
        "--verify",
        action="store_const",
        const=1.0,
        help="compare each frame with one machine; exit code 1 if one differs",
    )
    parser.add_argument(
        "--record",
        metavar="FOLDER",
        help="make a recording in this folder, for fog-gateway replay",
    )
    parser.add_argument(
        "--record-max-bytes",
        type=positive_number("bytes"),
        metavar="N",
        help="of all recordings in that folder; one that reaches it ends (default: 2000000000)",
    )
    parser.add_argument("--username", help="of the camera")
    parser.add_argument("--password-file", metavar="FILE", help="holds only the camera's password")
    parser.add_argument("--transport", choices=("tcp", "udp"), help="of RTSP (default: tcp)")
    parser.add_argument(
        "--priority",
        type=int,
        choices=range(-4, 5),
        metavar="N",
        help="-4 to 4: each step doubles the stream's share of the fleet",
    )


def _add_replay(commands: Subparsers) -> None:
    parser = _add(commands, "replay", _replay, "run the recording of a stream again, and compare")
    parser.add_argument("recording", metavar="FOLDER", help="a recording of stream --record")
    parser.add_argument("-o", "--out", metavar="FOLDER", help="a folder for the results")


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
    parser.add_argument(
        "image", nargs="?", type=Path, metavar="IMAGE", help="yours (default: a photograph)"
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("demo"), metavar="DIR", help="folder (default: demo)"
    )
    parser.add_argument(
        "--stay", action="store_true", help="keep the fleet and its page until Ctrl-C"
    )
    _add_trace(parser)


def _add_joining(commands: Subparsers) -> None:
    invite_parser = _add(
        commands, "invite", _invite, "invite a board: a file, a line and a QR code"
    )
    joining_options.add_invite(invite_parser)
    invites = _add(commands, "invites", _invites, "list who was invited and who has joined")
    invites.add_argument("--json", action="store_true", help="print JSON")
    revoke_parser = _add(
        commands, "revoke", _revoke, "let a board in no more, and end its invitations"
    )
    revoke_parser.add_argument("board", metavar="BOARD", help="its name")
    joining_options.add_accept(
        _add(commands, "accept", _accept, "let boards without an invitation ask, and let one in")
    )
    joining_options.add_update(
        _add(commands, "update", _update, "let boards fetch this gateway's version, and run it")
    )


def _init(options: argparse.Namespace) -> int:
    from fogmqtt.cli.init import init

    return init(options)


def _invite(config: GatewayConfig, options: argparse.Namespace) -> int:
    from fogmqtt.cli.invite import invite

    return invite(config, options)


def _invites(config: GatewayConfig, options: argparse.Namespace) -> int:
    from rich.console import Console

    from fogmqtt.cli.invite import show_invites

    return show_invites(config, Console(), as_json=options.json)


def _revoke(config: GatewayConfig, options: argparse.Namespace) -> int:
    from fogmqtt.cli.invite import revoke

    return revoke(config, options.board)


def _accept(config: GatewayConfig, options: argparse.Namespace) -> int:
    from fogmqtt.cli.accept import accept

    return accept(config, options)


def _update(config: GatewayConfig, options: argparse.Namespace) -> int:
    from fogmqtt.cli.update import update

    return update(config, options)


#: They look at no image.
_WITHOUT_OPERATORS = (_invite, _invites, _revoke, _accept, _update)


def _serve(config: GatewayConfig, options: argparse.Namespace) -> int:
    from fogmqtt.cli.async_program import run_async
    from fogmqtt.cli.dashboard import dashboard_beside
    from fogmqtt.cli.joining import joining_beside
    from fogmqtt.gateway.server.server import Server
    from fogmqtt.setup.brokers import embedded_broker, serving_connector

    del options
    # A signal is the normal end of a server.
    with (
        suppress(KeyboardInterrupt),
        noted_signals() as noted,
        embedded_broker(config) as broker,
        joining_beside(config),
    ):
        noted.check()
        keep_files_private()
        connect = serving_connector(config, broker)
        run_async(Server(config, connect, dashboard=dashboard_beside(config)).run())
    return 0


def _run(config: GatewayConfig, options: argparse.Namespace) -> int:
    from fogmqtt.cli.batch import find_images
    from fogmqtt.cli.run import RunOptions, run
    from fogmqtt.core.geometry import parse_tile_plan
    from fogmqtt.images.result_format import parse_result_format
    from fogmqtt.setup.pipelines import find_pipeline, find_priority

    batch = find_images(options.images)
    for line in batch.lines:
        print(line, file=sys.stderr)
    run_options = RunOptions(
        images=batch.images,
        is_folder=batch.has_folder,
        out=options.out,
        pipeline=find_pipeline(config, options.pipeline),
        tiles=parse_tile_plan(options.tiles or config.tiles),
        post=config.post if options.post is None else options.post,
        form=None if options.format is None else parse_result_format(options.format),
        pages=config.gateway.pages if options.pages is None else options.pages,
        verify=options.verify,
        priority=find_priority(config, options.pipeline, options.priority),
        timeout_s=options.timeout,
        report=options.report,
        trace=options.trace,
    )
    errors = run(config, run_options, options.decoders)
    if errors:
        raise JobFailed("\n".join(errors))
    return 0


def _pages(text: str) -> Pages:
    """Return the value of --pages. Raises ArgumentTypeError."""
    if text == "first":
        return "first"
    if text == "all":
        return "all"
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not all, first, or a number from 1 on")


def _explain(config: GatewayConfig, options: argparse.Namespace) -> int:
    from rich.console import Console

    from fogmqtt.cli.explain import explain
    from fogmqtt.core.geometry import parse_tile_plan
    from fogmqtt.setup.pipelines import find_pipeline

    plan = parse_tile_plan(options.tiles or config.tiles)
    text = find_pipeline(config, options.pipeline)
    return explain(config, text, options.image, plan, Console())


def _demo(config: GatewayConfig, options: argparse.Namespace) -> int:
    from rich.console import Console

    from fogmqtt.cli.demo import demo

    return demo(
        config, options.image, options.out, Console(), stays=options.stay, trace=options.trace
    )


def _devices(config: GatewayConfig, options: argparse.Namespace) -> int:
    from rich.console import Console

    from fogmqtt.cli.devices import show_devices

    return show_devices(config, Console(), as_json=options.json)


def _doctor(config: GatewayConfig, options: argparse.Namespace) -> int:
    from fogmqtt.cli.doctor import gateway_doctor

    return gateway_doctor(config, options.config, as_json=options.json)


def _stream(config: GatewayConfig, options: argparse.Namespace) -> int:
    from fogmqtt.cli.stream import changed, settings_for, stream
    from fogmqtt.setup.pipelines import find_pipeline

    changes = {
        "fps": options.fps,
        "keep": options.keep,
        "split": options.split,
        "max_age_s": options.max_age,
        "username": options.username,
        "password_file": options.password_file,
        "transport": options.transport,
        "priority": options.priority,
        "verify": options.verify,
    }
    if options.pipeline is not None or options.source not in config.streams:
        changes["pipeline"] = find_pipeline(config, options.pipeline)
    settings = settings_for(config, options.source, changes)
    most = options.record_max_bytes
    record = {"folder": options.record, "max_bytes": None if most is None else int(most)}
    settings = dataclasses.replace(settings, record=changed(settings.record, record))
    return stream(config, settings, options.out, options.for_s)


def _replay(_config: GatewayConfig, options: argparse.Namespace) -> int:
    from fogmqtt.cli.replay import replay_recording

    out = None if options.out is None else Path(options.out)
    return replay_recording(Path(options.recording), out)


def _streams(config: GatewayConfig, options: argparse.Namespace) -> int:
    from rich.console import Console

    from fogmqtt.cli.streams import show_streams

    return show_streams(config, Console(), as_json=options.json)


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


def _adopt(config: GatewayConfig, options: argparse.Namespace) -> int:
    from fogmqtt.cli.adopt import adopt

    return adopt(config, options.folder)


def _simulate(config: GatewayConfig, options: argparse.Namespace) -> int:
    from rich.console import Console

    from fogmqtt.cli.simulate import run_simulation

    return run_simulation(config, options, Console())


if __name__ == "__main__":
    from fogmqtt.cli.leaving import leave_on_signals
    from fogmqtt.cli.program import run_program

    leave_on_signals()
    run_program(main)
