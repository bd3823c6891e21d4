"""Runs the agent of a board that knows its broker."""

from __future__ import annotations

import argparse
import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from fogmqtt.agent.service import Agent, AgentSettings, CameraFactory, UpdaterFactory
from fogmqtt.cli.moved_gateway import GatewayWatch, begin_anew
from fogmqtt.cli.renewal import keep_renewed
from fogmqtt.cli.signals import stop_on_signals
from fogmqtt.config import DeviceConfig
from fogmqtt.config.settings import PREFIX
from fogmqtt.conformance.runner import ConformanceRunner
from fogmqtt.errors import NoBroker, Revoked
from fogmqtt.joining.versions import START_AGAIN
from fogmqtt.operators.api import registry
from fogmqtt.setup.link import make_link, with_brokers
from fogmqtt.setup.operators import set_model_folder
from fogmqtt.transport.base import Deliver, Transport, Will
from fogmqtt.transport.paho import PahoTransport
from fogmqtt.wire.topics import Topics
from fogmqtt.workers.resources import cores, worker_memory_mb
from fogmqtt.workers.throttle import Throttle


def run_agent(
    device: str, config: DeviceConfig, options: argparse.Namespace, *, is_found: bool
) -> int:
    """Run the agent until it ends, and return the exit code.

    `is_found`: its broker was found, and not named. Raises NoBroker and Revoked.
    """
    joined = keep_renewed(device, config.broker.cert) if is_found else ""
    set_model_folder(config.models, only=True)
    registry.plug_in(config.plugins)
    broker = with_brokers(config.broker, options.broker)
    link = make_link(broker, Topics(config.wire.prefix).client_id("device", device))
    watch = GatewayWatch(device) if joined else None

    def connect(deliver: Deliver, will: Will) -> Transport:
        if watch is not None:
            deliver = watch.observing(deliver)
        return PahoTransport(link, deliver, will=will)

    throttle: Throttle | None = options.emulate_speed
    if throttle is not None:
        signal.signal(signal.SIGUSR1, lambda *_: throttle.next_speed(time.monotonic()))
    settings = _settings(device, config, broker.urls, throttle)
    if options.max_tile_pixels is not None:
        settings = replace(settings, max_tile_pixels=max(1, int(options.max_tile_pixels)))
    memory_mb = config.device.worker_memory_mb
    make_runner = partial(ConformanceRunner, memory_mb=None if memory_mb == "auto" else memory_mb)
    agent = Agent(
        settings,
        connect,
        make_conformance_runner=make_runner,
        make_camera=_camera_maker(options.camera, device, config),
        make_updater=_updater_maker(options.versions, device) if joined else None,
    )
    if watch is not None:
        watch.stop = agent.stop
    try:
        with stop_on_signals(agent.stop):
            agent.run()
    except Revoked as problem:
        raise Revoked(
            f"{problem}. {joined or 'Its gateway'} has revoked this board, or another one has "
            f"taken its name: on the gateway, fog-gateway invite {device}, and join again"
        ) from None
    except NoBroker as problem:
        if not joined:
            raise
        raise NoBroker(
            f"{problem}. This board has joined {joined}. If that gateway was made anew, or has "
            f"revoked the board: on it, fog-gateway invite --replace {device}, and join again"
        ) from None
    if watch is not None and watch.has_moved:
        begin_anew()
    if agent.must_restart:
        _restart()
    return START_AGAIN if agent.is_updated else 0


def _updater_maker(folder: Path | None, device: str) -> UpdaterFactory | None:
    """Return what makes the updater of a board that `launch.sh` runs; None for others."""
    if folder is None:
        return None
    from fogmqtt.cli.updating import make_updater
    from fogmqtt.parent import end_with_parent

    end_with_parent(os.getppid())  # without launch.sh, nobody would start the next version
    return make_updater(device, folder)


def _camera_maker(option: str | None, device: str, config: DeviceConfig) -> CameraFactory | None:
    """Return what makes the camera of the device; None if it has none. Raises UsageError."""
    source = option if option is not None else config.camera.source
    if not source:
        return None
    # Only devices with a camera load these.
    from fogmqtt.agent.camera import DeviceCamera
    from fogmqtt.streams.settings import check_device_camera

    settings = check_device_camera(replace(config.camera, source=source))
    topics = Topics(config.wire.prefix)
    return lambda transport, call: DeviceCamera(device, settings, topics, transport, call)


def _restart() -> NoReturn:
    """Begin this program anew, under the same process id: its hanging threads end.

    Tiles hung in threads on this machine, so all of them run in processes from then on.
    """
    os.environ[f"{PREFIX}DEVICE__ISOLATE"] = "always"
    begin_anew()


def _settings(
    device: str, config: DeviceConfig, urls: tuple[str, ...], throttle: Throttle | None
) -> AgentSettings:
    workers = cores() if config.device.workers == "auto" else config.device.workers
    memory_mb, max_pixels = config.device.worker_memory_mb, config.device.max_tile_pixels
    return AgentSettings(
        id=device,
        workers=workers,
        urls=urls,
        user=config.broker.username or "",
        topics=Topics(config.wire.prefix),
        qos=config.wire.qos,
        checkin_s=config.device.checkin_s,
        throttle=throttle,
        isolates_all=config.device.isolate == "always",
        max_tile_pixels=0 if max_pixels == "any" else max_pixels,
        worker_memory_mb=worker_memory_mb(workers) if memory_mb == "auto" else memory_mb,
    )
