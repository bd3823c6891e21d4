"""The command `fog-device`: the agent of one board."""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from fogmqtt import __version__
from fogmqtt.agent.service import Agent, AgentSettings
from fogmqtt.cli.common import (
    make_link,
    positive_number,
    report_errors,
    set_model_folder,
    set_up_logging,
    stop_on_signals,
)
from fogmqtt.config import DeviceConfig, load_device
from fogmqtt.conformance.runner import ConformanceRunner
from fogmqtt.errors import ConfigError
from fogmqtt.operators.api import registry
from fogmqtt.process_tuning import tune
from fogmqtt.transport.base import Deliver, Transport, Will
from fogmqtt.transport.paho import PahoTransport
from fogmqtt.wire.topics import LOCAL, Topics, check_id
from fogmqtt.workers.resources import cores, worker_memory_mb
from fogmqtt.workers.throttle import Throttle

_EPILOG = """\
exit codes: 0 done, 2 usage or configuration (or the id is taken), 3 no broker
every key of the configuration can be set as FOGMQTT_BROKER__URL and so on"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    faulthandler.enable(2)  # a crash of OpenCV in a trusted operator ends the agent
    tune()
    set_up_logging(options.verbose)
    return report_errors(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
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
        metavar="URL",
        help="mqtt://host:1883, mqtts://host:8883, ws://host:port/path or wss://host:port/path",
    )
    parser.add_argument(
        "--max-tile-pixels",
        type=positive_number("pixels"),
        metavar="N",
        help="the largest tile that is accepted, halo included: for boards with little memory",
    )
    parser.add_argument("--emulate-speed", type=_throttle, metavar="P[,P…]", help=argparse.SUPPRESS)
    parser.add_argument("-v", "--verbose", action="count", default=0, help="log more")
    parser.add_argument("--version", action="version", version=f"fog-device {__version__}")
    return parser


def _throttle(text: str) -> Throttle:
    """Parse speeds in pixels per second; SIGUSR1 switches to the next one."""
    return Throttle([positive_number("pixels per second")(speed) for speed in text.split(",")])


def _run(options: argparse.Namespace) -> int:
    config = load_device(options.config, os.environ)
    set_model_folder(config.models)
    registry.plug_in(config.plugins)
    device = _device_id(options.id, config)
    broker = replace(config.broker, url=options.broker) if options.broker else config.broker
    link = make_link(broker, device)

    def connect(deliver: Deliver, will: Will) -> Transport:
        return PahoTransport(link, deliver, will=will)

    throttle: Throttle | None = options.emulate_speed
    if throttle is not None:
        signal.signal(signal.SIGUSR1, lambda *_: throttle.next_speed(time.monotonic()))
    settings = _settings(device, config, broker.url, throttle)
    if options.max_tile_pixels is not None:
        settings = replace(settings, max_tile_pixels=max(1, int(options.max_tile_pixels)))
    memory_mb = config.device.worker_memory_mb
    make_runner = partial(ConformanceRunner, memory_mb=None if memory_mb == "auto" else memory_mb)
    agent = Agent(settings, connect, make_conformance_runner=make_runner)
    with stop_on_signals(agent.stop):
        agent.run()
    return 0


def _device_id(option: str | None, config: DeviceConfig) -> str:
    device = option if option is not None else config.device.id
    if not device:
        raise ConfigError("this device has no id; give --id, or device.id in --config")
    if check_id(device, "--id" if option is not None else "device.id") == LOCAL:
        raise ConfigError(
            f"--id: {LOCAL!r} names the gateway's own cores; give the device another id"
        )
    return device


def _settings(
    device: str, config: DeviceConfig, url: str, throttle: Throttle | None
) -> AgentSettings:
    workers = cores() if config.device.workers == "auto" else config.device.workers
    memory_mb, max_pixels = config.device.worker_memory_mb, config.device.max_tile_pixels
    return AgentSettings(
        id=device,
        workers=workers,
        url=url,
        topics=Topics(config.wire.prefix),
        qos=config.wire.qos,
        checkin_s=config.device.checkin_s,
        throttle=throttle,
        isolates_all=config.device.isolate == "always",
        max_tile_pixels=0 if max_pixels == "any" else max_pixels,
        worker_memory_mb=worker_memory_mb(workers) if memory_mb == "auto" else memory_mb,
    )


if __name__ == "__main__":
    sys.exit(main())
