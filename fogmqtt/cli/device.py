"""The command `fog-device`: the agent of one board."""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fogmqtt.cli.common import (
    Subparsers,
    add_log_options,
    positive_number,
    report_errors,
    sentence,
)
from fogmqtt.cli.find_gateway import Hints, find_gateway, invited_device
from fogmqtt.cli.log_format import set_up_logging, use_log_format
from fogmqtt.cli.versions import ShowVersions
from fogmqtt.config import DeviceConfig, load_device_and_broker
from fogmqtt.errors import ConfigError, NoBroker
from fogmqtt.process_tuning import tune
from fogmqtt.setup.link import with_brokers
from fogmqtt.wire.topics import LOCAL, check_id
from fogmqtt.workers.throttle import Throttle

_EPILOG = """\
examples:
  fog-device --id eya                               # with a gateway that it finds by itself
  fog-device --id eya --join FOG1:EYA:...           # what fog-gateway invite printed
  fog-device --id eya --broker mqtt://gateway:1883  # a broker without invitations
  fog-device doctor --id eya                        # what is wrong

where it looks for its gateway without --broker:
  the identity that it saved when it joined, --join, fogmqtt.fog on the boot partition, a broker
  on this machine, mDNS

configuration:
  Every key can be set in the environment, such as FOGMQTT_BROKER__URL for broker.url.

exit codes:
  0  done, or stopped by a signal
  2  usage or configuration, or the id is taken
  3  no broker or gateway"""
_DOCTOR_EPILOG = """\
exit codes:
  0  all is well
  1  warnings
  2  faults"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = make_parser().parse_args(arguments)
    faulthandler.enable(2)  # a crash of OpenCV in a trusted operator ends the agent
    tune()
    set_up_logging(options.verbose, form=options.log_format)
    return report_errors(lambda: options.function(options))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this program."""
    parser = argparse.ArgumentParser(
        prog="fog-device",
        description="Lends this machine's cores to the gateways that send it tiles over MQTT.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--id", metavar="ID", help="this board's name: a-z, 0-9, _ and -")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the configuration (YAML), such as devices/eya.yaml",
    )
    parser.add_argument(
        "--broker",
        action="append",
        metavar="URL",
        help="mqtt://host:1883, mqtts://host:8883, ws://host:port/path or wss://host:port/path; "
        "several, with commas or one option each, are tried in order",
    )
    parser.add_argument(
        "--join",
        metavar="FILE|CODE",
        help="an invitation of a gateway (fog-gateway invite); once joined, it is not needed again",
    )
    parser.add_argument(
        "--gateway",
        metavar="HOST[:PORT]",
        help="the gateway's machine, to join by a code where mDNS does not reach",
    )
    parser.add_argument(
        "--max-tile-pixels",
        type=positive_number("pixels"),
        metavar="N",
        help="the largest tile that is accepted, halo included: for boards with little memory",
    )
    parser.add_argument(
        "--camera",
        metavar="SOURCE",
        help="frames for the gateways that have a stream of this board's name with source: mqtt; "
        "picamera:0, v4l2:/dev/video0, rtsp://host/path, http://host/path, or a file, "
        "which is played again and again",
    )
    # Of launch.sh: the folder of the versions that a gateway sends.
    parser.add_argument("--versions", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--emulate-speed", type=_throttle, metavar="P[,P…]", help=argparse.SUPPRESS)
    parser.add_argument("-v", "--verbose", action="count", default=0, help="log more")
    add_log_options(parser)
    parser.add_argument("--version", action=ShowVersions)
    parser.set_defaults(function=_run)
    _add_commands(parser)
    return parser


def _add_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", title="commands (without one it runs)")
    join = _add(commands, "join", "join a gateway, and run nothing")
    join.add_argument("invitation", metavar="FILE|CODE", help="of fog-gateway invite")
    join.add_argument(
        "--gateway", default=argparse.SUPPRESS, metavar="HOST[:PORT]", help="as above"
    )
    join.set_defaults(function=_join)
    forget = _add(commands, "forget", "remove the identity of a board that has joined")
    forget.set_defaults(function=_forget)
    service = _add(commands, "service", "run at boot: a unit of systemd")
    service.add_argument(
        "action", choices=("install", "uninstall"), help="make the service, or remove it"
    )
    service.add_argument("--user", default="fogmqtt", help="who runs it (default: fogmqtt)")
    service.add_argument(
        "--root", type=Path, default=Path("/"), metavar="DIR", help="write below DIR, start nothing"
    )
    service.add_argument("--dry-run", action="store_true", help="say what would be done")
    service.set_defaults(function=_service)
    doctor = _add(commands, "doctor", "find what keeps this board from getting tiles")
    doctor.add_argument("--id", default=argparse.SUPPRESS, metavar="ID", help="as above")
    doctor.add_argument(
        "--config", type=Path, default=argparse.SUPPRESS, metavar="FILE", help="as above"
    )
    doctor.add_argument(
        "--broker", action="append", default=argparse.SUPPRESS, metavar="URL", help="as above"
    )
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(function=_doctor)
    doctor.epilog, doctor.formatter_class = _DOCTOR_EPILOG, argparse.RawDescriptionHelpFormatter


def _add(commands: Subparsers, name: str, text: str) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=text, description=sentence(text))


