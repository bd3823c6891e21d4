"""The command `fog-device`: the agent of one board."""

from __future__ import annotations

import argparse
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
    guarded,
    link,
    offer_models,
    positive,
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
    """Run the command; returns the exit code."""
    options = _parser().parse_args(arguments)
    tune()
    set_up_logging(options.verbose)
    return guarded(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fog-device",
        description="Lends this machine's cores to the gateways that send it tiles over MQTT.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--id", metavar="ID", help="this board's name: a-z, 0-9, _ and -")
    parser.add_argument("--config", type=Path, metavar="FILE", help="as in devices/eya.yaml")
    parser.add_argument("--broker", metavar="URL", help="mqtt://host:1883 or mqtts://host:8883")
    parser.add_argument(
        "--max-tile-pixels",
        type=positive("pixels"),
        metavar="N",
        help="take no larger tile (halo included): for boards of little memory",
    )
    parser.add_argument("--emulate-speed", type=_pace, metavar="P[,P…]", help=argparse.SUPPRESS)
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say more")
    parser.add_argument("--version", action="version", version=f"fog-device {__version__}")
    return parser


def _pace(text: str) -> Throttle:
    """Speeds in pixels per second, from each to the next at SIGUSR1."""
    return Throttle([positive("pixels per second")(one) for one in text.split(",")])


def _run(options: argparse.Namespace) -> int:
    config = load_device(options.config, os.environ)
    offer_models(config.models)
    registry.plug_in(config.plugins)
    device = _device_id(options.id, config)
    broker = replace(config.broker, url=options.broker) if options.broker else config.broker
    way = link(broker, device)

    def connect(deliver: Deliver, will: Will) -> Transport:
        return PahoTransport(way, deliver, will=will)

    pace: Throttle | None = options.emulate_speed
    if pace is not None:
        signal.signal(signal.SIGUSR1, lambda *_: pace.next_speed(time.monotonic()))
    settings = _settings(device, config, broker.url, pace)
    if options.max_tile_pixels is not None:
        settings = replace(settings, max_tile_pixels=max(1, int(options.max_tile_pixels)))
    memory_mb = config.device.worker_memory_mb
    examiner = partial(ConformanceRunner, memory_mb=None if memory_mb == "auto" else memory_mb)
    agent = Agent(settings, connect, make_conformance_runner=examiner)
    with stop_on_signals(agent.stop):
        agent.run()
    return 0


def _device_id(given: str | None, config: DeviceConfig) -> str:
    device = given if given is not None else config.device.id
    if not device:
        raise ConfigError("this device has no name; give --id, or device.id in --config")
    if check_id(device, "--id" if given is not None else "device.id") == LOCAL:
        raise ConfigError(f"--id: {LOCAL!r} is the gateway's own; give the device another id")
    return device


def _settings(device: str, config: DeviceConfig, url: str, pace: Throttle | None) -> AgentSettings:
    workers = cores() if config.device.workers == "auto" else config.device.workers
    memory_mb, most = config.device.worker_memory_mb, config.device.max_tile_pixels
    return AgentSettings(
        id=device,
        workers=workers,
        url=url,
        topics=Topics(config.wire.prefix),
        qos=config.wire.qos,
        checkin_s=config.device.checkin_s,
        throttle=pace,
        max_tile_pixels=0 if most == "any" else most,
        worker_memory_mb=worker_memory_mb(workers) if memory_mb == "auto" else memory_mb,
    )


if __name__ == "__main__":
    sys.exit(main())