def _doctor(options: argparse.Namespace) -> int:
    """`fog-device doctor`: find what keeps this board from working."""
    from fogmqtt.cli.doctor import device_doctor, lonely_doctor

    logging.getLogger().setLevel(logging.WARNING)
    try:
        device, config, is_found = _configuration(options)
    except NoBroker as problem:
        return lonely_doctor(problem, as_json=options.json)
    config = replace(config, broker=with_brokers(config.broker, options.broker))
    has_joined = is_found and bool(config.broker.cert)
    return device_doctor(config, device, has_joined=has_joined, as_json=options.json)


def _configuration(options: argparse.Namespace) -> tuple[str, DeviceConfig, bool]:
    """Return the id, the configuration, and whether its broker was found and not named."""
    config, names_broker = load_device_and_broker(options.config, os.environ)
    hints = Hints(options.join or config.join, options.gateway or "")
    device = _device_id(options.id, config, hints)
    use_log_format(options.log_format or config.log_format, device=device)
    is_found = options.broker is None and (bool(hints.join) or not names_broker)
    if is_found:
        config = find_gateway(device, config, hints, os.environ)
    return device, config, is_found


def _throttle(text: str) -> Throttle:
    """Parse speeds in pixels per second; SIGUSR1 switches to the next one."""
    return Throttle([positive_number("pixels per second")(speed) for speed in text.split(",")])


def _run(options: argparse.Namespace) -> int:
    device, config, is_found = _configuration(options)
    # A board that joins has begun anew by now, and did not wait for what only the agent needs.
    from fogmqtt.cli.agent import run_agent

    return run_agent(device, config, options, is_found=is_found)


def _join(options: argparse.Namespace) -> int:
    from fogmqtt.cli.find_gateway import join_once

    hints = Hints(options.invitation, options.gateway or "")
    print(join_once(options.id or invited_device(hints), hints, os.environ))
    return 0


def _forget(options: argparse.Namespace) -> int:
    from fogmqtt.cli.service import forget

    return forget(_named_device(options))


def _service(options: argparse.Namespace) -> int:
    from fogmqtt.cli.service import install, uninstall

    if options.action == "uninstall":
        return uninstall(options)
    return install(_named_device(options), options)


def _named_device(options: argparse.Namespace) -> str:
    config = load_device_and_broker(options.config, os.environ)[0]
    return _device_id(options.id, config, Hints(options.join or config.join))


def _device_id(option: str | None, config: DeviceConfig, hints: Hints) -> str:
    device = option if option is not None else config.device.id or invited_device(hints)
    if not device:
        raise ConfigError("this device has no id; give --id, or device.id in --config")
    if check_id(device, "--id" if option is not None else "device.id") == LOCAL:
        raise ConfigError(
            f"--id: {LOCAL!r} names the gateway's own cores; give the device another id"
        )
    return device


if __name__ == "__main__":
    from fogmqtt.cli.leaving import leave_on_signals
    from fogmqtt.cli.program import run_program

    leave_on_signals()
    run_program(main)
